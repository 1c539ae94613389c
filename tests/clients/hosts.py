"""Several hosts with one token chain: five instances of the built binary, a real redis-server or
valkey-server, HAProxy in front, SDK clients on all, and an issuer that revokes a chain whose refresh token
is used twice. Kills, stops and cuts whatever can be, and says what the clients saw of it.

hosts.py [ROUNDS]   so many rounds of random faults (3). Needs root for cutting networks; without, that is
left out. EVERTOKEN_SEED (7) seeds the faults.
"""

import collections
import contextlib
import os
import pathlib
import random
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time

import anthropic

from world import CLIENTS, DAILY_KEY, DAILY_TOKENS, HOSTS, LIFETIME_SECONDS, PATIENCE_SECONDS, Clients, World, until

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 3
SEED = int(os.environ.get("EVERTOKEN_SEED", "7"))
# A refresh is due after half the lifetime, minus up to a tenth of that.
REFRESHED_AFTER_MIN_SECONDS = 1.7
# A fault in the middle of a refresh lasts so long at least: the others look twice meanwhile.
IN_REFRESH_SECONDS = 0.5
PREFIX = "evertoken:"


def check_quiet(world, seconds=12):
    """Nothing happens: one refresh a lifetime, by whoever, and each token on all hosts at once."""
    until("a token on every host", world.settled)
    before = world.mark()
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
    known = {f"{PREFIX}token:a", f"{PREFIX}lease:a"}
    assert all(key in known or key.startswith(f"{PREFIX}tally:usage:") for key in keys), keys
    record = world.engine.ask("HGET", f"{PREFIX}token:a", "record")
    assert record.startswith("sealed:1:") and "token" not in record, record[:20]
    assert int(world.engine.ask("TTL", f"{PREFIX}token:a")) > 80 * 24 * 3600
    print(f"stored: {', '.join(sorted(keys))}; the record is sealed")


def kill_host(world, host, rng):
    host.kill()
    time.sleep(rng.uniform(0.5, 2.0))
    host.start()


def end_host(world, host, rng):
    host.proxy.stop()
    time.sleep(rng.uniform(0.2, 1.0))
    host.start()


def halt_host(world, host, rng):
    host.halt()
    time.sleep(rng.uniform(0.3, 1.5))
    host.go_on()


def kill_engine(world, host, rng):
    world.engine.kill()
    time.sleep(rng.uniform(0.2, 1.0))
    world.engine.start()


def halt_engine(world, host, rng):
    world.engine.signal(signal.SIGSTOP)
    time.sleep(rng.uniform(0.3, 1.5))
    world.engine.signal(signal.SIGCONT)


def cut_one(world, host, rng):
    world.network.cut([host], True)
    time.sleep(rng.uniform(0.5, 2.0))
    world.network.cut([host], False)


def cut_all(world, host, rng):
    world.network.cut(world.hosts, True)
    time.sleep(rng.uniform(0.3, 1.5))
    world.network.cut(world.hosts, False)


def engine_gone_for_long(world, host, rng):
    world.engine.kill()
    time.sleep(LIFETIME_SECONDS + 1)
    world.engine.start()


def lose_power(world, host, rng):
    for one in world.hosts:
        one.kill()
    world.engine.kill()
    world.engine.start()
    for one in world.hosts:
        one.start()


def kill_in_refresh(world, when, becomes):
    host = world.hold(when)
    host.kill()
    world.release(becomes)
    time.sleep(IN_REFRESH_SECONDS)
    host.start()


def kill_before_its_request(world, host, rng):
    kill_in_refresh(world, "before", "lost")


def kill_before_its_answer(world, host, rng):
    kill_in_refresh(world, "after", "sent")


def end_before_its_answer(world, host, rng):
    host = world.hold("after")
    host.signal(signal.SIGTERM)
    until("the end to begin", lambda: host.said("Stopping; requests in flight"))
    world.release("sent")
    code = host.proxy.process.wait(PATIENCE_SECONDS)
    assert code == 0, f"exit code {code}"
    host.kill()
    host.start()


def halt_before_its_answer(world, host, rng):
    host = world.hold("after")
    host.halt()
    world.release("sent")
    time.sleep(IN_REFRESH_SECONDS)
    host.go_on()


def cut_before_its_answer(world, host, rng):
    host = world.hold("after")
    world.network.cut([host], True)
    world.release("sent")
    time.sleep(IN_REFRESH_SECONDS)
    world.network.cut([host], False)


def kill_engine_before_the_answer(world, host, rng):
    world.hold("after")
    world.engine.kill()
    world.release("sent")
    world.engine.start()


def halt_engine_before_the_answer(world, host, rng):
    world.hold("after")
    world.engine.signal(signal.SIGSTOP)
    world.release("sent")
    time.sleep(IN_REFRESH_SECONDS)
    world.engine.signal(signal.SIGCONT)


class Fault:
    """What is done, what it is called in the table, and what clients may see of it: a host that dies cuts its
    own streams, and without the store there is a time at which there may be no refresh."""

    def __init__(self, does, name, kills=False, store_away=False, everything=False, loses=0, needs_network=False):
        self.does, self.name, self.kills, self.store_away = does, name, kills, store_away
        self.everything, self.loses, self.needs_network = everything, loses, needs_network


SHORT = [
    Fault(kill_host, "one host killed (SIGKILL), back within 2 s", kills=True),
    Fault(end_host, "one host stopped in order (SIGTERM), back within 1 s"),
    Fault(halt_host, "one host halted (SIGSTOP) for up to 1.5 s"),
    Fault(kill_engine, "the engine killed, back empty within 1 s", store_away=True),
    Fault(halt_engine, "the engine halted for up to 1.5 s", store_away=True),
    Fault(cut_one, "one host cut off from the engine for up to 2 s", store_away=True, needs_network=True),
    Fault(cut_all, "all hosts cut off from the engine for up to 1.5 s", store_away=True, needs_network=True),
]
IN_REFRESH = [
    Fault(kill_before_its_request, "in a refresh: its host killed, the request never arrives", kills=True),
    Fault(kill_before_its_answer, "in a refresh: its host killed, the answer on its way", kills=True, loses=1),
    Fault(end_before_its_answer, "in a refresh: its host stopped in order, the answer on its way"),
    Fault(halt_before_its_answer, "in a refresh: its host halted for 0.5 s, the answer on its way"),
    Fault(cut_before_its_answer, "in a refresh: its host cut off for 0.5 s, the answer on its way", needs_network=True,
          store_away=True),
    Fault(kill_engine_before_the_answer, "in a refresh: the engine killed, back empty at once", store_away=True),
    Fault(halt_engine_before_the_answer, "in a refresh: the engine halted for 0.5 s", store_away=True),
]
LONG = [
    Fault(engine_gone_for_long, "the engine gone for longer than a token lives", store_away=True),
    Fault(lose_power, "all hosts and the engine killed at once, the engine back empty", everything=True),
]


def possible(world, faults):
    return [fault for fault in faults if world.network or not fault.needs_network]


def check_faults(world, rng):
    """One fault after the other, with clients behind HAProxy: what they see of it, as a table."""
    clients = Clients([world.haproxy.url])
    print("| what | streams | cut | other errors | refreshes | chains lost |")
    print("| --- | --- | --- | --- | --- | --- |")
    why = collections.Counter()
    try:
        for fault in possible(world, SHORT + IN_REFRESH + LONG):
            world.settle()
            before = world.mark()
            clients.take()
            fault.does(world, rng.choice(world.hosts), rng)
            world.settle(before)
            seen, refusals = clients.take()
            report_fault(fault, world, seen, before)
            why += judge(world, [fault], seen, refusals, before)
            assert len(world.lost) == fault.loses, (fault.name, world.lost)
    finally:
        clients.close()
    after = world.issuer.stats()
    print(f"of the 503s: {dict(why)}; of {after['requests']} requests {after['late']} were under way when their token "
          "expired, none was sent after that")


def report_fault(fault, world, seen, before):
    cut = sum(count for what, count in seen.items() if what.startswith("cut"))
    other = {what: count for what, count in seen.items() if what != "complete" and not what.startswith("cut")}
    told = ", ".join(f"{count} × {what}" for what, count in sorted(other.items())) or "none"
    refreshes = world.issuer.stats()["rotations"] - before["rotations"]
    print(f"| {fault.name} | {sum(seen.values())} | {cut} | {told} | {refreshes} | {len(world.lost)} |", flush=True)


def judge(world, faults, seen, refusals, before):
    """Whether `faults` explain what clients saw; the reasons of the refusals, counted."""
    names, after = [fault.name for fault in faults], world.issuer.stats()
    kills = sum(fault.kills for fault in faults)
    everything = any(fault.everything for fault in faults)
    store_away = everything or any(fault.store_away for fault in faults)
    assert "WRONG" not in seen, (names, seen)
    assert after["sentExpired"] == 0, (names, "an expired token was sent", after)
    if not world.lost:
        assert after["failed"] == before["failed"] and after["reuses"] == before["reuses"], (names, after)
        assert after["refused"] == before["refused"], (names, "a token was sent that is not good")
    why = collections.Counter()
    for refusal in refusals:
        if refusal.status == 503 or refusal.code == "login_needed":
            why[world.explain_refusal(refusal, store_away)] += 1
        elif refusal.status == 401:
            assert world.lost, (names, refusal)
        else:
            # Where nothing of the answer had come yet when its host died, HAProxy says so.
            assert refusal.status == 502 and refusal.code is None and (kills or everything or world.lost), (names, refusal)
    own = sum(count for what, count in seen.items() if what.startswith("cut") or what == "status 502")
    # Each client has one request under way; a chain that is begun anew restarts all hosts.
    assert own <= CLIENTS * kills or everything or world.lost, (names, seen)
    return why


def check_random(world, rng, rounds):
    """Two faults at once, at random; afterwards the chain is whole and all have its newest token."""
    clients = Clients([world.haproxy.url])
    done, why, lost, total = [collections.Counter() for _ in range(4)]
    faults = possible(world, SHORT)
    try:
        for _ in range(rounds):
            kinds = rng.sample(faults, 2)
            # The engine can be killed and halted, but not both at once.
            while {kinds[0].does, kinds[1].does} == {kill_engine, halt_engine}:
                kinds = rng.sample(faults, 2)
            before = world.mark()
            threads = [
                threading.Thread(target=kind.does, args=(world, host, random.Random(rng.random())))
                for kind, host in zip(kinds, rng.sample(world.hosts, 2))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            done.update(kind.does.__name__ for kind in kinds)
            # Each round ends with a whole chain, so that what broke one can be told.
            world.settle(before)
            seen, refusals = clients.take()
            total += seen
            lost.update(world.lost)
            why += judge(world, kinds, seen, refusals, before)
    finally:
        clients.close()
    after = world.issuer.stats()
    print(f"random: {rounds} rounds with seed {SEED}, {dict(done)}; clients: {dict(total)}; of the 503s: {dict(why)}; "
          f"chains lost by a host in a refresh: {dict(lost) or 'none'}; issuer: {after}")


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


def check_resting_model(world):
    """A refusal that concerns one model, which one host met, lets that model rest on all hosts."""
    world.issuer.mode("429", after=60, model="m-9")
    claude = anthropic.Anthropic(base_url=world.hosts[0].url, api_key="none", max_retries=0)
    with contextlib.suppress(anthropic.RateLimitError):
        claude.messages.create(model="m-9", max_tokens=8, messages=[{"role": "user", "content": "x"}])
    models = lambda host: [one["model"] for one in host.provider()["resting_models"]]
    until("the rest on all hosts", lambda: all(models(host) == ["m-9"] for host in world.hosts))
    world.hosts[1].kill()
    world.hosts[1].start()
    until("the rest after a restart", lambda: models(world.hosts[1]) == ["m-9"])
    world.issuer.mode("fine")
    print("cooldown: one host was refused a model, it rests on all")


def counted(world):
    """The requests and the tokens of today that each host shows."""
    shown = lambda host: [host.status()["usage"]["today"][name] for name in ("requests", "input", "output")]
    return [shown(host) for host in world.hosts]


def same_on_all(world):
    """The counts, once all hosts show the same and these stand still: hosts share their counts once a second."""
    before, unchanged_since = None, 0

    def stand_still():
        nonlocal before, unchanged_since
        now = counted(world)
        if now != before:
            before, unchanged_since = now, time.monotonic()
        return now.count(now[0]) == HOSTS and time.monotonic() - unchanged_since > 2.5 and now[0]

    return until("the same counts on all hosts", stand_still)


def check_usage(world):
    """Whatever was killed, halted and cut before, all hosts show the same counts, and go on from there."""
    before = same_on_all(world)
    answered = world.issuer.stats()["requests"]
    assert 0 < before[0] <= answered, f"{before[0]} answers are counted, of {answered}"
    requests, read, said = 0, 0, 0
    for host in world.hosts:
        claude = anthropic.Anthropic(base_url=host.url, api_key="none", max_retries=0)
        answer = claude.messages.create(model="m", max_tokens=8, messages=[{"role": "user", "content": "one two"}])
        requests, read, said = requests + 1, read + answer.usage.input_tokens, said + answer.usage.output_tokens
    wanted = [old + new for old, new in zip(before, [requests, read, said])]
    until("the sum on all hosts", lambda: counted(world) == [wanted] * HOSTS)
    print(f"usage: all hosts show {before[0]} answers, of {answered} that the provider gave, and {requests} more")


def check_tokens_per_day(world):
    """A key's tokens of a day are those of all hosts."""
    served, answers, before = 0, 0, same_on_all(world)[0]

    def ask(host):
        nonlocal served, answers
        claude = anthropic.Anthropic(base_url=host.url, api_key=DAILY_KEY, max_retries=0)
        try:
            answer = claude.messages.create(model="m", max_tokens=8, messages=[{"role": "user", "content": "x"}])
        except anthropic.RateLimitError as error:
            assert error.response.headers["x-evertoken-error"] == "key_limit", error
            return False
        served, answers = served + answer.usage.input_tokens + answer.usage.output_tokens, answers + 1
        return True

    def share():
        until("the tokens on all hosts", lambda: [one[0] for one in counted(world)] == [before + answers] * HOSTS)

    # At once as far as 9 of 10, then so slowly that each host knows of all others.
    while served < DAILY_TOKENS * 0.9:
        assert all([ask(host) for host in world.hosts]), served
    share()
    while any([ask(host) for host in world.hosts]):
        share()
    assert DAILY_TOKENS <= served <= DAILY_TOKENS * 1.05, served
    world.hosts[1].kill()
    world.hosts[1].start()
    until("the limit after a restart", lambda: not ask(world.hosts[1]))
    print(f"tokens_per_day: {served} of {DAILY_TOKENS} over {HOSTS} hosts")


def check_quota(world):
    """What a provider says to one host is known to all, also to one that comes later."""
    world.issuer.mode("used%20up")
    claude = anthropic.Anthropic(base_url=world.hosts[0].url, api_key="none", max_retries=0)
    claude.messages.create(model="m", max_tokens=8, messages=[{"role": "user", "content": "x"}])
    world.issuer.mode("fine")
    knows = lambda host: [one["window"] for one in host.provider()["quota"] if one["used_up_until"]] == ["5h"]
    until("the quota on all hosts", lambda: all(map(knows, world.hosts)))
    late = world.hosts[1]
    late.kill()
    shutil.rmtree(late.folder / "state" / "quota", ignore_errors=True)
    late.start()
    until("the quota on a host that comes later", lambda: knows(late))
    print("quota: what one host was told, all know")


def main():
    # What ends this also ends what it started.
    for which in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(which, lambda *_: sys.exit("stopped"))
    rng = random.Random(SEED)
    checks = (
        check_quiet,
        check_stored,
        lambda world: check_faults(world, rng),
        lambda world: check_random(world, rng, ROUNDS),
        check_cooldown,
        check_resting_model,
        check_usage,
        check_tokens_per_day,
        check_quota,
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
