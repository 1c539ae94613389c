"""An hour (or so many seconds as the first argument says) of what a long life brings: SDK traffic, refreshes
every few seconds at issuers of every kind that docs/token-refresh.md has a row for, random faults at issuers and
providers, and in the first half random kills. At the end evertoken rests, with tokens of hours. Ends with a report,
and fails where a client saw a 401, a chain was lost, memory or descriptors grew, or rest cost processor time.

The issuers take a used refresh token for 30 s more, as many do: a kill may come while an answer is on its
way, and then nothing else can save the chain.
"""

import collections
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import anthropic
import openai

import drive

SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 3600.0
SEED = int(os.environ.get("EVERTOKEN_SEED", "7"))
THREADS = 8
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

    def __init__(self, kind, *arguments):
        command = [drive.ROOT / "target/release/sandbox", "serve", "--manner", kind, "--event-delay", "15", *arguments]
        self.kind = kind
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
        fault = rng.choice(FAULTS + lost + OWN_ANSWERS)
        if fault in OWN_ANSWERS:
            self.post("/control/answer", {"name": fault})
        else:
            self.post("/control/faults", [fault])

    def close(self):
        self.process.kill()
        self.process.wait()


def describe(folder, sandboxes):
    """Writes providers.yaml, with what the docs say for each kind; the variables that go with it."""
    # A stream that falls silent is cut after 5 s: the sandbox can stop one, but not close it.
    text = f'settings: {{port: 0, state_dir: "{folder}/state", timeouts: {{idle: 5}}}}\nproviders:\n'
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
        env |= {f"{name}_ID": sandbox.id, f"{name}_SECRET": sandbox.secret}
        env[f"{name}_TOKEN"] = sandbox.post("/control/login", {})["refresh_token"]
    (folder / "providers.yaml").write_text(text)
    return env


class Tally:
    """What the clients saw."""

    def __init__(self):
        self.lock = threading.Lock()
        self.seen = collections.Counter()
        self.told = []

    def add(self, what, told=None):
        with self.lock:
            self.seen[what] += 1
            if told:
                self.told.append(f"{time.strftime('%H:%M:%S', time.gmtime())} {told}")


def converse(url, index, running, tally):
    rng = random.Random(SEED * 1000 + index)
    options = {"api_key": "none", "max_retries": 6, "timeout": 30}
    to = [f"{url}/to/{kind}" for kind, _, _ in rows()]
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
                tally.add("left in the middle")
                continue
            tally.add("complete" if said == f"You said: {words}" else "WRONG")
        except REFUSED as error:
            tally.add("401", f"{error.status_code} from {error.request.url}: {error.body}")
        except (anthropic.APIStatusError, openai.APIStatusError) as error:
            tally.add(f"status {error.status_code} after all retries")
        except (anthropic.APIConnectionError, openai.APIConnectionError) as error:
            tally.add(f"no connection, or cut: {type(error.__cause__).__name__}")
        except Exception as error:
            # A cut stream ends in an error of the HTTP library.
            tally.add(f"cut: {type(error).__name__}")


def sample(process):
    """Resident KiB and descriptors, the least of some samples: what stays, not what is under way."""
    kib, descriptors = [], []
    for _ in range(SAMPLES):
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        kib.append(int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))))
        descriptors.append(len(os.listdir(f"/proc/{process.pid}/fd")))
        time.sleep(0.25)
    return min(kib), max(kib), min(descriptors)


def start(folder, env, address):
    proxy = drive.Evertoken(folder, env, "--listen", address)
    return proxy, proxy.url()


def soak(folder):
    rng = random.Random(SEED)
    lifetime = lambda kind: ["--lifetime", str(LIFETIMES.get(kind, LIFETIME_SECONDS))]
    overlap = ["--overlap", str(OVERLAP_SECONDS)]
    sandboxes = [Sandbox(kind, *lifetime(kind), *overlap) for kind, _, _ in rows()]
    env = describe(folder, sandboxes) | ALLOCATOR | {"RUST_LOG": "evertoken=warn,evertoken::app=info"}
    proxy, url = start(folder, env, "127.0.0.1:0")
    running, tally = threading.Event(), Tally()
    running.set()
    threads = [threading.Thread(target=converse, args=(url, index, running, tally)) for index in range(THREADS)]
    for thread in threads:
        thread.start()
    begun = time.monotonic()
    faults, kills, lost = 0, 0, []
    first, peak_kib = None, 0
    next_kill = begun + rng.uniform(5, 40)
    while (now := time.monotonic()) < begun + SECONDS:
        time.sleep(rng.uniform(0.1, 0.5))
        rng.choice(sandboxes).break_something(rng)
        faults += 1
        if rng.random() < 0.01:
            proxy.process.send_signal(signal.SIGUSR1)
        if now < begun + SECONDS / 2:
            if now > next_kill:
                proxy.kill()
                lost += find_lost(folder)
                proxy, _ = start(folder, env, url.removeprefix("http://"))
                kills += 1
                next_kill = now + rng.uniform(5, 40)
        elif first is None:
            # The last one lives through the second half; it is looked at once it is warm.
            time.sleep(min(60, SECONDS / 10))
            first = sample(proxy.process)
        else:
            peak_kib = max(peak_kib, rss_kib(proxy.process))
    last = sample(proxy.process)
    running.clear()
    for thread in threads:
        thread.join()
    stats = {sandbox.kind: sandbox.post("/control/stats", {}) for sandbox in sandboxes}
    proxy.stop()
    lost += find_lost(folder)
    for sandbox in sandboxes:
        sandbox.close()
    return report(tally, stats, faults, kills, lost, first, last, peak_kib, rest(folder / "rest"))


def rest(folder):
    """The share of a processor that evertoken takes while nobody asks and no token ends."""
    folder.mkdir()
    sandboxes = [Sandbox(kind, "--lifetime", "3600") for kind, _, _ in rows()]
    proxy, url = start(folder, describe(folder, sandboxes), "127.0.0.1:0")
    drive.wait_for(lambda: all(one["state"] == "ready" for one in drive.get(f"{url}/-/status")["providers"]), proxy.lines)
    # What a start and the last connection leave behind.
    time.sleep(2)
    before, begun = processor_ns(proxy.process), time.monotonic_ns()
    time.sleep(REST_SECONDS)
    share = (processor_ns(proxy.process) - before) / (time.monotonic_ns() - begun)
    proxy.stop()
    for sandbox in sandboxes:
        sandbox.close()
    return share


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


def report(tally, stats, faults, kills, lost, first, last, peak_kib, share):
    seen = tally.seen
    total = lambda name: sum(one[name] for one in stats.values())
    bad = {kind: one["requests_without_valid_token"] for kind, one in stats.items()}
    most = lambda kind: stats[kind]["requests"] * LATE_SHARE_MAX
    strict = {kind: count for kind, count in bad.items() if count > most(kind) and kind not in OVERTAKEN}
    overtaken = {kind: bad[kind] for kind in sorted(OVERTAKEN)}
    print(f"soak: {SECONDS:.0f} s, seed {SEED}, {THREADS} clients, {len(stats)} kinds of issuers: {', '.join(stats)}")
    print(f"  requests: {sum(seen.values())} by clients, {total('requests')} at the providers")
    for what, count in sorted(seen.items(), key=lambda pair: -pair[1]):
        print(f"    {count:8} {what}")
    print(f"  refreshes: {total('granted')}, refused {total('refused')}, reused {total('reused')}")
    print(f"  lost answers made good within the overlap: {total('overlapped')}")
    print(f"  requests without a valid token at the providers: {strict or 0}; overtaken by the end of their token: "
          f"{overtaken}, others {sum(bad.values()) - sum(overtaken.values())}")
    print(f"  faults: {faults}, kills: {kills}")
    print(f"  refused tokens seen by clients: {seen['401']}, chains lost: {len(lost)}")
    for line in tally.told + lost:
        print(f"    {line}")
    print(f"  RSS: {first[0]} KiB at the start of the second half, {last[0]} KiB at the end, peak {peak_kib} KiB")
    print(f"  descriptors: {first[2]} at the start of the second half, {last[2]} at the end")
    print(f"  at rest for {REST_SECONDS:.0f} s: {share * 100:.4f} % of a processor")
    problems = []
    if seen["401"] or seen["WRONG"] or strict:
        problems.append("a client saw a 401 or a wrong answer, or a provider an expired token")
    if lost or total("reused"):
        problems.append("a chain was lost")
    if last[0] > first[0] + RSS_GROWTH_MAX_KB or last[2] > first[2] + DESCRIPTOR_GROWTH_MAX:
        problems.append("memory or descriptors grew")
    if share > REST_SHARE_MAX:
        problems.append("rest took processor time")
    enough = lambda kind: SECONDS / LIFETIMES.get(kind, LIFETIME_SECONDS) / 2
    quiet = [kind for kind, one in stats.items() if one["granted"] < enough(kind)]
    if quiet or not (seen["complete"] and kills):
        problems.append(f"too little happened {quiet}")
    print("soak: " + ("; ".join(problems) or "ok"))
    return 1 if problems else 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        sys.exit(soak(pathlib.Path(name)))
