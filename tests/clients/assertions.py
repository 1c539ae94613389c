"""Clients that send no secret, against a real issuer (oidc-provider) that judges them: assertions signed with keys of each kind
as openssl writes them, client certificates that are renewed, tokens bound to them, an exchanged token; and Google's and GitHub's
ways against verifiers of others (google-auth, PyJWT).
"""

import http.server
import json
import pathlib
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

import google.auth.jwt
import jwt

from drive import PATIENCE_SECONDS, ROOT, Evertoken, variables, wait_for

GENERATE = {
    "rsa-pkcs1": "genrsa -traditional -out {0} 2048",
    "rsa-pkcs8": "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072 -out {0}",
    "rsa-pss": "genrsa -out {0} 4096",
    "p256-sec1": "ecparam -name prime256v1 -genkey -out {0}",
    "p256-pkcs8": "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {0}",
    "p384": "ecparam -name secp384r1 -genkey -noout -out {0}",
    "ed25519": "genpkey -algorithm ed25519 -out {0}",
    "platform": "genrsa -out {0} 2048",
}
# The ways to sign, and what the entry says besides the key.
SIGNERS = {
    **{name: "" for name in ("rsa-pkcs1", "rsa-pkcs8", "p256-sec1", "p256-pkcs8", "p384", "ed25519")},
    "rsa-pss": ", algorithm: PS256",
}
PROVIDER = """
  - name: "{name}"
    type: generic
    base_url: "{url}/api"
    ca_file: "ca.crt"
    client_cert: {shows}
    auto_refresh_config:
      token_url: "{url}/token"
      scope: "read"
      {keys}
"""
MACHINE = "grant_type: client_credentials\n      client_id_file: {name}.id\n      "


def openssl(folder, arguments):
    done = subprocess.run(["openssl", *arguments.split()], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"openssl {arguments}: {done.stderr}"


def certify(folder, name, authority=None):
    """A key and a certificate, of an authority or self-signed."""
    openssl(folder, f"req -newkey rsa:2048 -nodes -keyout {name}.key -subj /CN={name} -out {name}.csr")
    by = f"-CA {authority}.crt -CAkey {authority}.key -CAcreateserial" if authority else f"-signkey {name}.key"
    more = ""
    if name == "server":
        (folder / "server.ext").write_text("subjectAltName=DNS:localhost\n")
        more = "-extfile server.ext"
    openssl(folder, f"x509 -req -in {name}.csr {by} -days 30 -out {name}.crt {more}")


def prepare(folder):
    for name, arguments in GENERATE.items():
        openssl(folder, arguments.format(f"{name}.pem"))
        openssl(folder, f"pkey -in {name}.pem -pubout -out {name}.pub")
    openssl(folder, "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -subj /CN=authority -days 30 -out ca.crt")
    certify(folder, "server", "ca")
    certify(folder, "tls-ca", "ca")
    certify(folder, "tls-self")
    certify(folder, "tls-self-2")
    for name in [*SIGNERS, "hmac", "tls-ca", "tls-self", "exchange", "robot"]:
        (folder / f"{name}.id").write_text(name)
    # One file with both.
    (folder / "both.pem").write_text((folder / "tls-ca.crt").read_text() + (folder / "tls-ca.key").read_text())
    subject_token(folder, 3600)


def subject_token(folder, lifetime):
    """What a platform would write into a workload's file: a new file in the place of the old one."""
    key = (folder / "platform.pem").read_text()
    token = jwt.encode({"sub": "workload", "exp": int(time.time()) + lifetime, "n": time.time()}, key, "RS256")
    (folder / "subject.new").write_text(token + "\n")
    (folder / "subject.new").rename(folder / "subject.jwt")


def entries(url):
    entry = lambda name, keys, shows="false": PROVIDER.format(
        name=name, url=url, shows=shows, keys=keys.format(name=name)
    )
    for name, more in SIGNERS.items():
        key = f"client_assertion: {{{{key_file: {name}.pem, key_id: key-1{more}}}}}"
        yield entry(name, MACHINE + key)
    yield entry("hmac", MACHINE + "client_secret_env: HMAC\n      client_auth: client_secret_jwt")
    yield entry("tls-ca", MACHINE + "client_cert_file: both.pem", "true")
    yield entry("tls-self", MACHINE + "client_cert_file: tls-self.crt\n      client_key_file: tls-self.key")
    exchange = "grant_type: token_exchange\n      client_id_file: {name}.id\n      subject_token_file: subject.jwt\n      "
    yield entry("exchange", exchange + "audience: the-api")
    robot = "grant_type: jwt_bearer\n      client_id_file: {name}.id\n      "
    claims = "assertion: {{key_file: p256-sec1.pem, lifetime: 120, claims: {{sub: somebody}}}}"
    yield entry("robot", robot + claims)


class Issuer:
    """The issuer as a child process."""

    def __init__(self, folder):
        script = ROOT / "target/clients/assertions.mjs"
        self.said = open(folder / "issuer", "w+")
        self.process = subprocess.Popen(
            ["node", str(script), str(folder)], stdout=subprocess.PIPE, stderr=self.said, text=True
        )
        self.url = next((line.strip() for line in self.process.stdout if line.startswith("https")), None)
        assert self.url, (folder / "issuer").read_text()
        self.context = ssl.create_default_context(cafile=folder / "ca.crt")

    def stats(self):
        with urllib.request.urlopen(self.url + "/control/stats", context=self.context) as answer:
            return json.load(answer)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


class Verifier(http.server.ThreadingHTTPServer):
    """Token endpoints as Google's and GitHub's, which check assertions with the libraries of others."""

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.key = (folder / "rsa-pkcs1.pub").read_bytes()
        self.faults = []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        try:
            answer = self.google(body) if self.path == "/google" else self.github(body)
        except Exception as error:  # noqa: BLE001: whatever the library says
            self.server.faults.append(f"{self.path}: {error!r}")
            answer = 400, {"error": "invalid_grant"}
        self.answer(*answer)

    def do_GET(self):
        self.answer(200, {"authorization": self.headers["authorization"]})

    def google(self, body):
        form = dict(urllib.parse.parse_qsl(body))
        claims = google.auth.jwt.decode(form["assertion"], certs=self.server.key, audience=self.server.url + "/google")
        assert google.auth.jwt.decode_header(form["assertion"])["kid"] == "key-7"
        assert claims["iss"] == "robot@project.test" and claims["scope"] == "cloud-platform", claims
        assert "scope" not in form and form["grant_type"].endswith(":jwt-bearer"), form
        return 200, {"access_token": "of-google", "expires_in": 3599, "token_type": "Bearer"}

    def github(self, body):
        token = self.headers["authorization"].removeprefix("Bearer ")
        claims = jwt.decode(token, self.server.key, algorithms=["RS256"], options={"require": ["iat", "exp", "iss"]})
        assert claims["iss"] == "app" and claims["exp"] - time.time() < 600 and "aud" not in claims, claims
        assert body == "" and self.headers["accept"] == "application/vnd.github+json", self.headers
        end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        return 201, {"token": "of-github", "expires_at": end, "permissions": {"contents": "read"}}

    def answer(self, status, value):
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


def of_platforms(folder, url):
    account = {
        "type": "service_account", "project_id": "project", "private_key_id": "key-7", "client_email": "robot@project.test",
        "private_key": (folder / "rsa-pkcs1.pem").read_text(), "token_uri": url + "/google",
    }
    (folder / "credentials.json").write_text(json.dumps(account))
    (folder / "app.id").write_text("app")
    return f"""
  - name: "google"
    type: generic
    base_url: "{url}"
    auto_refresh_config:
      grant_type: jwt_bearer
      scope: cloud-platform
      assertion: {{ key_file: credentials.json }}
  - name: "github"
    type: generic
    base_url: "{url}"
    auto_refresh_config:
      token_url: "{url}/app/installations/7/access_tokens"
      grant_type: jwt_bearer
      client_id_file: app.id
      headers: {{ accept: application/vnd.github+json }}
      token_fields: {{ access_token: token, expires_at: expires_at }}
      assertion: {{ key_file: rsa-pkcs1.pem, as: bearer }}
"""


def ask(url):
    with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:
        return json.load(answer)


def refresh(proxy, name):
    request = urllib.request.Request(f"{proxy}/-/refresh/{name}", b"", method="POST")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        prepare(folder)
        with Issuer(folder) as issuer:
            verifier = Verifier(folder)
            text = "".join(entries(issuer.url)) + of_platforms(folder, verifier.url)
            config = f"settings: {{port: 0, state_dir: state}}\nproviders:\n{text}"
            (folder / "providers.yaml").write_text(config)
            secret = "secret-of-the-tests-that-is-long-enough-for-hs256"
            proxy = Evertoken(folder, {**variables(), "HMAC": secret})
            try:
                count = drive(folder, issuer, verifier, proxy)
            except BaseException:
                print("\n".join(proxy.lines()), (folder / "issuer").read_text(), verifier.faults, sep="\n")
                raise
            proxy.stop()
            stats = issuer.stats()
    print(f"Assertions: {count} clients without a secret on the way, {stats}")
    print(f"test-clients: assertions ok. {count} passed; 0 failed")


def drive(folder, issuer, verifier, proxy):
    url = proxy.url()
    names = [*SIGNERS, "hmac", "tls-ca", "tls-self", "exchange", "robot"]
    for name in names:
        answer = ask(f"{url}/to/{name}/x")
        assert answer == {"client": name, "bound": name == "tls-ca"}, answer
        # Another assertion: one that came already is refused.
        assert refresh(url, name)[0] == 200, name
    for name in ("google", "github"):
        assert ask(f"{url}/to/{name}/x") == {"authorization": f"Bearer of-{name}"}, verifier.faults
    # A renewed certificate, and a renewed subject token.
    for kind in ("crt", "key"):
        (folder / f"tls-self-2.{kind}").rename(folder / f"tls-self.{kind}")
    subject_token(folder, 3600)
    for name in ("tls-self", "exchange"):
        assert refresh(url, name)[0] == 200, name
    # One that has ended: what it says names it, and the token in hand serves.
    subject_token(folder, -60)
    status, said = refresh(url, "exchange")
    assert status == 502 and "the subject token in subject.jwt ended at" in said, said
    assert ask(f"{url}/to/exchange/x")["client"] == "exchange"
    # A key that the issuer does not know.
    (folder / "p384.pem").write_text((folder / "p256-sec1.pem").read_text())
    status, said = refresh(url, "p384")
    assert status == 502 and "401 Unauthorized (invalid_client)" in said, said
    stats = issuer.stats()
    assert stats["refused"] == 0 and stats["granted"] == 2 * len(names) + 2, stats
    return len(names) + 2


if __name__ == "__main__":
    sys.exit(main())
