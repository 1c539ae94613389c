"""The sandbox as a child process, certificates and a configuration for an evertoken before it, and the wait for a condition.

emulated.py, small_machine.py, small_router.py and upgrade.py share it.
"""

import http.client
import json
import subprocess
import time

LIMIT_S = 120


def eventually(what, attempt):
    """The first outcome of `attempt` that is something."""
    until = time.monotonic() + LIMIT_S
    while True:
        refused = ""
        try:
            if outcome := attempt():
                return outcome
        except OSError as error:
            refused = f" ({error})"
        assert time.monotonic() < until, f"never: {what}{refused}"
        time.sleep(0.02)


class Sandbox:
    """An issuer and provider."""

    def __init__(self, program, event_delay_ms=0):
        arguments = [program, "serve", "--event-delay", str(event_delay_ms), "--lifetime", "3600"]
        self.process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
        self.url = self.process.stderr.readline().split()[-1]
        self.port = int(self.url.rsplit(":", 1)[1])
        self.values = dict(self.process.stderr.readline().strip().split("=", 1) for _ in range(3))

    def control(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)
        connection.request("GET", f"/control/{path}")
        return json.load(connection.getresponse())

    def variables(self):
        """What `configuration` reads of the environment, with a new login."""
        return {"SANDBOX_ID": self.values["client_id"], "SANDBOX_SECRET": self.values["client_secret"],
                "SANDBOX_TOKEN": self.control("login")["refresh_token"]}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()


def configuration(url, settings, **provider):
    """The text of a providers.yaml, for the sandbox at `url`. Every JSON is YAML too."""
    tokens = {"token_url": f"{url}/oauth/token", "client_id_env": "SANDBOX_ID", "client_secret_env": "SANDBOX_SECRET",
              "refresh_token_env": "SANDBOX_TOKEN"}
    work = {"name": "Work", "type": "anthropic", "base_url": url, **provider, "auto_refresh_config": tokens}
    return json.dumps({"settings": settings, "providers": [work]}, indent=2)


def own_tls(folder):
    """The value of `settings.tls`, with the files of `certificates`."""
    return {"cert_file": f"{folder}/cert.pem", "key_file": f"{folder}/key.pem"}


def certificates(folder, *names):
    """An authority, ca.pem, and a certificate of it for this machine and these names, cert.pem and key.pem."""
    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *key, "-days", "2", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem")
    openssl("req", *key, "-subj", "/CN=localhost", "-keyout", "key.pem", "-out", "leaf.csr")
    (folder / "names").write_text("subjectAltName=" + ",".join(["DNS:localhost", "IP:127.0.0.1", *names]) + "\n")
    openssl("x509", "-req", "-in", "leaf.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-extfile", "names", "-out", "cert.pem")
