"""TLS for clients (`settings.tls`), judged by programs of others: openssl, curl, Python's and Node's own clients, the official
SDKs, and sslyze, which knows the versions, ciphers and faults of TLS servers.
"""

import json
import os
import pathlib
import ssl
import subprocess
import tempfile
import threading
import urllib.request

import anthropic
import openai
import websockets.sync.client
import websockets.sync.server
from drive import Evertoken, wait_for
from sandboxed import Sandboxed

ROOT = pathlib.Path(__file__).resolve().parents[2]
# A provider that speaks WebSockets.
ECHO = """
settings:
  port: 0
  state_dir: "{folder}/state-of-websocket"
  tls: {{cert_file: "{folder}/cert.pem", key_file: "{folder}/key.pem"}}
providers:
  - {{name: Echo, type: generic, base_url: "http://127.0.0.1:{port}", auth_type: none}}
"""
SSLYZE = ROOT / "target/clients/sslyze/bin/sslyze"
PATIENCE_SECONDS = 120
SCANS = ["--" + scan for scan in (
    "sslv2", "sslv3", "tlsv1", "tlsv1_1", "tlsv1_2", "tlsv1_3", "heartbleed", "openssl_ccs", "robot", "compression", "early_data",
    "reneg",
)]
OLD_VERSIONS = ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1")
# Ciphers that encrypt and authenticate at once, with keys that no later theft of the certificate's key reveals.
MODERN = ("TLS_AES_", "TLS_CHACHA20_", "TLS_ECDHE_")


def run(*command, text="", **more):
    done = subprocess.run(
        [str(part) for part in command], input=text, capture_output=True, text=True, timeout=PATIENCE_SECONDS, **more
    )
    return done.stdout + done.stderr


def write_pair(folder, *key):
    """A certificate for this machine that signs itself, as a program writes it that renews it."""
    run("openssl", "req", "-x509", *key, "-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", folder / "new-key",
        "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-out", folder / "new-cert")
    (folder / "new-key").rename(folder / "key.pem")
    (folder / "new-cert").rename(folder / "cert.pem")


def check_openssl(address, folder):
    def connect(*options):
        request = "GET /-/healthy HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        command = ("openssl", "s_client", "-connect", address, "-CAfile", folder / "cert.pem", "-ign_eof", *options)
        return run(*command, text=request)

    for version, name in (("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")):
        session = folder / f"session{version}"
        first = connect(version, "-sess_out", session)
        assert f"New, {name}" in first and "Verify return code: 0" in first and "HTTP/1.1 200" in first, first
        again = connect(version, "-sess_in", session)
        assert f"Reused, {name}" in again and "HTTP/1.1 200" in again, again
    chosen = connect("-alpn", "h2,http/1.1")
    assert "ALPN protocol: http/1.1" in chosen, chosen
    refused = connect("-alpn", "h2")
    assert "alert no application protocol" in refused, refused
    for old in ("-tls1", "-tls1_1"):
        refused = connect(old, "-cipher", "DEFAULT:@SECLEVEL=0")
        assert "HTTP/1.1" not in refused and "Cipher is (NONE)" in refused, refused


def check_curl(url, folder):
    trust = ("--cacert", folder / "cert.pem", "--silent", "--show-error")
    for options in ((), ("--tls-max", "1.2"), ("--http2",)):
        assert run("curl", *trust, *options, f"{url}/-/healthy", "--fail", "--write-out", "%{http_version}").endswith("1.1")
    plain = run("curl", "--silent", "--include", url.replace("https://", "http://"))
    assert plain.startswith("HTTP/1.1 400 ") and "sent to HTTPS port" in plain, plain
    refused = run("curl", "--silent", "--show-error", f"{url}/-/healthy", env={"PATH": os.environ["PATH"]})
    assert "curl: (60)" in refused, refused


def check_sdks(url):
    """They trust the certificate by the variable SSL_CERT_FILE."""
    said = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0).messages.create(
        model="m", max_tokens=9, messages=[{"role": "user", "content": "hello"}]
    )
    assert said.content[0].text, said
    stream = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0).chat.completions.create(
        model="m", messages=[{"role": "user", "content": "hello"}], stream=True
    )
    assert sum(1 for _ in stream) > 1
    script = f"fetch('{url}/-/healthy').then(answer => console.log('status', answer.status))"
    asked = run("node", "-e", script, env={**os.environ, "NODE_EXTRA_CA_CERTS": os.environ["SSL_CERT_FILE"]})
    assert asked.startswith("status 200"), asked


def check_sslyze(address, folder):
    run(SSLYZE, *SCANS, "--json_out", folder / "found", "--quiet", address)
    found = json.loads((folder / "found").read_text())["server_scan_results"][0]["scan_result"]
    result = lambda name: found[name]["result"]
    for version in OLD_VERSIONS:
        assert not result(f"{version}_cipher_suites")["accepted_cipher_suites"], version
    for version in ("tls_1_2", "tls_1_3"):
        names = [one["cipher_suite"]["name"] for one in result(f"{version}_cipher_suites")["accepted_cipher_suites"]]
        assert names and all(name.startswith(MODERN) and "CBC" not in name for name in names), names
    assert not result("heartbleed")["is_vulnerable_to_heartbleed"]
    assert not result("openssl_ccs_injection")["is_vulnerable_to_ccs_injection"]
    assert result("robot")["robot_result"].startswith("NOT_VULNERABLE"), result("robot")
    assert not result("tls_compression")["supports_compression"]
    assert not result("tls_1_3_early_data")["supports_early_data"]
    assert not result("session_renegotiation")["is_vulnerable_to_client_renegotiation_dos"]
    assert result("session_renegotiation")["supports_secure_renegotiation"]


def check_websocket(folder):
    """Messages up to 1 MB come back through TLS."""

    def echo(connection):
        for message in connection:
            connection.send(message)

    server = websockets.sync.server.serve(echo, "127.0.0.1", 0, max_size=None)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    place = folder / "websocket"
    place.mkdir()
    (place / "providers.yaml").write_text(ECHO.format(folder=folder, port=server.socket.getsockname()[1]))
    evertoken = Evertoken(place, {"HOME": "/nonexistent"})
    trust = ssl.create_default_context(cafile=folder / "cert.pem")
    url = evertoken.url().replace("https://127.0.0.1", "wss://localhost")
    with websockets.sync.client.connect(url, ssl=trust, max_size=None) as connection:
        for size in (1, 1000, 1024 * 1024):
            connection.send("x" * size)
            assert connection.recv() == "x" * size, size
    evertoken.stop()
    server.shutdown()


def check_renewal(url, folder):
    """A new certificate, of another kind of key, is shown without a restart."""
    write_pair(folder, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")

    def is_shown():
        try:
            return urllib.request.urlopen(f"{url}/-/healthy").status == 200
        except OSError as error:
            assert isinstance(getattr(error, "reason", error), ssl.SSLError), error
            return False

    wait_for(is_shown)


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_pair(folder, "-newkey", "rsa:2048")
        # For urllib, httpx and all that asks OpenSSL for the usual certificates.
        os.environ["SSL_CERT_FILE"] = str(folder / "cert.pem")
        tls = f'  tls: {{cert_file: "{folder}/cert.pem", key_file: "{folder}/key.pem"}}\n'
        with Sandboxed(folder, tls, [("A", "anthropic"), ("O", "openai")]) as world:
            address = world.url.removeprefix("https://")
            check_openssl(address, folder)
            check_curl(world.url, folder)
            check_sdks(world.url)
            check_websocket(folder)
            check_sslyze(address, folder)
            check_renewal(world.url, folder)
            check_sdks(world.url)
    print("own_tls: openssl, curl, Node, the SDKs, websockets and sslyze agree")


main()
