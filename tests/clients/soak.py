"""An hour (or so many seconds as the first argument says) of what a long life brings: SDK traffic, refreshes
every few seconds at issuers of every kind that docs/token-refresh.md has a row for, random faults at issuers and
providers, and in the first half random kills and stops. There are two evertokens: one with a port and a unix socket of its own,
and one that speaks TLS, with a port and a unix socket that a service manager keeps for it (soak_doors.py has what else comes
to their addresses: WebSockets, new certificates, broken handshakes). At the end both rest, with tokens of hours. Ends with a report,
and fails where a client saw a 401, a chain was lost, a WebSocket lost a message or ended unasked, memory, descriptors or
threads grew or did not go with the clients, or rest cost processor time.

The issuers take a used refresh token for 30 s more, as many do: a kill may come while an answer is on its
way, and then nothing else can save the chain.
"""

import collections
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import typing
import urllib.request

import anthropic
import openai
import websockets.exceptions

import drive
from soak_doors import CLIENT_HEAD_SECONDS, HANDSHAKES, IDLE_SECONDS, Authority, Counts, Door, Echoes, Handshakes, Tunnels

SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 3600.0
SEED = int(os.environ.get("EVERTOKEN_SEED", "7"))
# SDK clients at each address.
THREADS = {"TCP": 8, "unix": 2, "TLS": 3, "unix, handed over": 1}
# WebSockets that are idle all the time, at each address.
IDLE_TUNNELS = 4
# The evertoken with TLS has so many of the kinds of issuers.
TLS_KINDS = 4
# Those of the WebSockets, which has another name than its kind.
TUNNELS_KIND, TUNNELS_NAME = "rfc6749", "websocket"
TYPES = ["anthropic", "openai"]
LIFETIME_SECONDS = 6
# Without an expires_in evertoken takes an hour for granted, so this one can't end every few seconds.
LIFETIMES = {"salesforce": 7200}
OVERLAP_SECONDS = 30
# A token that is no good: some providers say 403.
REFUSED = (
    anthropic.AuthenticationError, openai.AuthenticationError,
    anthropic.PermissionDeniedError, openai.PermissionDeniedError,
)
SAMPLES = 20
REST_SECONDS = max(10.0, min(60.0, SECONDS / 10))
# Of one processor, while nobody asks and no token ends.
REST_SHARE_MAX = 0.0005
# This one ends the old access token with each refresh: a request may meet that, and its client must not see it.
ENDS_OLD_TOKENS = {"github"}
# The same may happen where there is no other token before the end of the one there is.
OVERTAKEN = ENDS_OLD_TOKENS | {"repeating"}
# Where refreshes fail up to a token's end, it is used to its end: a request that is on its way then arrives too late.
LATE_SHARE_MAX = 0.001
RSS_GROWTH_MAX_KB = 2048
# What grows is to be memory in use. glibc keeps up to seven freed pieces of each size for each thread, which take hours to
# come together: with 114 threads 1.8 MB after a minute and 2.6 MB after four.
ALLOCATOR = {"MALLOC_ARENA_MAX": "2", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
DESCRIPTOR_GROWTH_MAX = 16
THREAD_GROWTH_MAX = 16
# What a run may leave behind once all clients are gone, beyond what an evertoken has that has just started: connections to providers,
# which are kept until another request looks at them; and the time for the rest to go.
DESCRIPTORS_LEFT_MAX = 100
THREADS_LEFT_MAX = 2
LEAVE_SECONDS = 30
# Without these, the run shows nothing.
EXPECTED = [
    "messages", "tunnels ended by a stop with 1001", "tunnels cut by a kill", "tunnels ended for their silence with 1001",
    "idle tunnels that passed a message at the end", "certificates replaced", *(f"handshakes: {kind}" for kind in HANDSHAKES),
]
# So many pairs of a certificate and its key during a run.
CERTIFICATES = 8

# Each is at the issuer or the provider; what a client may see of the latter is an error the SDK repeats,
# or a stream that was cut.
FAULTS = [
    {"at": "token", "status": 500},
    {"at": "token", "status": 429, "headers": {"Retry-After": "1"}},
    {"at": "token", "status": 400, "body": '{"error":"temporarily_unavailable"}'},
    {"at": "token", "stall_ms": 1000},
    {"at": "provider", "status": 500},
    {"at": "provider", "status": 529},
    {"at": "provider", "status": 429, "headers": {"Retry-After": "1"}},
    {"at": "provider", "stop_after_events": 2},
    {"at": "provider", "stall_ms": 700},
    {"at": "provider", "stall_in_stream_ms": 700},
]
# The issuer has done its work then. Where that ended the old access token, nobody could be served until the next try.
LOST_ANSWERS = [
    {"at": "token", "status": 502, "after_processing": True},
    {"at": "token", "status": 200, "body": "<html>", "after_processing": True},
]
# What the kinds themselves answer, by its name in sandbox/manners.
OWN_ANSWERS = ["server_error", "pages"]


def rows():
    """What docs/token-refresh.md says: kind, lines of auto_refresh_config, lines of the provider."""
    found = []
    for line in (drive.ROOT / "docs/token-refresh.md").read_text().splitlines():
        cells = [cell.split("`")[1::2] for cell in line.split("|")]
        if len(cells) == 8 and len(cells[6]) == 1 and (drive.ROOT / f"sandbox/manners/{cells[6][0]}.yaml").exists():
            found.append((cells[6][0], cells[2], cells[3]))
    assert len(found) > 10, "the table of issuers was not found"
    return found


class Sandbox:
    """Issuer and provider of one kind as a child process."""

    def __init__(self, kind, *arguments, name=None):
        command = [drive.ROOT / "target/release/sandbox", "serve", "--manner", kind, "--event-delay", "15", *arguments]
        self.kind = name or kind
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        said = {}
        while len(said) < 4:
            key, value = self.process.stderr.readline().strip().replace("listening on ", "url=").split("=", 1)
            said[key] = value
        self.url, self.secret, self.id = said["url"], said["client_secret"], said["client_id"]

    def post(self, path, value):
        body = json.dumps(value).encode()
        with urllib.request.urlopen(urllib.request.Request(self.url + path, body), timeout=10) as answer:
            return json.load(answer)

    def break_something(self, rng):
        lost = [] if self.kind in ENDS_OLD_TOKENS else LOST_ANSWERS
        # Nobody asks that of the WebSockets for messages.
        faults = [one for one in FAULTS if self.kind != TUNNELS_NAME or one["at"] == "token"]
        fault = rng.choice(faults + lost + OWN_ANSWERS)
        if fault in OWN_ANSWERS:
            self.post("/control/answer", {"name": fault})
        else:
            self.post("/control/faults", [fault])

    def close(self):
        self.process.kill()
        self.process.wait()


def describe(folder, sandboxes, tunnels, listen, tunnels_url, idle, more=""):
    """Writes providers.yaml, with what the docs say for each kind, and the WebSockets'; the variables that go with it."""
    timeouts = f"{{idle: {idle}, client_head: {CLIENT_HEAD_SECONDS}}}"
    text = f'settings: {{state_dir: "{folder}/state", timeouts: {timeouts}, shutdown_grace: 2, listen: {json.dumps(listen)}{more}}}\nproviders:\n'
    env = drive.variables()
    for index, ((kind, refresh, provider), sandbox) in enumerate(zip(rows(), sandboxes)):
        name = kind.upper()
        text += f'  - name: "{kind}"\n    type: {TYPES[index % 2]}\n    base_url: "{sandbox.url}"\n'
        text += "".join(f"    {line}\n" for line in provider)
        text += f"    auto_refresh_config:\n      client_id_env: {name}_ID\n      refresh_token_env: {name}_TOKEN\n"
        if 'client_auth: "none"' not in refresh:
            text += f"      client_secret_env: {name}_SECRET\n"
        for line in refresh:
            line = f'token_url: "{sandbox.url}/oauth/token"' if line.startswith("token_url:") else line
            text += f"      {line}\n"
        env |= log_in(sandbox, name)
    text += f'  - name: {TUNNELS_NAME}\n    type: openai\n    base_url: "{tunnels_url}"\n'
    if tunnels_url.startswith("https:"):
        text += f'    ca_file: "{folder}/ca.pem"\n'
    text += f'    auto_refresh_config:\n      token_url: "{tunnels.url}/oauth/token"\n      client_id_env: TUNNELS_ID\n'
    text += "      client_secret_env: TUNNELS_SECRET\n      refresh_token_env: TUNNELS_TOKEN\n"
    (folder / "providers.yaml").write_text(text)
    return env | log_in(tunnels, "TUNNELS") | ALLOCATOR | {"RUST_LOG": "evertoken=warn,evertoken::app=info"}


def log_in(sandbox, name):
    token = sandbox.post("/control/login", {})["refresh_token"]
    return {f"{name}_ID": sandbox.id, f"{name}_SECRET": sandbox.secret, f"{name}_TOKEN": token}


class Tally:
    """What the clients saw."""

    def __init__(self):
        self.lock = threading.Lock()
        self.seen, self.complete = collections.Counter(), collections.Counter()
        self.told = []

    def add(self, door, what, told=None):
        with self.lock:
            self.seen[what] += 1
            if what == "complete":
                self.complete[door.name] += 1
            if told:
                self.told.append(f"{time.strftime('%H:%M:%S', time.gmtime())} {told}")


def converse(door, kinds, index, running, tally):
    with door.http_client() as client:
        converse_with(client, door, kinds, index, running, tally)


def converse_with(client, door, kinds, index, running, tally):
    rng = random.Random(SEED * 1000 + index)
    options = {"api_key": "none", "max_retries": 6, "timeout": 30, "http_client": client}
    to = [f"{door.url}/to/{kind}" for kind in kinds]
    of_claude = [anthropic.Anthropic(base_url=one, **options) for one in to[0::2]]
    of_gpt = [openai.OpenAI(base_url=f"{one}/v1", **options) for one in to[1::2]]
    while running.is_set():
        claude, gpt = rng.choice(of_claude), rng.choice(of_gpt)
        words = " ".join(str(rng.random()) for _ in range(rng.randint(1, 8)))
        messages = [{"role": "user", "content": words}]
        kind = rng.randrange(5)
        try:
            if kind == 0:
                said = claude.messages.create(model="m", max_tokens=8, messages=messages).content[0].text
            elif kind == 1:
                said = gpt.chat.completions.create(model="m", messages=messages).choices[0].message.content
            elif kind == 2:
                with claude.messages.stream(model="m", max_tokens=8, messages=messages) as stream:
                    said = "".join(stream.text_stream)
            elif kind == 3:
                pieces = gpt.chat.completions.create(model="m", messages=messages, stream=True)
                said = "".join(piece.choices[0].delta.content or "" for piece in pieces)
            else:
                # A client that leaves in the middle.
                with claude.messages.stream(model="m", max_tokens=8, messages=messages) as stream:
                    next(iter(stream.text_stream), "")
                tally.add(door, "left in the middle")
                continue
            tally.add(door, "complete" if said == f"You said: {words}" else "WRONG")
        except REFUSED as error:
            tally.add(door, "401", f"{error.status_code} from {error.request.url}: {error.body}")
        except (anthropic.APIStatusError, openai.APIStatusError) as error:
            tally.add(door, f"status {error.status_code} after all retries")
        except (anthropic.APIConnectionError, openai.APIConnectionError) as error:
            tally.add(door, f"no connection, or cut: {type(error.__cause__).__name__}")
        except Exception as error:
            # A cut stream ends in an error of the HTTP library.
            tally.add(door, f"cut: {type(error).__name__}")


class Sample(typing.NamedTuple):
    """What a process takes: the least of some looks, because what is under way passes."""

    kib: int
    descriptors: int
    threads: int


def sample(process):
    looks = []
    for _ in range(SAMPLES):
        status = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines())
        descriptors = len(os.listdir(f"/proc/{process.pid}/fd"))
        looks.append((int(status["VmRSS"].split()[0]), descriptors, int(status["Threads"])))
        time.sleep(0.25)
    return Sample(*map(min, zip(*looks)))


class Handed(drive.Evertoken):
    """evertoken with two sockets of a service manager."""

    def __init__(self, folder, variables, first, second):
        self.log = open(folder / "log", "w+")
        script = f"exec 3<&0 4>&1 </dev/null >/dev/null; export LISTEN_PID=$$ LISTEN_FDS=2; exec {drive.BINARY} run"
        self.process = subprocess.Popen(
            ["sh", "-c", script], cwd=folder, env=variables, stdin=first, stdout=second, stderr=self.log
        )


class Host:
    """An evertoken that is killed and stopped, and starts again at the same addresses."""

    def __init__(self, name, folder, rng):
        self.name, self.folder, self.rng = name, folder, rng
        folder.mkdir()
        # The ends that have begun, and those after which it runs again.
        self.kills, self.stops, self.over, self.lost = 0, 0, (0, 0), []
        # Held by a new start, and by who changes files that it reads.
        self.starting = threading.Lock()
        self.first, self.last, self.peak_kib, self.left = None, None, 0, None
        self.next_end = time.monotonic() + rng.uniform(5, 40)

    def start(self):
        self.proxy = self.make()
        return self.proxy.url()

    def end(self):
        """A kill and a stop in turn, and a new start."""
        if self.kills <= self.stops:
            self.kills += 1
            self.proxy.kill()
        else:
            self.stops += 1
            self.proxy.stop()
        self.lost += find_lost(self.folder)
        with self.starting:
            self.start()
        self.over = self.kills, self.stops
        self.next_end = time.monotonic() + self.rng.uniform(5, 40)

    def wait_for_rest(self, fresh):
        """Waits until it has given up what its clients needed, as far as a fresh one has not."""
        deadline = time.monotonic() + LEAVE_SECONDS
        while True:
            self.left = sample(self.proxy.process)
            if self.has_rest(fresh) or time.monotonic() > deadline:
                return

    def has_rest(self, fresh):
        few = self.left.descriptors <= fresh.descriptors + DESCRIPTORS_LEFT_MAX
        return few and self.left.threads <= fresh.threads + THREADS_LEFT_MAX

    def close(self):
        self.stops += 1
        self.proxy.stop()
        self.lost += find_lost(self.folder)


class PlainHost(Host):
    """With a port and a unix socket that it binds itself."""

    def __init__(self, folder, rng, idle, sandboxes, tunnels, echoes):
        super().__init__("plain", folder, rng)
        self.kinds = [kind for kind, _, _ in rows()]
        path = folder / "socket"
        self.env = describe(folder, sandboxes, tunnels, ["127.0.0.1:0", f"unix:{path}"], f"http://127.0.0.1:{echoes.plain}", idle)
        self.make = lambda: drive.Evertoken(folder, self.env)
        url = self.start()
        file = folder / "providers.yaml"
        file.write_text(file.read_text().replace("127.0.0.1:0", url.removeprefix("http://")))
        self.doors = [Door("TCP", url), Door("unix", "http://localhost", path)]


class TlsHost(Host):
    """With TLS, at sockets that are handed over."""

    def __init__(self, folder, rng, idle, sandboxes, tunnels, echoes, authority):
        super().__init__("TLS", folder, rng)
        self.kinds = [kind for kind, _, _ in rows()][:TLS_KINDS]
        (folder / "ca.pem").write_bytes(authority.certificate.read_bytes())
        certificate, key = authority.of_evertoken
        tls = f', tls: {{cert_file: "{certificate}", key_file: "{key}"}}'
        self.env = describe(folder, sandboxes[:TLS_KINDS], tunnels, [], f"https://127.0.0.1:{echoes.tls}", idle, tls)
        self.tcp, self.unix = socket.create_server(("127.0.0.1", 0), backlog=1024), socket.socket(socket.AF_UNIX)
        path = folder / "handed"
        self.unix.bind(str(path))
        self.unix.listen(1024)
        self.make = lambda: Handed(folder, self.env, self.tcp, self.unix)
        url = self.start()
        self.doors = [
            Door("TLS", url, trust=authority.trust, is_handed=True),
            Door("unix, handed over", "http://localhost", path, is_handed=True),
        ]


class World:
    """Issuers, providers and both evertokens."""

    def __init__(self, folder, rng, idle, sandbox):
        folder.mkdir()
        self.sandboxes = [sandbox(kind) for kind, _, _ in rows()]
        self.tunnels = sandbox(TUNNELS_KIND, name=TUNNELS_NAME)
        self.authority = Authority(folder)
        pair = folder / "echoes.pem", folder / "echoes-key.pem"
        self.authority.replace(*pair)
        self.echoes = Echoes(self.tunnels.url, *pair)
        common = idle, self.sandboxes, self.tunnels, self.echoes
        self.hosts = [
            PlainHost(folder / "plain", rng, *common),
            TlsHost(folder / "tls", rng, *common, self.authority),
        ]

    def close(self):
        for one in [*self.sandboxes, self.tunnels, self.echoes]:
            one.close()


def clients(world, running, tally, counts):
    """The threads of all clients."""
    found, index = [], 0
    for host in world.hosts:
        for door in host.doors:
            for _ in range(THREADS[door.name]):
                found.append(threading.Thread(target=converse, args=(door, host.kinds, index, running, tally)))
                index += 1
            found += Tunnels(host, door, running, counts, SEED * 1000 + index).threads(IDLE_TUNNELS)
            if door.trust:
                every = max(5.0, SECONDS / CERTIFICATES)
                found += Handshakes(host, door, running, counts, SEED, world.authority, every).threads()
    return found


def soak(folder):
    rng = random.Random(SEED)

    def sandbox(kind, **more):
        return Sandbox(kind, "--lifetime", str(LIFETIMES.get(kind, LIFETIME_SECONDS)), "--overlap", str(OVERLAP_SECONDS), **more)

    # A stream that falls silent is cut after a short time: the sandbox can stop one, but not close it.
    world = World(folder / "run", rng, IDLE_SECONDS, sandbox)
    running, tally, counts = threading.Event(), Tally(), Counts()
    running.set()
    threads = clients(world, running, tally, counts)
    for thread in threads:
        thread.start()
    begun = time.monotonic()
    faults = 0
    while (now := time.monotonic()) < begun + SECONDS:
        time.sleep(rng.uniform(0.1, 0.5))
        rng.choice([*world.sandboxes, world.tunnels]).break_something(rng)
        faults += 1
        for host in world.hosts:
            if rng.random() < 0.01:
                host.proxy.process.send_signal(signal.SIGUSR1)
            if now < begun + SECONDS / 2:
                if now > host.next_end:
                    host.end()
            elif host.first:
                host.peak_kib = max(host.peak_kib, rss_kib(host.proxy.process))
        if now >= begun + SECONDS / 2 and not world.hosts[0].first:
            # The last ones live through the second half; they are looked at once they are warm.
            time.sleep(min(60, SECONDS / 10))
            for host in world.hosts:
                host.first = sample(host.proxy.process)
    for host in world.hosts:
        host.last = sample(host.proxy.process)
    running.clear()
    for thread in threads:
        thread.join()
    fresh, shares = rest(folder / "rest")
    for host, new in zip(world.hosts, fresh):
        host.wait_for_rest(new)
    stats = {sandbox.kind: sandbox.post("/control/stats", {}) for sandbox in [*world.sandboxes, world.tunnels]}
    for host in world.hosts:
        host.close()
    world.close()
    return report(tally, counts, stats, faults, world.hosts, fresh, shares)


def rest(folder):
    """What both evertokens take after a start, and the share of a processor that they take while nobody asks, no token ends, and
    WebSockets are silent."""
    world = World(folder, random.Random(SEED), 3600, lambda kind, **more: Sandbox(kind, "--lifetime", "3600", **more))
    tunnels = []
    for host in world.hosts:
        # The unix socket tells what the port tells, without TLS.
        ready = lambda: all(one["state"] == "ready" for one in status(host.doors[-1])["providers"])
        drive.wait_for(ready, host.proxy.lines)
    # What a start and the last connection leave behind.
    time.sleep(2)
    fresh = [sample(host.proxy.process) for host in world.hosts]
    for host in world.hosts:
        tunnels += [drive.wait_for(lambda: open_or_none(door)) for door in host.doors for _ in range(IDLE_TUNNELS)]
    time.sleep(2)
    before, begun = [processor_ns(host.proxy.process) for host in world.hosts], time.monotonic_ns()
    time.sleep(REST_SECONDS)
    spent = time.monotonic_ns() - begun
    shares = [(processor_ns(host.proxy.process) - ns) / spent for host, ns in zip(world.hosts, before)]
    for tunnel in tunnels:
        tunnel.close()
    for host in world.hosts:
        host.close()
    world.close()
    return fresh, shares


def status(door):
    with door.http_client() as client:
        return client.get(f"{door.url}/-/status").json()


def open_or_none(door):
    """A WebSocket; the provider refuses some."""
    try:
        return door.open_tunnel()
    except websockets.exceptions.InvalidStatus:
        return None


def processor_ns(process):
    """Nanoseconds that it has run, threads that have ended included: clock_getcpuclockid(3)."""
    return time.clock_gettime_ns((~process.pid << 3) | 2)


def rss_kib(process):
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))


def find_lost(folder):
    """What the last process said of chains that it had to give up; its log is written anew by the next one."""
    told = (folder / "log").read_text().splitlines()
    return [line for line in told if "log in again" in line and "[ERROR]" in line]


def report(tally, counts, stats, faults, hosts, fresh, shares):
    seen = tally.seen
    total = lambda name: sum(one[name] for one in stats.values())
    bad = {kind: one["requests_without_valid_token"] for kind, one in stats.items()}
    most = lambda kind: stats[kind]["requests"] * LATE_SHARE_MAX
    strict = {kind: count for kind, count in bad.items() if count > most(kind) and kind not in OVERTAKEN}
    overtaken = {kind: bad[kind] for kind in sorted(OVERTAKEN)}
    lost = [line for host in hosts for line in host.lost]
    kills = sum(host.kills for host in hosts)
    print(f"soak: {SECONDS:.0f} s, seed {SEED}, {sum(THREADS.values())} clients, {len(stats)} issuers: {', '.join(stats)}")
    print(f"  requests: {sum(seen.values())} by clients, {total('requests')} at the providers")
    for what, count in sorted(seen.items(), key=lambda pair: -pair[1]):
        print(f"    {count:8} {what}")
    print(f"  complete by address: {dict(tally.complete)}")
    print("  WebSockets and TLS:")
    for what, count in sorted(counts.seen.items()):
        print(f"    {count:8} {what}")
    print(f"  refreshes: {total('granted')}, refused {total('refused')}, reused {total('reused')}")
    print(f"  lost answers made good within the overlap: {total('overlapped')}")
    print(f"  requests without a valid token at the providers: {strict or 0}; overtaken by the end of their token: "
          f"{overtaken}, others {sum(bad.values()) - sum(overtaken.values())}")
    print(f"  faults: {faults}, kills: {kills}, stops: {sum(host.stops for host in hosts)}")
    print(f"  refused tokens seen by clients: {seen['401']}, chains lost: {len(lost)}")
    for line in tally.told + lost + counts.problems:
        print(f"    {line}")
    problems = []
    for host, new, share in zip(hosts, fresh, shares):
        first, last, left = host.first, host.last, host.left
        print(f"  evertoken ({host.name}): at the start of the second half, at its end, without clients, and a fresh one")
        print(f"    RSS {first.kib}, {last.kib}, {left.kib}, {new.kib} KiB; peak {host.peak_kib} KiB")
        print(f"    descriptors {first.descriptors}, {last.descriptors}, {left.descriptors}, {new.descriptors}")
        print(f"    threads {first.threads}, {last.threads}, {left.threads}, {new.threads}")
        print(f"    at rest for {REST_SECONDS:.0f} s: {share * 100:.4f} % of a processor")
        if last.kib > first.kib + RSS_GROWTH_MAX_KB:
            problems.append(f"the memory of {host.name} grew")
        if last.descriptors > first.descriptors + DESCRIPTOR_GROWTH_MAX or last.threads > first.threads + THREAD_GROWTH_MAX:
            problems.append(f"descriptors or threads of {host.name} grew")
        if not host.has_rest(new):
            problems.append(f"descriptors or threads of {host.name} did not go with the clients")
        if share > REST_SHARE_MAX:
            problems.append(f"rest of {host.name} took processor time")
    if seen["401"] or seen["WRONG"] or strict:
        problems.append("a client saw a 401 or a wrong answer, or a provider an expired token")
    if lost or total("reused"):
        problems.append("a chain was lost")
    if counts.problems:
        problems.append(f"{len(counts.problems)} problems with WebSockets or TLS")
    enough = lambda kind: SECONDS / LIFETIMES.get(kind, LIFETIME_SECONDS) / 2
    quiet = [kind for kind, one in stats.items() if one["granted"] < enough(kind)]
    missing = [name for name in THREADS if not tally.complete[name]] + [what for what in EXPECTED if not counts.seen[what]]
    if quiet or missing or not kills:
        problems.append(f"too little happened {quiet + missing}")
    print("soak: " + ("; ".join(problems) or "ok"))
    return 1 if problems else 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        sys.exit(soak(pathlib.Path(name)))
