"""Drives target/release/evertoken with the anthropic and openai packages, and kills it, against a
real issuer with rotating single-use refresh tokens and reuse detection.

EVERTOKEN_CLIENT_SECONDS (60) is how long the SDKs stream, EVERTOKEN_KILLS (200) how often it is killed.
"""

import concurrent.futures
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import anthropic
import openai
from prometheus_client.parser import text_string_to_metric_families

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = ROOT / "target/release/evertoken"
SECONDS = float(os.environ.get("EVERTOKEN_CLIENT_SECONDS", "60"))
KILLS = int(os.environ.get("EVERTOKEN_KILLS", "200"))
CHAINS = 4
THREADS = 24
# How much longer than it says the issuer takes its tokens: see issuer.mjs.
SLACK_SECONDS = 5
PATIENCE_SECONDS = 20

CONFIG = """
settings: {{port: 0, state_dir: "{folder}/state", log_level: "INFO"}}
providers:
{providers}
"""
PROVIDER = """
  - name: "{name}"
    type: {kind}
    base_url: "{url}"
    auto_refresh_config:
      enabled: true
      token_url: "{url}/token"
      client_id_env: TEST_CLIENT_ID
      client_secret_env: TEST_CLIENT_SECRET
      refresh_token_env: {variable}
"""


def get(url):
    with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:
        return json.load(answer)


def wait_for(condition, more=lambda: None):
    """What the condition gives once it holds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.01)
    raise SystemExit(f"waited in vain; {more()}")


class Issuer:
    """The issuer as a child process."""

    def __init__(self, lifetime, slack=0):
        script = ROOT / "target/clients/issuer.mjs"
        self.process = subprocess.Popen(
            ["node", str(script), str(lifetime), str(slack)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.url = next(line.strip() for line in self.process.stdout if line.startswith("http"))

    def login(self, client="evertoken-tests"):
        return get(f"{self.url}/control/login?client={client}")["refresh_token"]

    def mode(self, mode, after=1, model=""):
        get(f"{self.url}/control/mode?is={mode}&after={after}&model={model}")

    def stats(self):
        return get(self.url + "/control/stats")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


class Evertoken:
    """The binary as a child process."""

    def __init__(self, folder, variables, *arguments):
        self.log = open(folder / "log", "w+")
        self.process = subprocess.Popen(
            [str(BINARY), "run", *arguments], cwd=folder, env=variables, stdout=subprocess.DEVNULL, stderr=self.log
        )

    def lines(self):
        return pathlib.Path(self.log.name).read_text().splitlines()

    def url(self):
        said = lambda: next((line for line in self.lines() if "Listening on " in line), None)
        return wait_for(said, self.lines).split("Listening on ")[1]

    def is_refreshing(self):
        """Whether its log ends in the middle of a refresh: what follows a success is on disk."""
        told = [line for line in self.lines() if "token refresh for" in line or "refreshed token for" in line]
        return bool(told) and "Starting" in told[-1]

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.log.close()

    def stop(self):
        self.process.terminate()
        code = self.process.wait(PATIENCE_SECONDS)
        assert code == 0, f"exit code {code}"
        self.log.close()


def variables(**tokens):
    return {
        "HOME": "/nonexistent",
        "TEST_CLIENT_ID": "evertoken-tests",
        "TEST_CLIENT_SECRET": "secret-of-the-tests",
        **tokens,
    }


def write_config(folder, issuer, providers):
    text = "".join(
        PROVIDER.format(name=name, kind=kind, url=issuer.url, variable=variable)
        for name, kind, variable in providers
    )
    (folder / "providers.yaml").write_text(CONFIG.format(folder=folder, providers=text))


def check_sdks(folder, lifetime):
    """SDK clients stream through many token lifetimes: no 401 at a client, none at the provider."""
    with Issuer(lifetime, SLACK_SECONDS) as issuer:
        write_config(folder, issuer, [("A", "anthropic", "TOKEN_A"), ("O", "openai", "TOKEN_O")])
        proxy = Evertoken(folder, variables(TOKEN_A=issuer.login(), TOKEN_O=issuer.login()))
        url = proxy.url()
        threads, counts, errors = converse_all(url, SECONDS)
        for thread in threads:
            thread.join()
        once = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)
        asked = [{"role": "user", "content": "x"}]
        whole = once.messages.create(model="m", max_tokens=8, messages=asked, extra_headers=begun())
        assert whole.content[0].text == "You said: x"
        # No provider has failed here.
        check_metrics(url, without=["upstream_errors"])
        stats = issuer.stats()
        proxy.stop()
    print(f"SDKs: {sum(counts)} streams on {THREADS} threads in {SECONDS:.0f} s, {stats}")
    assert not errors, errors[:3]
    assert stats["refused"] == 0, "a request reached the provider without a valid token"
    assert stats["sentExpired"] == 0, "a request was sent with an expired token"
    assert stats["rotations"] > SECONDS / lifetime, "tokens were refreshed through the run"


def begun():
    """Says when a request began, so that one on which a token ended is told from one sent with an expired token."""
    return {"x-begun": str(time.time_ns() // 1_000_000)}


def converse(url, index, until, counts, errors):
    """Streams with one SDK until the time is over, or something goes wrong."""
    text = f"hello from thread {index} with a few more words to stream"
    messages = [{"role": "user", "content": text}]
    claude = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)
    gpt = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)
    while time.monotonic() < until and not errors:
        try:
            if index % 2:
                with claude.messages.stream(
                    model="m", max_tokens=64, messages=messages, extra_headers=begun()
                ) as stream:
                    said = "".join(stream.text_stream)
            else:
                stream = gpt.chat.completions.create(
                    model="m", messages=messages, stream=True, extra_headers=begun()
                )
                said = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
            assert said == f"You said: {text}", said
            counts[index] += 1
        except Exception as error:  # every kind of failure is a failed test
            errors.append(f"thread {index}: {error!r}")


def converse_all(url, seconds):
    """All threads at once; how many streams there were, and what went wrong."""
    until = time.monotonic() + seconds
    counts, errors = [0] * THREADS, []
    threads = [
        threading.Thread(target=converse, args=(url, index, until, counts, errors)) for index in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    return threads, counts, errors


# Each metric of docs/reference.md: its type and its labels.
METRICS = {
    "build_info": ("gauge", {"version"}),
    "requests": ("counter", {"provider", "code"}),
    "requests_in_flight": ("gauge", set()),
    "request_duration_seconds": ("histogram", {"provider"}),
    "time_to_first_byte_seconds": ("histogram", {"provider"}),
    "upstream_errors": ("counter", {"provider", "kind"}),
    "refreshes": ("counter", {"provider", "outcome"}),
    "token_expiry_timestamp_seconds": ("gauge", {"provider"}),
    "provider_ready": ("gauge", {"provider"}),
    "connections": ("gauge", set()),
    "listener_connections": ("gauge", {"listener"}),
    "listener_accepted": ("counter", {"listener"}),
    "listener_bytes": ("counter", {"listener", "direction"}),
    "log_lines_dropped": ("counter", set()),
    "config_last_reload_successful": ("gauge", set()),
    "config_last_reload_success_timestamp_seconds": ("gauge", set()),
}


def check_metrics(url, without=()):
    """The official parser takes the metrics, and finds each of docs/reference.md, as it is there."""
    with urllib.request.urlopen(url + "/-/metrics", timeout=PATIENCE_SECONDS) as answer:
        families = {family.name: family for family in text_string_to_metric_families(answer.read().decode())}
    for name, (kind, labels) in METRICS.items():
        if name in without:
            continue
        family = families[f"evertoken_{name}"]
        assert family.type == kind, (name, family.type)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == labels, (name, sample)


def check_failover(folder, seconds=20):
    """Two accounts fail in turn, in every way; the SDKs, which do not retry here, see no error."""
    rng = random.Random(7)
    with Issuer(30) as one, Issuer(30) as two:
        entries = [("A", one, "anthropic"), ("B", two, "anthropic"), ("C", one, "openai"), ("D", two, "openai")]
        text = "".join(
            PROVIDER.format(name=name, kind=kind, url=issuer.url, variable=f"TOKEN_{name}")
            for name, issuer, kind in entries
        )
        config = CONFIG.replace("port: 0", "port: 0, failure_cooldown: 1, selection_strategy: round_robin")
        (folder / "providers.yaml").write_text(config.format(folder=folder, providers=text))
        tokens = {f"TOKEN_{name}": issuer.login() for name, issuer, _ in entries}
        proxy = Evertoken(folder, variables(**tokens))
        threads, counts, errors = converse_all(proxy.url(), seconds)
        failing, healthy, changes = one, two, 0
        while any(thread.is_alive() for thread in threads):
            failing.mode(rng.choice(["402", "429", "500", "502", "503", "529", "reset", "credit", "stream"]))
            time.sleep(rng.uniform(0.2, 0.8))
            failing.mode("fine")
            # Who was refused by the one is served by the other before that one fails in its turn.
            before = list(counts)
            wait_for(lambda: errors or all(
                count > was or not thread.is_alive() for count, was, thread in zip(counts, before, threads)
            ))
            failing, healthy, changes = healthy, failing, changes + 1
        for thread in threads:
            thread.join()
        failed = one.stats()["failedOnPurpose"] + two.stats()["failedOnPurpose"]
        check_metrics(proxy.url())
        proxy.stop()
    print(f"Failover: {sum(counts)} streams, {changes} outages, {failed} failing answers, {len(errors)} seen by clients")
    assert not errors, errors[:3]
    assert sum(counts) > 100 and failed > 10


CREDENTIALS = [
    # Client, client_auth, grant_type, and lines of its own.
    ("evertoken-tests", "client_secret_post", "refresh_token", ""),
    ("evertoken-basic", "client_secret_basic", "refresh_token", ""),
    ("evertoken-public", "none", "refresh_token", ""),
    ("evertoken-machine", "client_secret_post", "client_credentials", "      scope: read\n      extra_params: {x: y}\n"),
]


def check_credentials(folder):
    """Every kind of client that the issuer knows gets tokens that the provider takes."""
    with Issuer(30) as issuer:
        entries, env = "", variables()
        for index, (client, auth, grant, more) in enumerate(CREDENTIALS):
            entry = PROVIDER.format(name=client, kind="anthropic", url=issuer.url, variable=f"TOKEN_{index}")
            entry = entry.replace("TEST_CLIENT_ID", f"ID_{index}")
            if auth == "none":
                entry = entry.replace("      client_secret_env: TEST_CLIENT_SECRET\n", "")
            if grant == "client_credentials":
                entry = entry.replace(f"      refresh_token_env: TOKEN_{index}\n", "")
            else:
                env[f"TOKEN_{index}"] = issuer.login(client)
            env[f"ID_{index}"] = client
            entries += f"{entry.rstrip()}\n      client_auth: {auth}\n      grant_type: {grant}\n{more}"
        (folder / "providers.yaml").write_text(CONFIG.format(folder=folder, providers=entries))
        checked = subprocess.run([str(BINARY), "check", "--online"], cwd=folder, env=env, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
        # The check asks without a credential, which is refused, and spends none.
        before = issuer.stats()
        assert before["rotations"] == 0
        proxy = Evertoken(folder, env)
        for client, *_ in CREDENTIALS:
            claude = anthropic.Anthropic(base_url=f"{proxy.url()}/to/{client}", api_key="none", max_retries=0)
            said = claude.messages.create(model="m", max_tokens=8, messages=[{"role": "user", "content": client}])
            assert said.content[0].text == f"You said: {client}"
        stats = issuer.stats()
        proxy.stop()
    print(f"Credentials: {', '.join(client for client, *_ in CREDENTIALS)}: {stats}")
    assert all(stats[what] == before[what] for what in ("refused", "failed"))


def chain_is_whole(folder, env):
    done = subprocess.run(
        [str(BINARY), "refresh"], cwd=folder, env=env, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    return done.returncode == 0, done.stderr


def kill_again_and_again(folder, rng, kills):
    """So many kills at random moments: chains that broke, those of them that nothing explains, the issuer's counts."""
    breaks, unexplained = 0, []
    folder.mkdir()
    with Issuer(1) as issuer:
        write_config(folder, issuer, [("K", "anthropic", "TOKEN_K")])
        env = variables(TOKEN_K=issuer.login())
        for number in range(kills):
            proxy = Evertoken(folder, env)
            # Tokens live 1 s and are refreshed after about half of it: most kills fall around that.
            time.sleep(rng.uniform(0.36, 0.54))
            proxy.process.kill()
            killed_ms = time.time() * 1000
            was_refreshing = proxy.is_refreshing()
            proxy.kill()
            whole, told = chain_is_whole(folder, env)
            if whole:
                continue
            breaks += 1
            # The issuer had rotated, and the kill came before its answer was stored.
            since_ms = killed_ms - issuer.stats()["lastRotation"]
            print(f"  kill {number} of {folder.name}: broken, {since_ms:.0f} ms after the issuer's answer left")
            said = "the answer to the last refresh was probably lost; log in again" in told
            if not (was_refreshing and said):
                unexplained.append((number, since_ms, told))
            env = variables(TOKEN_K=issuer.login())
        return breaks, unexplained, issuer.stats()


def check_kills(folder, seed):
    """SIGKILL at random moments: the chain breaks only where the issuer's answer was on its way."""
    # Each chain has its own issuer and mostly waits, so several go at once.
    with concurrent.futures.ThreadPoolExecutor(CHAINS) as pool:
        ways = [
            pool.submit(kill_again_and_again, folder / f"chain-{index}", random.Random(seed + index), KILLS // CHAINS)
            for index in range(CHAINS)
        ]
        breaks, unexplained, stats = zip(*(way.result() for way in ways))
    rotations = sum(one["rotations"] for one in stats)
    print(f"Kills: {KILLS} with seed {seed}, {sum(breaks)} chains broken by an answer on its way, {rotations} rotations")
    assert not any(unexplained), unexplained
    assert sum(breaks) < KILLS / 4, "too many for the moment in which an answer is on its way"


def main():
    seed = int(os.environ.get("EVERTOKEN_SEED", "7"))
    checks = (
        check_credentials,
        check_failover,
        lambda folder: check_kills(folder, seed),
        lambda folder: check_sdks(folder, 4),
    )
    for check in checks:
        with tempfile.TemporaryDirectory() as folder:
            check(pathlib.Path(folder))
    print(f"test-clients: ok. {len(checks)} passed; 0 failed")


if __name__ == "__main__":
    sys.exit(main())
