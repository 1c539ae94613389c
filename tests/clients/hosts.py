"""Several hosts with one token chain: five instances of the built binary, a real redis-server or
valkey-server, HAProxy in front, SDK clients on all, and an issuer that revokes a chain whose refresh token
is used twice. Kills, stops and cuts whatever can be, and says what the clients saw of it.

hosts.py [ROUNDS]   so many rounds of random faults (3). Needs root for cutting networks; without, that is
left out. EVERTOKEN_SEED (7) seeds the faults.
"""

import collections
import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

import anthropic
import openai

import drive

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 3
SEED = int(os.environ.get("EVERTOKEN_SEED", "7"))
HOSTS = 5
CLIENTS = 8
LIFETIME_SECONDS = 4
# For single faults: what is left of a token in hand is longer than any of them.
LONGER_LIFETIME_SECONDS = 6
# The provider takes a token for so much longer, and counts who sends one late.
SLACK_SECONDS = 5
# A refresh is due after half the lifetime, minus up to a tenth of that.
REFRESHED_AFTER_MIN_SECONDS = 1.7
PATIENCE_SECONDS = 60
# Between the issuer handing over its answer and the rotated token being in the store.
STORED_WITHIN_MS = 300

PREFIX = "evertoken:"
SETTINGS = """
settings:
  port: 0
  state_dir: "{folder}/state"
  failure_cooldown: 1
  shutdown_grace: 5
  token_store: "{store}"
  token_store_key_env: TEST_STORE_KEY
providers:
"""


def free_socket():
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(128)
    return listening


def run(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def until(what, holds, seconds=PATIENCE_SECONDS):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = holds()
        if found:
            return found
        time.sleep(0.05)
    raise SystemExit(f"waited in vain for: {what}")


class Network:
    """A namespace for the engine, with a link of its own to each host, so that each can be cut."""

    def __init__(self):
        self.name = f"evertoken-{os.getpid()}"
        third = os.getpid() % 250
        self.links = [f"ev{os.getpid()}x{index}" for index in range(HOSTS)]
        self.addresses = [f"198.18.{third}.{4 * index + 2}" for index in range(HOSTS)]
        run("ip", "netns", "add", self.name)
        for index, link in enumerate(self.links):
            inner = f"{link}i"
            run("ip", "link", "add", link, "type", "veth", "peer", "name", inner, "netns", self.name)
            run("ip", "addr", "add", f"198.18.{third}.{4 * index + 1}/30", "dev", link)
            run("ip", "link", "set", link, "up")
            self.inside("ip", "addr", "add", f"{self.addresses[index]}/30", "dev", inner)
            self.inside("ip", "link", "set", inner, "up")

    def inside(self, *words):
        run(*self.prefix(), *words)

    def prefix(self):
        return ["ip", "netns", "exec", self.name]

    def cut(self, index, is_cut):
        # The engine's end goes down, so that nothing is routed elsewhere.
        self.inside("ip", "link", "set", f"{self.links[index]}i", "down" if is_cut else "up")

    def close(self):
        subprocess.run(["ip", "netns", "del", self.name], check=False)
        for link in self.links:
            subprocess.run(["ip", "link", "del", link], check=False, stderr=subprocess.DEVNULL)


class Engine:
    """The server: in the namespace where there is one, else on a socket."""

    def __init__(self, folder, network):
        self.folder, self.network = folder, network
        self.program = shutil.which("valkey-server") or shutil.which("redis-server")
        self.cli = shutil.which("valkey-cli") or shutil.which("redis-cli")
        self.socket = folder / "engine.sock"
        self.start()

    def start(self):
        words = [self.program, "--save", "", "--appendonly", "no", "--unixsocket", str(self.socket)]
        # A port of the namespace is nobody else's; outside there is none.
        words += ["--port", "6379", "--protected-mode", "no"] if self.network else ["--port", "0"]
        prefix = self.network.prefix() if self.network else []
        self.process = subprocess.Popen([*prefix, *words], cwd=self.folder, stdout=subprocess.DEVNULL)
        until("an answer of the engine", lambda: self.ask("PING") == "PONG")

    def urls(self):
        if self.network:
            return [f"redis://{address}:6379/0" for address in self.network.addresses]
        return [f"unix://{self.socket}"] * HOSTS

    def ask(self, *words):
        done = subprocess.run(
            [self.cli, "-s", str(self.socket), *words], capture_output=True, text=True, check=False, timeout=10
        )
        return done.stdout.strip()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def signal(self, which):
        self.process.send_signal(which)


class Host:
    """One instance with its own state folder, on the same address after each start."""

    def __init__(self, folder, env):
        self.folder, self.env, self.address = folder, env, "127.0.0.1:0"
        self.stopped = False
        self.start()

    def start(self):
        # The log of the last run is kept.
        (self.folder / "log").touch()
        with open(self.folder / "log.all", "a") as kept:
            kept.write((self.folder / "log").read_text())
        self.proxy = drive.Evertoken(self.folder, self.env, "--listen", self.address)
        self.url = self.proxy.url()
        self.address = self.url.removeprefix("http://")

    def kill(self):
        self.proxy.kill()

    def signal(self, which):
        self.proxy.process.send_signal(which)

    def provider(self):
        with urllib.request.urlopen(f"{self.url}/-/status", timeout=PATIENCE_SECONDS) as answer:
            return json.load(answer)["providers"][0]

    def token(self):
        return (self.provider()["token"] or {}).get("obtained_at")

    def log(self):
        return (self.folder / "log.all").read_text() + "\n".join(self.proxy.lines())


class HAProxy:
    """HAProxy with the configuration of contrib/, on a free port."""

    def __init__(self, folder, hosts):
        listening = free_socket()
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        text = (drive.ROOT / "contrib/haproxy.cfg").read_text()
        lines = [line for line in text.splitlines() if not line.strip().startswith("server ")]
        lines += [f"    server host{index} {host.address}" for index, host in enumerate(hosts)]
        text = "\n".join(lines).replace("bind 127.0.0.1:8080", f"bind fd@{listening.fileno()}")
        (folder / "haproxy.cfg").write_text(text + "\n")
        self.process = subprocess.Popen(
            ["haproxy", "-db", "-f", str(folder / "haproxy.cfg")], pass_fds=[listening.fileno()],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        listening.close()

    def close(self):
        self.process.kill()
        self.process.wait()


class Clients:
    """SDK clients that stream one after the other, each over a new choice of HAProxy, without retrying."""

    def __init__(self, urls):
        self.urls, self.lock, self.seen = urls, threading.Lock(), collections.Counter()
        self.running = True
        self.threads = [threading.Thread(target=self.converse, args=(index,)) for index in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def converse(self, index):
        url = self.urls[index % len(self.urls)]
        claude = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, timeout=30)
        gpt = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0, timeout=30)
        while self.running:
            what = outcome(claude, gpt, index)
            with self.lock:
                self.seen[what] += 1
            if what != "complete":
                time.sleep(0.05)

    def take(self):
        with self.lock:
            seen, self.seen = self.seen, collections.Counter()
        return seen

    def close(self):
        self.running = False
        for thread in self.threads:
            thread.join()


def outcome(claude, gpt, index):
    """One stream; what the client saw."""
    text = f"hello from client {index} with a few more words to stream"
    messages = [{"role": "user", "content": text}]
    said = ""
    try:
        if index % 2:
            with claude.messages.stream(model="m", max_tokens=64, messages=messages) as stream:
                for piece in stream.text_stream:
                    said += piece
        else:
            for chunk in gpt.chat.completions.create(model="m", messages=messages, stream=True):
                said += chunk.choices[0].delta.content or ""
    except (anthropic.APIStatusError, openai.APIStatusError) as error:
        return f"status {error.status_code}"
    except Exception as error:  # the SDKs leave what happens in a stream to their HTTP library
        return "cut stream" if said else f"cut before its first word ({type(error).__name__})"
    return "complete" if said == f"You said: {text}" else "WRONG"


class World:
    """All of it together."""

    def __init__(self, folder):
        self.folder, self.hosts, self.engine, self.haproxy, self.issuer = folder, [], None, None, None
        self.network = Network() if os.geteuid() == 0 else None

    def start(self):
        folder = self.folder
        self.issuer = drive.Issuer(LIFETIME_SECONDS, SLACK_SECONDS)
        engine_folder = folder / "engine"
        engine_folder.mkdir()
        self.engine = Engine(engine_folder, self.network)
        self.env = env = drive.variables(TOKEN_A=self.issuer.login(), TEST_STORE_KEY="k" * 32, RUST_LOG="evertoken=info")
        for index, store in enumerate(self.engine.urls()):
            own = folder / f"host{index}"
            own.mkdir()
            provider = drive.PROVIDER.format(name="A", kind="anthropic", url=self.issuer.url, variable="TOKEN_A")
            (own / "providers.yaml").write_text(SETTINGS.format(folder=own, store=store) + provider)
            self.hosts.append(Host(own, env))
        self.haproxy = HAProxy(folder, self.hosts)

    def close(self):
        for host in self.hosts:
            host.signal(signal.SIGCONT)
            host.kill()
        if self.engine:
            self.engine.signal(signal.SIGCONT)
            self.engine.kill()
        for one in (self.haproxy, self.network):
            if one:
                one.close()
        if self.issuer:
            self.issuer.__exit__()

    def settled(self):
        """Whether all hosts have the same token, and it is a new one for each look."""
        tokens = {host.token() for host in self.hosts}
        return tokens.pop() if len(tokens) == 1 and None not in tokens else None

    def settle(self, before=None, moments=()):
        """Waits until all hosts have the same token, and then the next. A chain that broke is begun anew, if
        what was done explains it: since `before` something was killed, stopped or cut at one of `moments`,
        while the issuer's answer was on its way."""
        broke = lambda: before and self.issuer.stats()["failed"] > before["failed"]
        first = until("one token on all hosts", lambda: broke() or self.settled())
        if not broke():
            until("the next token on all hosts", lambda: broke() or self.settled() not in (None, first))
        if broke():
            assert self.explain(moments), "a refresh token was used twice"
            print("(an answer was on its way just then: the chain had to be begun anew)")
            self.env["TOKEN_A"] = self.issuer.login()
            for host in self.hosts:
                host.kill()
            for host in self.hosts:
                host.start()
            until("one token on all hosts", self.settled)
        until("HAProxy to have all hosts", lambda: outcome_is_complete(self.haproxy.url))

    def watch(self, seconds):
        """When each token was first seen on each host: {token: [seconds]}."""
        seen = collections.defaultdict(dict)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for index, host in enumerate(self.hosts):
                token = host.token()
                seen[token].setdefault(index, time.monotonic())
            time.sleep(0.02)
        return seen

    def explain(self, moments):
        """Whether the issuer's last answer was on its way when something was killed, stopped or cut."""
        last = self.issuer.stats()["lastRotation"]
        return any(-STORED_WITHIN_MS < moment - last < STORED_WITHIN_MS for moment in moments)


def outcome_is_complete(url):
    claude = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, timeout=30)
    return outcome(claude, None, 1) == "complete"


def check_quiet(world, seconds=12):
    """Nothing happens: one refresh a lifetime, by whoever, and each token on all hosts at once."""
    until("a token on every host", world.settled)
    before = world.issuer.stats()
    clients = Clients([host.url for host in world.hosts])
    begun = time.monotonic()
    seen = world.watch(seconds)
    lasted = time.monotonic() - begun
    clients.close()
    after = world.issuer.stats()
    refreshes = after["rotations"] - before["rotations"]
    # The first is from before, and the last may still be on its way.
    whole = list(seen.values())[1:-1]
    spreads = [max(times.values()) - min(times.values()) for times in whole]
    print(
        f"quiet: {lasted:.0f} s, {HOSTS} hosts, {refreshes} refreshes, {len(seen)} tokens seen; on all hosts after "
        f"{statistics.median(spreads) * 1000:.0f} ms (median), {max(spreads) * 1000:.0f} ms (most); {dict(clients.seen)}"
    )
    assert set(clients.seen) == {"complete"}, clients.seen
    assert all(len(times) == HOSTS for times in whole), "each token reaches all hosts before the next"
    assert lasted / LIFETIME_SECONDS <= refreshes <= lasted / REFRESHED_AFTER_MIN_SECONDS + 1
    assert abs(refreshes - (len(seen) - 1)) <= 1, "each refresh brings a token that all use"
    assert statistics.median(spreads) < 1
    assert after["failed"] == 0 and after["refused"] == 0 and after["late"] == 0, after


def check_stored(world):
    """What is in the engine holds no token, and lasts."""
    keys = world.engine.ask("KEYS", "*").split()
    assert set(keys) <= {f"{PREFIX}token:a", f"{PREFIX}lease:a"}, keys
    record = world.engine.ask("HGET", f"{PREFIX}token:a", "record")
    assert record.startswith("sealed:1:") and "token" not in record, record[:20]
    assert int(world.engine.ask("TTL", f"{PREFIX}token:a")) > 80 * 24 * 3600
    print(f"stored: {', '.join(sorted(keys))}; the record is sealed")


def kill_host(world, which, rng, moments):
    host = world.hosts[which]
    moments.append(time.time() * 1000)
    host.kill()
    time.sleep(rng.uniform(0.5, 2.0))
    host.start()


def end_host(world, which, rng, moments):
    host = world.hosts[which]
    host.proxy.stop()
    time.sleep(rng.uniform(0.2, 1.0))
    host.start()


def stop_host(world, which, rng, moments):
    host = world.hosts[which]
    moments.append(time.time() * 1000)
    host.signal(signal.SIGSTOP)
    time.sleep(rng.uniform(0.3, 1.5))
    host.signal(signal.SIGCONT)


def kill_engine(world, which, rng, moments):
    world.engine.kill()
    time.sleep(rng.uniform(0.2, 1.0))
    world.engine.start()


def stop_engine(world, which, rng, moments):
    world.engine.signal(signal.SIGSTOP)
    time.sleep(rng.uniform(0.3, 1.5))
    world.engine.signal(signal.SIGCONT)


def cut_one(world, which, rng, moments):
    if world.network:
        moments.append(time.time() * 1000)
        world.network.cut(which, True)
        time.sleep(rng.uniform(0.5, 2.0))
        world.network.cut(which, False)


def cut_all(world, which, rng, moments):
    if world.network:
        moments.append(time.time() * 1000)
        for index in range(HOSTS):
            world.network.cut(index, True)
        time.sleep(rng.uniform(0.3, 1.5))
        for index in range(HOSTS):
            world.network.cut(index, False)


def engine_gone_for_long(world, which, rng, moments):
    world.engine.kill()
    time.sleep(LONGER_LIFETIME_SECONDS + 1)
    world.engine.start()


# What is done, what it is called in the table, and whether clients may see anything of it at all.
FAULTS = [
    (kill_host, "one host killed (SIGKILL), back after 1 s", "its streams"),
    (end_host, "one host stopped in order (SIGTERM), back after 1 s", "one handed over"),
    (stop_host, "one host halted (SIGSTOP) for up to 1.5 s", "nothing"),
    (kill_engine, "the engine killed, back empty within 1 s", "nothing"),
    (stop_engine, "the engine halted for up to 1.5 s", "nothing"),
    (cut_one, "one host cut off from the engine for up to 2 s", "nothing"),
    (cut_all, "all hosts cut off from the engine for up to 1.5 s", "nothing"),
    (engine_gone_for_long, "the engine gone for longer than a token lives", "503"),
]


def check_faults(world, rng):
    """One fault after the other, with clients behind HAProxy: what they see of it, as a table."""
    drive.get(f"{world.issuer.url}/control/lifetime?is={LONGER_LIFETIME_SECONDS}")
    clients = Clients([world.haproxy.url])
    moments = []
    print("| what | streams | cut | other errors | refreshes | tokens refused |")
    print("| --- | --- | --- | --- | --- | --- |")
    try:
        for fault, name, allowed in FAULTS:
            if fault in (cut_one, cut_all) and not world.network:
                continue
            world.settle()
            before = world.issuer.stats()
            clients.take()
            moments.clear()
            fault(world, rng.randrange(HOSTS), rng, moments)
            world.settle(before, moments)
            seen, after = clients.take(), world.issuer.stats()
            report_fault(name, seen, before, after)
            judge_fault(name, allowed, seen, before, after)
    finally:
        clients.close()
        drive.get(f"{world.issuer.url}/control/lifetime?is={LIFETIME_SECONDS}")


def report_fault(name, seen, before, after):
    cut = sum(count for what, count in seen.items() if what.startswith("cut"))
    other = {what: count for what, count in seen.items() if what != "complete" and not what.startswith("cut")}
    told = ", ".join(f"{count} × {what}" for what, count in sorted(other.items())) or "none"
    grew = {key: after[key] - before[key] for key in ("rotations", "refused")}
    print(f"| {name} | {sum(seen.values())} | {cut} | {told} | {grew['rotations']} | {grew['refused']} |", flush=True)


def judge_fault(name, allowed, seen, before, after):
    errors = {what: count for what, count in seen.items() if what != "complete"}
    assert "WRONG" not in seen, (name, seen)
    if after["failed"] > before["failed"]:
        # The chain had to be begun anew, and its tokens were revoked.
        return
    assert "status 401" not in seen, (name, seen)
    assert after["refused"] == before["refused"], (name, "a token was sent that is not good")
    if allowed == "nothing":
        assert not errors, (name, errors)
    elif allowed == "one handed over":
        # HAProxy may hand a request over in the very moment in which the listening socket is closed.
        assert sum(errors.values()) <= 1 and "cut stream" not in errors, (name, errors)
    elif allowed == "its streams":
        # Each client has one request under way; HAProxy says 502 where nothing of the answer had come yet.
        assert sum(errors.values()) <= CLIENTS, (name, errors)
        assert all(what.startswith("cut") or what == "status 502" for what in errors), (name, errors)
    else:
        assert all(what.startswith(("status 503", "cut")) for what in errors), (name, errors)


def check_random(world, rng, rounds):
    """Several faults at once, at random; afterwards the chain is whole and all have its newest token."""
    clients = Clients([world.haproxy.url])
    moments, done = [], collections.Counter()
    short = [fault for fault, _, _ in FAULTS if fault is not engine_gone_for_long]
    before = begun = world.issuer.stats()
    try:
        for _ in range(rounds):
            which = rng.sample(range(HOSTS), 2)
            kinds = rng.sample(short, 2)
            # The engine can be killed and halted, but not both at once.
            if kill_engine in kinds and stop_engine in kinds:
                kinds[0] = stop_host
            threads = [
                threading.Thread(target=kind, args=(world, index, random.Random(rng.random()), moments))
                for kind, index in zip(kinds, which)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            done.update(kind.__name__ for kind in kinds)
            # Each round ends with a whole chain, so that what broke one can be told.
            world.settle(begun, moments)
            begun = world.issuer.stats()
            moments.clear()
    finally:
        clients.close()
    after = world.issuer.stats()
    print(f"random: {rounds} rounds with seed {SEED}, {dict(done)}; clients: {dict(clients.seen)}; issuer: {after}")
    assert "WRONG" not in clients.seen, clients.seen
    if after["failed"] == before["failed"]:
        assert "status 401" not in clients.seen, clients.seen
        assert after["refused"] == before["refused"], "a token was sent that is not good"


def check_cooldown(world):
    """A rate limit that one host met keeps the others from the account too."""
    world.issuer.mode("429", after=60)
    claude = anthropic.Anthropic(base_url=world.hosts[0].url, api_key="none", max_retries=0)
    with contextlib.suppress(anthropic.RateLimitError):
        claude.messages.create(model="m", max_tokens=8, messages=[{"role": "user", "content": "x"}])
    resting = lambda: [host for host in world.hosts if host.provider()["cooldown_until"]]
    until("the cooldown on all hosts", lambda: len(resting()) == HOSTS)
    world.hosts[1].kill()
    world.hosts[1].start()
    until("the cooldown after a restart", lambda: len(resting()) == HOSTS)
    world.issuer.mode("fine")
    print("cooldown: one host was told to wait, all rest")


def main():
    rng = random.Random(SEED)
    checks = (
        check_quiet,
        check_stored,
        lambda world: check_faults(world, rng),
        lambda world: check_random(world, rng, ROUNDS),
        check_cooldown,
    )
    with tempfile.TemporaryDirectory() as folder:
        world = World(pathlib.Path(folder))
        try:
            world.start()
            for check in checks:
                check(world)
        except BaseException:
            for host in world.hosts:
                print(f"--- {host.folder.name}\n" + "\n".join(host.log().splitlines()[-40:]), file=sys.stderr)
            raise
        finally:
            world.close()
    print(f"test-hosts: ok. {len(checks)} passed; 0 failed")


if __name__ == "__main__":
    sys.exit(main())
