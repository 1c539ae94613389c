#!/usr/bin/env python3
"""Runs static programs for other machines under qemu-user, against the sandbox on this one.

emulated.py SANDBOX PROGRAM…: each PROGRAM is a file of `make dist`, named after its target. Its version, its check of a real
configuration, its first refresh, a JSON and a streamed answer over its own TLS, a second refresh and its stop are tested.
Needs qemu-user-static and openssl.
"""

import http.client
import json
import pathlib
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
# qemu's names of processors, by those of targets.
PROCESSORS = {"armv7": "arm", "riscv64gc": "riscv64"}
# A program without optimization, under qemu, on a busy machine.
LIMIT_S = 120
EVENTS_MIN = 5

CONFIG = """
settings:
  port: 0
  state_dir: "{folder}/state"
  tls: {{ cert_file: "{folder}/cert.pem", key_file: "{folder}/key.pem" }}
providers:
  - name: Sandbox
    type: anthropic
    base_url: "{url}"
    auto_refresh_config:
      token_url: "{url}/oauth/token"
      client_id_env: SANDBOX_ID
      client_secret_env: SANDBOX_SECRET
      refresh_token_env: SANDBOX_TOKEN
"""


def emulator(target):
    """The command that runs a program for `target` on this machine."""
    processor = target.split("-")[0]
    name = f"qemu-{PROCESSORS.get(processor, processor)}-static"
    found = shutil.which(name)
    assert found, f"{name} is missing: Debian's package qemu-user-static"
    return found


def eventually(what, attempt):
    """The first outcome of `attempt` that is no failure."""
    until = time.monotonic() + LIMIT_S
    while True:
        try:
            outcome = attempt()
        except OSError as error:
            outcome, what = None, f"{what} ({error})"
        if outcome is not None:
            return outcome
        assert time.monotonic() < until, f"never: {what}"
        time.sleep(0.05)


def start_sandbox(program):
    """The sandbox, its address and its values."""
    arguments = [program, "serve", "--event-delay", "50", "--lifetime", "3600"]
    sandbox = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    url = sandbox.stderr.readline().split()[-1]
    return sandbox, url, dict(sandbox.stderr.readline().strip().split("=", 1) for _ in range(3))


def make_certificate(folder):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "7300",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", folder / "key.pem", "-out", folder / "cert.pem"], check=True, capture_output=True)


class Running:
    """A program that runs, and questions to it."""

    def __init__(self, command, folder, env):
        self.log = folder / "log"
        with open(self.log, "w") as log:
            arguments = [*command, "run", "--config", str(folder / "providers.yaml")]
            self.process = subprocess.Popen(arguments, env=env, stderr=log)
        self.trust = ssl.create_default_context(cafile=folder / "cert.pem")
        self.port = int(eventually("a listener", lambda: self.said(r"Listening on https://127\.0\.0\.1:(\d+)"))[1])

    def said(self, pattern):
        assert self.process.poll() is None, self.log.read_text()
        return re.search(pattern, self.log.read_text())

    def ask(self, method, path, body=None):
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=LIMIT_S, context=self.trust)
        fields = {"content-type": "application/json", "anthropic-version": "2023-06-01"}
        connection.request(method, path, body and json.dumps(body), fields)
        return connection.getresponse()

    def refreshes(self):
        """The number of refreshes that succeeded."""
        (provider,) = json.load(self.ask("GET", "/-/status"))["providers"]
        return provider["refresh"]["successes"] if provider["state"] == "ready" else 0

    def message(self, streams):
        body = {"model": "m", "max_tokens": 99, "stream": streams,
                "messages": [{"role": "user", "content": "one two three four five six"}]}
        answer = self.ask("POST", "/v1/messages", body)
        text = answer.read().decode()
        assert answer.status == 200, text
        return text


def try_out(program, sandbox_url, values, folder):
    target = re.fullmatch(r"evertoken-\d+\.\d+\.\d+-(.+)", program.name)[1]
    command = [emulator(target), str(program)]
    env = {"HOME": str(folder), "SANDBOX_ID": values["client_id"], "SANDBOX_SECRET": values["client_secret"],
           "SANDBOX_TOKEN": values["refresh_token"]}

    def output(*arguments):
        done = subprocess.run([*command, *arguments], env=env, text=True, capture_output=True, timeout=LIMIT_S)
        assert done.returncode == 0, f"{arguments}: {done.returncode} {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    version = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
    assert output("--version").split() == ["evertoken", version]
    (folder / "providers.yaml").write_text(CONFIG.format(folder=folder, url=sandbox_url))
    output("check", "--config", str(folder / "providers.yaml"))

    running = Running(command, folder, env)
    try:
        eventually("a token", lambda: running.refreshes() or None)
        assert json.loads(running.message(streams=False))["content"]
        events = running.message(streams=True).count("event: ")
        assert events >= EVENTS_MIN, events
        before = running.refreshes()
        assert running.ask("POST", "/-/refresh/sandbox").status < 300
        eventually("a second refresh", lambda: True if running.refreshes() > before else None)
        assert json.loads(running.message(streams=False))["content"]
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(LIMIT_S) == 0, running.log.read_text()
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()
    stored = json.loads((folder / "state/sandbox.json").read_text())
    assert stored, "the rotated refresh token is on the disk"
    print(f"ok - {target}: {program.stat().st_size} bytes, checks, refreshes, answers over TLS, streams, stops")


def main():
    sandbox, url, values = start_sandbox(sys.argv[1])
    programs = [pathlib.Path(name).resolve() for name in sys.argv[2:]]
    assert programs, "no program to run"
    try:
        for program in programs:
            with tempfile.TemporaryDirectory() as folder:
                make_certificate(pathlib.Path(folder))
                login = json.load(http_get(url, "/control/login"))
                try_out(program, url, {**values, "refresh_token": login["refresh_token"]}, pathlib.Path(folder))
    finally:
        sandbox.kill()
        sandbox.wait()
    print(f"{len(programs)} passed, 0 failed")


def http_get(url, path):
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=LIMIT_S)
    connection.request("GET", path)
    return connection.getresponse()


if __name__ == "__main__":
    main()
