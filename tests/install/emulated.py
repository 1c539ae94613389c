#!/usr/bin/env python3
"""Runs static programs for several machines under qemu-user, against the sandbox on this one.

emulated.py SANDBOX PROGRAM…: the version of each PROGRAM, its check of a real configuration, its first refresh, a JSON and a
streamed answer over its own TLS, a second refresh and its stop are tested. That for this machine runs under qemu too, whose
processor lacks what only newer ones have. Needs qemu-user-static and openssl.
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

from sandbox import LIMIT_S, Sandbox, certificates, configuration, eventually, own_tls

ROOT = pathlib.Path(__file__).resolve().parents[2]
# qemu's names of processors, by the number and the order of bytes in a program's head (elf(5), e_machine).
PROCESSORS = {(8, "big"): "mips", (8, "little"): "mipsel", (40, "little"): "arm", (62, "little"): "x86_64",
              (183, "little"): "aarch64", (243, "little"): "riscv64"}
EVENT_DELAY_MS = 50
EVENTS_MIN = 5


def processor(program):
    """qemu's name of the processor that `program` is for."""
    with open(program, "rb") as file:
        head = file.read(20)
    order = "big" if head[5] == 2 else "little"
    return PROCESSORS[int.from_bytes(head[18:20], order), order]


def emulator(program):
    """The command that runs `program` on this machine."""
    name = f"qemu-{processor(program)}-static"
    found = shutil.which(name)
    assert found, f"{name} is missing: Debian's package qemu-user-static"
    return found


class Running:
    """A program that runs, and questions to it."""

    def __init__(self, command, folder, env):
        self.log = folder / "log"
        with open(self.log, "w") as log:
            arguments = [*command, "run", "--config", str(folder / "providers.yaml")]
            self.process = subprocess.Popen(arguments, env=env, stderr=log)
        self.trust = ssl.create_default_context(cafile=folder / "ca.pem")
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


def try_out(program, sandbox, folder):
    command = [emulator(program), str(program)]
    env = {"HOME": str(folder), **sandbox.variables()}

    def output(*arguments):
        done = subprocess.run([*command, *arguments], env=env, text=True, capture_output=True, timeout=LIMIT_S)
        assert done.returncode == 0, f"{arguments}: {done.returncode} {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    version = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
    assert output("--version").split() == ["evertoken", version]
    certificates(folder)
    settings = {"port": 0, "state_dir": f"{folder}/state", "tls": own_tls(folder)}
    (folder / "providers.yaml").write_text(configuration(sandbox.url, settings))
    output("check", "--config", str(folder / "providers.yaml"))

    running = Running(command, folder, env)
    try:
        eventually("a token", running.refreshes)
        assert json.loads(running.message(streams=False))["content"]
        events = running.message(streams=True).count("event: ")
        assert events >= EVENTS_MIN, events
        before = running.refreshes()
        assert running.ask("POST", "/-/refresh/work").status < 300
        eventually("a second refresh", lambda: running.refreshes() > before)
        assert json.loads(running.message(streams=False))["content"]
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(LIMIT_S) == 0, running.log.read_text()
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()
    stored = json.loads((folder / "state/work.json").read_text())
    assert stored, "the rotated refresh token is on the disk"
    print(f"ok - {processor(program)}: {program.stat().st_size} bytes, checks, refreshes, answers over TLS, streams, stops")


def main():
    programs = [pathlib.Path(name).resolve() for name in sys.argv[2:]]
    assert programs, "no program to run"
    with Sandbox(sys.argv[1], EVENT_DELAY_MS) as sandbox:
        for program in programs:
            with tempfile.TemporaryDirectory() as folder:
                try_out(program, sandbox, pathlib.Path(folder))
    print(f"{len(programs)} passed, 0 failed")


if __name__ == "__main__":
    main()
