"""An hour (or so many seconds as the first argument says) of what a long life brings: SDK traffic, refreshes
every few seconds, random faults at the issuer and the provider, and in the first half random kills. Ends
with a report, and fails where a client saw a 401, a chain was lost, or memory or descriptors grew.

The issuer takes a used refresh token for 30 s more, as many do: a kill may come while an answer is on its
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
LIFETIME_SECONDS = 6
OVERLAP_SECONDS = 30
SAMPLES = 20
RSS_GROWTH_MAX_KB = 2048
DESCRIPTOR_GROWTH_MAX = 16

# Each is at the issuer or the provider; what a client may see of the latter is an error the SDK repeats,
# or a stream that was cut.
FAULTS = [
    {"at": "token", "status": 500},
    {"at": "token", "status": 429, "headers": {"Retry-After": "1"}},
    {"at": "token", "status": 400, "body": '{"error":"temporarily_unavailable"}'},
    {"at": "token", "status": 502, "after_processing": True},
    {"at": "token", "status": 200, "body": "<html>", "after_processing": True},
    {"at": "token", "stall_ms": 1000},
    {"at": "provider", "status": 500},
    {"at": "provider", "status": 529},
    {"at": "provider", "status": 429, "headers": {"Retry-After": "1"}},
    {"at": "provider", "stop_after_events": 2},
    {"at": "provider", "stall_ms": 700},
    {"at": "provider", "stall_in_stream_ms": 700},
]


class Sandbox:
    """Issuer and provider as a child process."""

    def __init__(self):
        command = [drive.ROOT / "target/release/sandbox", "serve", "--lifetime", str(LIFETIME_SECONDS)]
        command += ["--overlap", str(OVERLAP_SECONDS), "--event-delay", "15"]
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


class Tally:
    """What the clients saw."""

    def __init__(self):
        self.lock = threading.Lock()
        self.seen = collections.Counter()

    def add(self, what):
        with self.lock:
            self.seen[what] += 1


def converse(url, index, running, tally):
    rng = random.Random(SEED * 1000 + index)
    claude = anthropic.Anthropic(base_url=url, api_key="none", max_retries=6, timeout=30)
    gpt = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=6, timeout=30)
    while running.is_set():
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
        except (anthropic.AuthenticationError, openai.AuthenticationError):
            tally.add("401")
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
    sandbox = Sandbox()
    (folder / "providers.yaml").write_text(
        # A stream that falls silent is cut after 5 s: the sandbox can stop one, but not close it.
        drive.CONFIG.replace("port: 0", "port: 0, timeouts: {{idle: 5}}").format(folder=folder, providers="".join(
            drive.PROVIDER.format(name=name, kind=kind, url=sandbox.url, variable=variable).replace(
                f"{sandbox.url}/token", f"{sandbox.url}/oauth/token")
            for name, kind, variable in [("A", "anthropic", "TOKEN_A"), ("O", "openai", "TOKEN_O")]))
    )
    login = lambda: sandbox.post("/control/login", {})["refresh_token"]
    env = drive.variables(TOKEN_A=login(), TOKEN_O=login())
    env |= {"TEST_CLIENT_ID": sandbox.id, "TEST_CLIENT_SECRET": sandbox.secret, "RUST_LOG": "evertoken=warn,evertoken::app=info"}
    proxy, url = start(folder, env, "127.0.0.1:0")
    running, tally = threading.Event(), Tally()
    running.set()
    threads = [threading.Thread(target=converse, args=(url, index, running, tally)) for index in range(THREADS)]
    for thread in threads:
        thread.start()
    begun = time.monotonic()
    faults, kills, lost = 0, 0, 0
    first, peak_kib = None, 0
    next_kill = begun + rng.uniform(5, 40)
    while (now := time.monotonic()) < begun + SECONDS:
        time.sleep(rng.uniform(0.2, 2.0))
        sandbox.post("/control/faults", [rng.choice(FAULTS)])
        faults += 1
        if rng.random() < 0.02:
            proxy.process.send_signal(signal.SIGUSR1)
        if now < begun + SECONDS / 2:
            if now > next_kill:
                proxy.kill()
                lost += count_lost(folder)
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
    stats = sandbox.post("/control/stats", {})
    proxy.stop()
    lost += count_lost(folder)
    sandbox.process.kill()
    sandbox.process.wait()
    return report(tally.seen, stats, faults, kills, lost, first, last, peak_kib)


def rss_kib(process):
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))


def count_lost(folder):
    """Chains that the last process had to give up; its log is written anew by the next one."""
    return sum("log in again" in line for line in (folder / "log").read_text().splitlines())


def report(seen, stats, faults, kills, lost, first, last, peak_kib):
    print(f"soak: {SECONDS:.0f} s, seed {SEED}, {THREADS} clients")
    print(f"  requests: {sum(seen.values())} by clients, {stats['requests']} at the provider")
    for what, count in sorted(seen.items(), key=lambda pair: -pair[1]):
        print(f"    {count:8} {what}")
    print(f"  refreshes: {stats['granted']}, refused {stats['refused']}, reused {stats['reused']}")
    print(f"  lost answers made good within the overlap: {stats['overlapped']}")
    print(f"  requests without a valid token at the provider: {stats['requests_without_valid_token']}")
    print(f"  faults: {faults}, kills: {kills}")
    print(f"  401s seen by clients: {seen['401']}, chains lost: {lost}")
    print(f"  RSS: {first[0]} KiB at the start of the second half, {last[0]} KiB at the end, peak {peak_kib} KiB")
    print(f"  descriptors: {first[2]} at the start of the second half, {last[2]} at the end")
    problems = []
    if seen["401"] or seen["WRONG"] or stats["requests_without_valid_token"]:
        problems.append("a client saw a 401 or a wrong answer, or the provider an expired token")
    if lost or stats["reused"]:
        problems.append("a chain was lost")
    if last[0] > first[0] + RSS_GROWTH_MAX_KB or last[2] > first[2] + DESCRIPTOR_GROWTH_MAX:
        problems.append("memory or descriptors grew")
    if not (seen["complete"] and kills and stats["granted"] > SECONDS / LIFETIME_SECONDS):
        problems.append("too little happened")
    print("soak: " + ("; ".join(problems) or "ok"))
    return 1 if problems else 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        sys.exit(soak(pathlib.Path(name)))
