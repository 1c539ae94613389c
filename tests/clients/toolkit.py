"""Drives evertoken against django-oauth-toolkit: rotation with a grace period and reuse protection, parallel requests,
restarts and kills around refreshes, answers that are lost, tokens that are revoked at the issuer, logins.

The issuer ends the old access token with each refresh, so a request may meet a 401 that its client must not see.
"""

import json
import pathlib
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

from drive import BINARY, PATIENCE_SECONDS, ROOT, Evertoken, get, variables, wait_for

LIFETIME_SECONDS = 4
GRACE_SECONDS = 30
THREADS = 8
PARALLEL_SECONDS = 12
KILLS = 12
LOST = "the answer to the last refresh was probably lost; log in again"

CONFIG = """
settings: {{port: 0, state_dir: "{folder}/state"}}
providers:
"""
PROVIDER = """
  - name: "{name}"
    type: anthropic
    base_url: "{url}"
    auto_refresh_config:
      token_url: "{relay}/o/token/"
      authorization_url: "{url}/o/authorize/"
      redirect_uri: "http://127.0.0.1/callback"
      client_id_env: {variable}
      scope: "read"
      {keys}
"""
CLIENTS = {"Confidential": "toolkit-confidential", "Public": "toolkit-public"}
# How each client authenticates.
KEYS = {
    "Confidential": "client_secret_env: TEST_CLIENT_SECRET\n      client_auth: client_secret_basic",
    "Public": "client_auth: none",
}


class Issuer:
    """The issuer as a child process."""

    def __init__(self, folder):
        command = [sys.executable, str(ROOT / "tests/clients/toolkit_server.py"), str(folder)]
        command += [str(LIFETIME_SECONDS), str(GRACE_SECONDS)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.url = self.process.stdout.readline().strip()
        assert self.url, "django-oauth-toolkit does not start"

    def control(self, what):
        return get(f"{self.url}/control/{what}")

    def close(self):
        self.process.kill()
        self.process.wait()


class Relay:
    """Passes token requests on, and loses answers: the issuer has done its work then."""

    def __init__(self, target):
        self.target = ("127.0.0.1", int(target.rsplit(":", 1)[1]))
        # Whose answer is lost, and how many were.
        self.losing, self.lost = None, 0
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            threading.Thread(target=self.pass_on, args=(client,), daemon=True).start()

    def pass_on(self, client):
        with client, socket.create_connection(self.target) as server:
            head, body = b"", b""
            while b"\r\n\r\n" not in head:
                piece = client.recv(65536)
                if not piece:
                    return
                head += piece
            head, body = head.split(b"\r\n\r\n", 1)
            lines = head.split(b"\r\n")
            length = next(int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length:"))
            while len(body) < length:
                body += client.recv(65536)
            server.sendall(head + b"\r\nConnection: close\r\n\r\n" + body)
            answer = b""
            while piece := server.recv(65536):
                answer += piece
            # The confidential client's id is in its Authorization field.
            whose = "Public" if CLIENTS["Public"].encode() in body else "Confidential"
            with self.lock:
                if self.losing == whose:
                    self.losing = None
                    self.lost += 1
                    return
            client.sendall(answer)

    def lose(self, provider):
        """Loses the next answer to this provider: the other one refreshes meanwhile by its own plan."""
        with self.lock:
            self.losing, self.lost = provider, 0


def ask(url, provider):
    """The status of one request, and what it says."""
    body = json.dumps({"messages": [{"role": "user", "content": provider}]}).encode()
    request = urllib.request.Request(f"{url}/to/{provider.lower()}/v1/messages", body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            said = json.load(answer)["content"][0]["text"]
            assert said == f"You said: {provider}", said
            return answer.status, said
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class World:
    """Issuer, relay and evertoken with two clients."""

    def __init__(self, folder):
        self.folder = folder
        self.issuer = Issuer(folder)
        self.relay = Relay(self.issuer.url)
        text = CONFIG.format(folder=folder)
        for name, keys in KEYS.items():
            text += PROVIDER.format(
                name=name, url=self.issuer.url, relay=self.relay.url, variable=f"{name.upper()}_ID", keys=keys
            )
        (folder / "providers.yaml").write_text(text)
        self.env = variables(CONFIDENTIAL_ID=CLIENTS["Confidential"], PUBLIC_ID=CLIENTS["Public"])
        self.proxy, self.said = None, None

    def start(self):
        self.proxy = Evertoken(self.folder, self.env)
        self.url = self.proxy.url()

    def login(self, provider):
        """`evertoken login`; this test is the browser, and the issuer asks nothing."""
        process = subprocess.Popen(
            [str(BINARY), "login", "--provider", provider.lower(), "--no-browser"], cwd=self.folder, env=self.env,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        address = next(line.strip() for line in process.stdout if line.startswith("  http"))
        with urllib.request.urlopen(address, timeout=PATIENCE_SECONDS) as page:
            assert "evertoken has its token" in page.read().decode()
        said = process.stdout.read()
        assert process.wait(PATIENCE_SECONDS) == 0, said

    def status(self, provider):
        providers = get(f"{self.url}/-/status")["providers"]
        return next(one for one in providers if one["name"] == provider)

    def serves(self, provider):
        status, said = ask(self.url, provider)
        assert status == 200, (status, said, self.told())

    def refresh(self, provider):
        """Orders a refresh; its status."""
        request = urllib.request.Request(f"{self.url}/-/refresh/{provider.lower()}", b"", method="POST")
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def says_log_in_again(self, provider):
        status, said = ask(self.url, provider)
        self.said = status, said
        return status in (403, 503) and "log in again" in said.lower()

    def told(self):
        """What explains a failure: the last words to a client, and the last lines of the log."""
        return self.said, self.proxy.lines()[-5:]

    def close(self):
        if self.proxy and self.proxy.process.poll() is None:
            self.proxy.kill()
        self.issuer.close()


def check_parallel(world):
    """Many clients at once, through many refreshes: none sees a 401."""
    seen, until = [0] * THREADS, time.monotonic() + PARALLEL_SECONDS
    wrong = []

    def converse(index):
        provider = list(KEYS)[index % len(KEYS)]
        while time.monotonic() < until and not wrong:
            status, said = ask(world.url, provider)
            seen[index] += 1
            if status != 200:
                wrong.append((provider, status, said))

    before = world.issuer.control("stats")
    threads = [threading.Thread(target=converse, args=(index,)) for index in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = world.issuer.control("stats")
    rotations = after["refresh_tokens"] - before["refresh_tokens"]
    met = after["refused"] - before["refused"]
    print(f"Parallel: {sum(seen)} requests, {rotations} rotations, {met} met an ended token at the provider, {len(wrong)} wrong")
    assert not wrong, wrong[:3]
    assert rotations > PARALLEL_SECONDS / LIFETIME_SECONDS and after["live"] == len(KEYS)


def check_restarts(world):
    """Stops, and kills around refreshes: within the grace period no answer is lost for good."""
    rng = random.Random(7)
    world.proxy.stop()
    world.start()
    for name in KEYS:
        world.serves(name)
    for number in range(KILLS):
        # Tokens of 4 s are refreshed after about 2 s.
        time.sleep(rng.uniform(0.0, 0.4))
        if number % 2:
            # In the middle of a refresh: the issuer has answered, and nobody was there.
            world.relay.lose("Public")
            ordered = threading.Thread(target=lambda: tolerate(lambda: world.refresh("Public")))
            ordered.start()
            wait_for(lambda: world.relay.lost, world.told)
            world.proxy.kill()
            ordered.join()
        else:
            world.proxy.kill()
        world.start()
        for name in KEYS:
            world.serves(name)
    assert world.issuer.control("stats")["live"] == len(KEYS)
    print(f"Restarts: {KILLS} kills, no chain lost within the grace period")


def tolerate(action):
    """Who is killed answers nobody."""
    try:
        action()
    except OSError:
        pass


def check_lost_answer(world):
    """Within the grace period a lost answer costs nothing; without one it is said, and a login helps."""
    world.relay.lose("Confidential")
    world.refresh("Confidential")
    assert world.relay.lost == 1
    wait_for(lambda: world.refresh("Confidential") == 200, world.told)
    world.serves("Confidential")
    world.issuer.control("grace?is=0")
    world.relay.lose("Confidential")
    world.refresh("Confidential")
    wait_for(lambda: any(LOST in line for line in world.proxy.lines()), world.told)
    wait_for(lambda: world.says_log_in_again("Confidential"), world.told)
    world.serves("Public")
    world.login("Confidential")
    wait_for(lambda: ask(world.url, "Confidential")[0] == 200, world.told)
    world.issuer.control(f"grace?is={GRACE_SECONDS}")
    print("Lost answer: made good within the grace period, said without one, and a login mended it")


def check_revocation(world):
    """Everything ends at the issuer: it is said, and a login mends it without a restart."""
    for name in KEYS:
        # Again and again: a refresh that the issuer is just working on outlives one revocation.
        wait_for(
            lambda: world.issuer.control(f"revoke?client={CLIENTS[name]}") is not None and world.says_log_in_again(name),
            world.told,
        )
        world.login(name)
        wait_for(lambda: ask(world.url, name)[0] == 200, world.told)
    print("Revocation: said, and a login mended it")


def main():
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        world = World(pathlib.Path(folder))
        try:
            for name in KEYS:
                world.login(name)
            world.start()
            checks = (check_parallel, check_restarts, check_lost_answer, check_revocation)
            for check in checks:
                check(world)
            world.proxy.stop()
        finally:
            world.close()
    print(f"toolkit: ok in {time.monotonic() - begun:.0f} s. {len(checks)} passed; 0 failed")


if __name__ == "__main__":
    sys.exit(main())
