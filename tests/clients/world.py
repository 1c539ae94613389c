"""What hosts.py plays with: five instances of the built binary, each with its own link to a real redis-server
or valkey-server, HAProxy in front, SDK clients, and an issuer that revokes a chain whose refresh token is
used twice. Each part says what state it is in, so that what clients saw is explained by that.
"""

import collections
import datetime
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.request

import anthropic
import openai

import drive

HOSTS = 5
CLIENTS = 8
LIFETIME_SECONDS = 4
PATIENCE_SECONDS = 60

LOST = "the answer to the last refresh was probably lost"
UNSTORED = "can't be written to the token store"
AWAY = "The token store"
SETTINGS = """
settings:
  port: 0
  state_dir: "{folder}/state"
  failure_cooldown: 1
  shutdown_grace: 5
  token_store: "{store}"
  token_store_key_env: TEST_STORE_KEY
  auth:
    enabled: true
    keys:
      - {{ name: all, key_env: ALL_KEY }}
      - {{ name: daily, key_env: DAILY_KEY, tokens_per_day: {daily} }}
providers:
"""
# What the clients send as their API key, and a key for so many tokens a day.
ALL_KEY, DAILY_KEY, DAILY_TOKENS = "none", "daily", 400
# Says to the provider which host it is; to the issuer all are one client.
NAMED = """    headers: {{ x-host: {name} }}
"""


def run(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def until(what, holds, seconds=PATIENCE_SECONDS):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = holds()
        if found:
            return found
        time.sleep(0.02)
    raise SystemExit(f"waited in vain for: {what}")


def now_ms():
    return time.time() * 1000


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

    def cut(self, hosts, is_cut):
        # The engine's end goes down, so that nothing is routed elsewhere.
        for host in hosts:
            self.inside("ip", "link", "set", f"{self.links[host.index]}i", "down" if is_cut else "up")

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

    def __init__(self, index, folder, env):
        self.index, self.folder, self.env, self.address = index, folder, env, "127.0.0.1:0"
        self.name = f"host{index}"
        # What was done to it in the middle of a refresh since `mark`: its log ended in one then.
        self.in_refresh, self.marked = None, 0
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
        self.proxy.process.kill()
        self.proxy.process.wait()
        if self.proxy.is_refreshing():
            self.in_refresh = "killed"
        self.proxy.kill()

    def halt(self):
        self.signal(signal.SIGSTOP)
        # Behind the name in brackets.
        state = lambda: open(f"/proc/{self.proxy.process.pid}/stat").read().rsplit(")", 1)[1].split()[0]
        until("the host to stand still", lambda: state() == "T")
        if self.proxy.is_refreshing():
            self.in_refresh = "halted"

    def go_on(self):
        self.signal(signal.SIGCONT)

    def signal(self, which):
        self.proxy.process.send_signal(which)

    def status(self):
        asked = urllib.request.Request(f"{self.url}/-/status", headers={"x-api-key": ALL_KEY})
        with urllib.request.urlopen(asked, timeout=PATIENCE_SECONDS) as answer:
            return json.load(answer)

    def provider(self):
        return self.status()["providers"][0]

    def token(self):
        return (self.provider()["token"] or {}).get("obtained_at")

    def log(self):
        return (self.folder / "log.all").read_text() + "\n".join(self.proxy.lines())

    def mark(self):
        """What is asked about from now on is what happens from now on."""
        self.in_refresh, self.marked = None, len(self.log())

    def said(self, text):
        return text in self.log()[self.marked :]


class HAProxy:
    """HAProxy with the configuration of contrib/, on a free port. Answers say which host they are from."""

    def __init__(self, folder, hosts):
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        text = (drive.ROOT / "contrib/haproxy.cfg").read_text()
        lines = [line for line in text.splitlines() if not line.strip().startswith("server ")]
        lines += ["    http-response set-header x-host %s"]
        lines += [f"    server {host.name} {host.address}" for host in hosts]
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


class Refusal:
    """An error that a client was answered with."""

    def __init__(self, begun, response):
        self.begun, self.ended, self.status = begun, now_ms(), response.status_code
        self.code = response.headers.get("x-evertoken-error")
        self.host, self.text = response.headers.get("x-host"), response.text
        at = re.search(r"the last one expired at (\d\S+Z)", self.text)
        self.expired = at and time_ms(at[1])

    def __repr__(self):
        return f"{self.status} {self.code} of {self.host}: {self.text}"


def time_ms(text):
    """From RFC 3339 to milliseconds since 1970."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000


class Clients:
    """SDK clients that stream one after the other, each over a new choice of HAProxy, without retrying."""

    def __init__(self, urls):
        self.urls, self.lock = urls, threading.Lock()
        self.seen, self.refusals = collections.Counter(), []
        self.running = True
        self.threads = [threading.Thread(target=self.converse, args=(index,)) for index in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def converse(self, index):
        url = self.urls[index % len(self.urls)]
        claude = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, timeout=30)
        gpt = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0, timeout=30)
        while self.running:
            what, refusal = outcome(claude, gpt, index)
            with self.lock:
                self.seen[what] += 1
                if refusal:
                    self.refusals.append(refusal)
            if what != "complete":
                time.sleep(0.05)

    def take(self):
        with self.lock:
            taken = self.seen, self.refusals
            self.seen, self.refusals = collections.Counter(), []
        return taken

    def close(self):
        self.running = False
        for thread in self.threads:
            thread.join()


def outcome(claude, gpt, index):
    """One stream: what the client saw, and the error it was answered with."""
    text = f"hello from client {index} with a few more words to stream"
    messages = [{"role": "user", "content": text}]
    said = ""
    begun = now_ms()
    headers = {"x-begun": str(begun)}
    try:
        if index % 2:
            with claude.messages.stream(model="m", max_tokens=64, messages=messages, extra_headers=headers) as stream:
                for piece in stream.text_stream:
                    said += piece
        else:
            for chunk in gpt.chat.completions.create(model="m", messages=messages, stream=True, extra_headers=headers):
                said += chunk.choices[0].delta.content or ""
    except (anthropic.APIStatusError, openai.APIStatusError) as error:
        error.response.read()
        return f"status {error.status_code}", Refusal(begun, error.response)
    except Exception as error:  # the SDKs leave what happens in a stream to their HTTP library
        return "cut stream" if said else f"cut before its first word ({type(error).__name__})", None
    return "complete" if said == f"You said: {text}" else "WRONG", None


class World:
    """All of it together."""

    def __init__(self, folder):
        self.folder, self.hosts, self.engine, self.haproxy, self.issuer = folder, [], None, None, None
        self.network = Network() if os.geteuid() == 0 else None
        # The chains that broke, and what had been done to the host whose answer was lost with them.
        self.lost = []

    def start(self):
        folder = self.folder
        self.issuer = drive.Issuer(LIFETIME_SECONDS, drive.SLACK_SECONDS)
        engine_folder = folder / "engine"
        engine_folder.mkdir()
        self.engine = Engine(engine_folder, self.network)
        self.env = env = drive.variables(
            TOKEN_A=self.issuer.login(), TEST_STORE_KEY="k" * 32, RUST_LOG="evertoken=info", ALL_KEY=ALL_KEY, DAILY_KEY=DAILY_KEY
        )
        for index, store in enumerate(self.engine.urls()):
            own = folder / f"host{index}"
            own.mkdir()
            provider = drive.PROVIDER.format(name="A", kind="anthropic", url=self.issuer.url, variable="TOKEN_A")
            named = provider.rstrip() + "\n" + NAMED.format(name=f"host{index}")
            (own / "providers.yaml").write_text(SETTINGS.format(folder=own, store=store, daily=DAILY_TOKENS) + named)
            self.hosts.append(Host(index, own, env))
        self.haproxy = HAProxy(folder, self.hosts)

    def close(self):
        for host in self.hosts:
            host.go_on()
            host.kill()
        if self.engine:
            self.engine.signal(signal.SIGCONT)
            self.engine.kill()
        for one in (self.haproxy, self.network):
            if one:
                one.close()
        if self.issuer:
            self.issuer.__exit__()

    def hold(self, where):
        """Has the next token request stop `before` the issuer looks at it, or `after`, with its answer unsent:
        whose it is."""
        drive.get(f"{self.issuer.url}/control/hold?is={where}")
        held = lambda: drive.get(f"{self.issuer.url}/control/held")["held"]
        until("a token request", held)
        # A thread of its own writes the log, which may say so a moment later.
        refreshing = lambda: [host for host in self.hosts if host.proxy.is_refreshing()]
        # Under the lease there is one.
        (host,) = until("the log to say whose it is", refreshing)
        return host

    def release(self, how):
        drive.get(f"{self.issuer.url}/control/release?as={how}")

    def settled(self):
        """The token, where all hosts have the same."""
        tokens = {host.token() for host in self.hosts}
        return tokens.pop() if len(tokens) == 1 and None not in tokens else None

    def mark(self):
        """What is explained later is what happens from now on; the issuer's counts now."""
        for host in self.hosts:
            host.mark()
        self.lost = []
        return self.issuer.stats()

    def settle(self, before=None):
        """Waits until all hosts have the same token, and then the next. A chain that broke since `before` is
        explained, or this fails; it is begun anew."""
        broke = lambda: before and self.issuer.stats()["failed"] > before["failed"]
        first = until("one token on all hosts", lambda: broke() or self.settled())
        if not broke():
            until("the next token on all hosts", lambda: broke() or self.settled() not in (None, first))
        if broke():
            self.explain_break(before)
            self.begin_anew()
        until("HAProxy to have all hosts", self.serves)

    def explain_break(self, before):
        """A refresh token was used twice. A host must have been killed, halted or cut off in the middle of its
        refresh, so that nobody could know its answer; who used the token again knew that much, and said so."""
        reuses = self.issuer.stats()["reuses"] - before["reuses"]
        how = {host.name: host.in_refresh or (host.said(UNSTORED) and "cut off") for host in self.hosts}
        how = {name: what for name, what in how.items() if what}
        assert reuses and how, f"a refresh token was used twice, and no host was disturbed in a refresh ({reuses})"
        until("a host to say that the answer was lost", lambda: any(host.said(LOST) for host in self.hosts))
        self.lost.extend(how.values())
        print(f"(a chain was lost, with the issuer's answer on its way: {how})")

    def begin_anew(self):
        self.env["TOKEN_A"] = self.issuer.login()
        for host in self.hosts:
            host.proxy.kill()
        for host in self.hosts:
            host.start()
        until("one token on all hosts", self.settled)

    def serves(self):
        claude = anthropic.Anthropic(base_url=self.haproxy.url, api_key="none", max_retries=0, timeout=30)
        return outcome(claude, None, 1)[0] == "complete"

    def watch(self, seconds):
        """When each token was first seen on each host: {token: {host: seconds}}."""
        seen = collections.defaultdict(dict)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for host in self.hosts:
                seen[host.token()].setdefault(host.index, time.monotonic())
            time.sleep(0.02)
        return seen

    def explain_refusal(self, refusal, store_was_away):
        """Why a client was refused: in words, or this fails. A host says when its last token expired; that must
        be the newest that it is known to have sent, or a newer one, and it must have expired by then."""
        if refusal.code is None:
            assert "No server is available" in refusal.text, refusal
            assert store_was_away or self.lost, ("no host was ready, for no reason", refusal)
            return "no host was ready"
        assert refusal.code == "token_unavailable" or refusal.code == "login_needed" and self.lost, refusal
        assert refusal.host, refusal
        uses = drive.get(f"{self.issuer.url}/control/uses")
        sent = [use for use in uses if use["host"] == refusal.host and use["first"] < refusal.begun]
        newest = max(sent, key=lambda use: use["expires"], default=None)
        if newest and not self.lost:
            assert refusal.expired and newest["previous"] < refusal.expired <= refusal.ended, (refusal, newest)
        if AWAY in refusal.text:
            assert store_was_away, ("the store was there", refusal)
            return "token expired, store away"
        assert self.lost, ("a refresh did not come, for no reason", refusal)
        return "chain lost"
