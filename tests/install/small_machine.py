#!/usr/bin/env python3
"""Measures evertoken as on a small machine: in a control group with 64 MB and a tenth of a core, before a provider over
TLS, with TLS for its clients too; then what it writes to its state folder, and what happens where the memory ends.

small_machine.py PROGRAM SANDBOX [--memory MB] [--core PERCENT]

It prints the tables of docs/small-machines.md, and fails if a limit at the end of this file is passed. Needs root, openssl
and strace. `make small` calls it.
"""

import argparse
import asyncio
import collections
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from sandbox import LIMIT_S, Sandbox, certificates, configuration, eventually, own_tls

GROUPS = pathlib.Path("/sys/fs/cgroup")
MIB = 1024 * 1024
# Of a core's time, in slices as short as the kernel has them, so that it is slow rather than away.
PERIOD_US = 10_000
STARTS = 5
STREAMS = 10
WORDS = 80
EVENT_DELAY_MS = 100
# An hour with a request each second.
REQUESTS = 3600
REST_S = 20
REFRESHES = 10
SAVES = 10
DAY_S = 24 * 3600
# The port of the discard service, which nobody offers any more.
UNREACHABLE = "https://localhost:9"

# As in docs/small-machines.md.
SMALL = {"max_connections": 32, "max_connections_per_address": 16, "replay_body_bytes": 262144}


class Group:
    """A control group, of version 2 where memory has it, else of version 1."""

    def __init__(self, memory, core):
        name = f"evertoken-small-{os.getpid()}"
        listed = GROUPS / "cgroup.controllers"
        self.is_new = listed.exists() and "memory" in listed.read_text().split()
        quota = core * PERIOD_US // 100
        if self.is_new:
            (GROUPS / "cgroup.subtree_control").write_text("+memory +cpu")
            self.memory = self.cpu = GROUPS / name
            limits = {"memory.max": memory, "memory.swap.max": 0, "cpu.max": f"{quota} {PERIOD_US}"}
        else:
            self.memory, self.cpu = GROUPS / "memory" / name, GROUPS / "cpu" / name
            limits = {"memory.limit_in_bytes": memory, "memory.swappiness": 0, "cpu.cfs_period_us": PERIOD_US,
                      "cpu.cfs_quota_us": quota}
        for folder in self.folders():
            folder.mkdir(exist_ok=True)
        for file, value in limits.items():
            place = self.memory if file.startswith("memory") else self.cpu
            (place / file).write_text(str(value))

    def folders(self):
        return sorted({self.memory, self.cpu})

    def taken(self):
        """The memory that counts for it, the read parts of files and the kernel's share included."""
        return int((self.memory / ("memory.current" if self.is_new else "memory.usage_in_bytes")).read_text())

    def peak(self):
        return int((self.memory / ("memory.peak" if self.is_new else "memory.max_usage_in_bytes")).read_text())

    def kills(self):
        file = self.memory / ("memory.events" if self.is_new else "memory.oom_control")
        return int(re.search(r"^oom_kill (\d+)", file.read_text(), re.M)[1])

    def close(self):
        for folder in self.folders():
            eventually("an empty group", lambda folder=folder: not (folder / "cgroup.procs").read_text())
            folder.rmdir()


class Front(threading.Thread):
    """TLS before the sandbox: takes it off, and passes the bytes on."""

    def __init__(self, folder, port):
        super().__init__(daemon=True)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        self.behind, self.ready = port, threading.Event()
        self.start()
        self.ready.wait()

    def run(self):
        asyncio.run(self.serve())

    async def serve(self):
        server = await asyncio.start_server(self.carry, "127.0.0.1", 0, ssl=self.context)
        self.url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
        self.ready.set()
        await server.serve_forever()

    async def carry(self, reader, writer):
        async def one_way(source, target):
            try:
                while data := await source.read(65536):
                    target.write(data)
                    await target.drain()
            except (OSError, ssl.SSLError):
                pass
            target.close()

        behind, beyond = await asyncio.open_connection("127.0.0.1", self.behind)
        await asyncio.gather(one_way(reader, beyond), one_way(behind, writer))


class Evertoken:
    """One run of the program, with its log, in the group if there is one."""

    def __init__(self, place, settings, group=None, before=(), url=None):
        folder, program, sandbox, front = place
        shutil.rmtree(folder / "state", ignore_errors=True)
        settings = {"port": 0, "state_dir": f"{folder}/state", "tls": own_tls(folder), **settings}
        (folder / "providers.yaml").write_text(configuration(url or front.url, settings, ca_file=f"{folder}/ca.pem"))
        # What was read before would not count for the group, and would be there already.
        subprocess.run(["sync", program], check=True)
        subprocess.run(["dd", f"if={program}", "iflag=nocache", "count=0", "status=none"], check=True)
        joins = "".join(f"echo $$ > {one}/cgroup.procs; " for one in (group.folders() if group else []))
        words = [*before, str(program), "run", "--config", str(folder / "providers.yaml")]
        self.folder, self.lines, self.began = folder, [], time.monotonic()
        self.process = subprocess.Popen(["sh", "-c", f'{joins}exec "$@"', "sh", *words], stderr=subprocess.PIPE,
                                        text=True, env={"PATH": os.environ["PATH"], **sandbox.variables()})
        threading.Thread(target=self.read, daemon=True).start()
        self.port = int(re.search(r":(\d+)", self.said("Listening on https://")[1])[1])
        self.trust = ssl.create_default_context(cafile=folder / "ca.pem")

    def read(self):
        for line in self.process.stderr:
            self.lines.append((time.monotonic(), line))

    def said(self, text):
        """The first line with the text: its time since the start, and what follows the text."""
        def found():
            assert self.process.poll() is None, "".join(line for _, line in self.lines)
            return next(((at - self.began, line.split(text, 1)[1]) for at, line in list(self.lines) if text in line), None)
        return eventually(text, found)

    def ask(self, method, path, body=None, connection=None):
        connection = connection or http.client.HTTPSConnection("localhost", self.port, timeout=LIMIT_S, context=self.trust)
        fields = {"content-type": "application/json", "anthropic-version": "2023-06-01"}
        connection.request(method, path, body and json.dumps(body), fields)
        return connection.getresponse()

    def pid(self):
        return self.process.pid

    def pages(self):
        """RSS and PSS, in bytes."""
        text = pathlib.Path(f"/proc/{self.pid()}/smaps_rollup").read_text()
        return [int(re.search(rf"^{name}: +(\d+) kB", text, re.M)[1]) * 1024 for name in ["Rss", "Pss"]]

    def cpu(self):
        """The seconds of processor time that it has taken."""
        fields = pathlib.Path(f"/proc/{self.pid()}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(LIMIT_S) == 0, "".join(line for _, line in self.lines)


def message(words, streams):
    text = " ".join(f"word{number}" for number in range(words))
    return {"model": "m", "max_tokens": 9999, "stream": streams, "messages": [{"role": "user", "content": text}]}


def stream(evertoken, results):
    """Reads one stream to its end; adds the time of each event."""
    began = time.monotonic()
    answer = evertoken.ask("POST", "/v1/messages", message(WORDS, streams=True))
    assert answer.status == 200, answer.read()
    times = [time.monotonic() - began for line in answer if line.startswith(b"event: content_block_delta")]
    results.append(times)


def mb(size):
    return f"{size / MIB:.1f} MB"


def ms(seconds):
    return f"{seconds * 1000:.0f} ms"


def run_in_group(place, group):
    """The rows of the first table, and what is judged of them."""
    listening, ready = [], []
    for _ in range(STARTS):
        evertoken = Evertoken(place, SMALL, group)
        listening.append(evertoken.said("Listening on")[0])
        ready.append(evertoken.said("Successfully refreshed token")[0])
        if len(ready) < STARTS:
            evertoken.stop()
    rows = [("start until it listens", ms(statistics.median(listening))),
            ("start until the first token, with the TLS handshake to its issuer", ms(statistics.median(ready)))]

    before = evertoken.cpu()
    time.sleep(REST_S)
    rss, pss = evertoken.pages()
    at_rest = group.taken()
    rows.append(("at rest: RSS / PSS / memory of the group", f"{mb(rss)} / {mb(pss)} / {mb(at_rest)}"))
    rows.append((f"at rest: processor time in {REST_S} s", ms(evertoken.cpu() - before)))

    before, results = evertoken.cpu(), []
    threads = [threading.Thread(target=stream, args=(evertoken, results)) for _ in range(STREAMS)]
    for thread in threads:
        thread.start()
    time.sleep(WORDS * EVENT_DELAY_MS / 2000)
    assert not results, "the streams were to last longer"
    rss, pss = evertoken.pages()
    rows.append((f"{STREAMS} streams, TLS on both sides: RSS / PSS / memory of the group",
                 f"{mb(rss)} / {mb(pss)} / {mb(group.taken())}"))
    began = time.monotonic()
    assert evertoken.ask("POST", "/-/refresh/work").status == 200
    took = time.monotonic() - began
    rss, pss = evertoken.pages()
    rows.append(("a refresh meanwhile: time, RSS / PSS", f"{ms(took)}, {mb(rss)} / {mb(pss)}"))
    for thread in threads:
        thread.join(LIMIT_S)
    assert len(results) == STREAMS and {len(times) for times in results} == {len(results[0])}, results
    gaps = sorted(later - earlier for times in results for earlier, later in zip(times, times[1:]))
    rows.append((f"{STREAMS} streams: first event / gap between two, median and 99 % (the provider's is {EVENT_DELAY_MS} ms)",
                 f"{ms(statistics.median(times[0] for times in results))} / {ms(statistics.median(gaps))}, "
                 f"{ms(gaps[len(gaps) * 99 // 100])}"))
    rows.append((f"{STREAMS} streams: processor time for an event",
                 f"{(evertoken.cpu() - before) / sum(map(len, results)) * 1e6:.0f} µs"))

    before, began = evertoken.cpu(), time.monotonic()
    connection = http.client.HTTPSConnection("localhost", evertoken.port, timeout=LIMIT_S, context=evertoken.trust)
    for _ in range(REQUESTS):
        answer = evertoken.ask("POST", "/v1/messages", message(10, streams=False), connection)
        assert answer.status == 200, answer.read()
        answer.read()
    took = time.monotonic() - began
    rss, pss = evertoken.pages()
    rows.append((f"{REQUESTS} requests one after the other: requests/s, processor time for each",
                 f"{REQUESTS / took:.0f}, {(evertoken.cpu() - before) / REQUESTS * 1e6:.0f} µs"))
    rows.append(("after them: RSS / PSS / memory of the group", f"{mb(rss)} / {mb(pss)} / {mb(group.taken())}"))
    evertoken.stop()
    return rows, {"at rest": at_rest, "with streams and requests": group.peak()}


def hold_bodies(evertoken, clients, size):
    """So many clients send all of a body but its last byte, and then that; returns the statuses, None for no answer."""
    head = (f"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            f"anthropic-version: 2023-06-01\r\ncontent-length: {size}\r\n\r\n").encode()
    body = json.dumps(message(4, streams=False)).encode()
    body += b" " * (size - len(body))
    sockets, statuses = [], collections.Counter()
    for _ in range(clients):
        try:
            plain = socket.create_connection(("localhost", evertoken.port), timeout=LIMIT_S)
            one = evertoken.trust.wrap_socket(plain, server_hostname="localhost")
            sockets.append(one)
            one.sendall(head + body[:-1])
        except OSError:
            # A refusal may come before all is sent; the answer is read below.
            pass
    for one in sockets:
        try:
            one.sendall(body[-1:])
        except OSError:
            pass
        try:
            statuses[int(one.recv(65536).split(b" ")[1])] += 1
        except (OSError, IndexError):
            statuses[None] += 1
        one.close()
    statuses[None] += clients - len(sockets)
    return statuses


def run_out_of_memory(place, memory, core):
    """The rows of the second table: more clients than there is memory for."""
    rows, judged = [], {}
    for name, settings, size in [("bodies of 250 KB, which are held", SMALL, 250_000),
                                 ("bodies of 4 MB, which pass", SMALL, 4 * MIB),
                                 ("bodies of 7 MB, default settings", {}, 7 * MIB)]:
        group = Group(memory, core)
        evertoken = Evertoken(place, settings, group)
        evertoken.said("Successfully refreshed token")
        statuses = hold_bodies(evertoken, 48, size)
        kills, peak = group.kills(), group.peak()
        told = ", ".join(f"{count} × {status or 'no answer'}" for status, count in sorted(statuses.items(), key=str) if count)
        rows.append((f"48 clients at once, {name}", told, mb(peak), "killed by the kernel" if kills else "lives"))
        judged[name] = kills
        if evertoken.process.poll() is None:
            evertoken.stop()
        else:
            evertoken.process.wait()
        group.close()
    return rows, judged


WRITES = "trace=openat,write,pwrite64,writev,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat," \
    "ftruncate,truncate,fallocate,fchown,fchownat,chown,fchmod,fchmodat,chmod,utimensat,link,linkat,symlink,symlinkat"


def written(trace, folder):
    """The changes of the state folder in an output of strace: by file, the calls of each kind and the bytes."""
    found = collections.defaultdict(collections.Counter)
    for line in trace.read_text(errors="replace").splitlines():
        call = re.match(r"\d+ +(\w+)\((.*)\) += (-?\d+)", line)
        if not call or int(call[3]) < 0:
            continue
        name, arguments, result = call[1], call[2], int(call[3])
        paths = re.findall(rf"{re.escape(str(folder))}/state(/[^\">]*)?", arguments)
        if not paths or name == "openat" and "O_CREAT" not in arguments:
            continue
        kind = {"/usage": "usage", "/quota": "quota"}.get(re.match(r"(/\w+)?", paths[-1])[0], "tokens")
        if ".lock" in paths[-1]:
            # Opened, and created at the first time alone.
            if name == "openat":
                continue
            kind = "locks"
        counts = found[kind]
        counts["renames"] += name.startswith("rename")
        counts["syncs"] += name in ("fsync", "fdatasync")
        counts["others"] += not name.startswith(("rename", "fsync", "fdatasync", "openat", "write", "pwrite"))
        if name in ("write", "pwrite64", "writev"):
            counts["writes"] += 1
            counts["bytes"] += result
    return found


def run_under_strace(place):
    """The counts of calls of refreshes, of saves of counts, and of tries to refresh without a network."""
    folder = place[0]
    trace = folder / "trace"

    def traced(settings, work, url=None):
        before = ["strace", "-f", "-y", "-qq", "-s", "0", "-e", WRITES, "-e", "signal=none", "-o", str(trace)]
        evertoken = Evertoken(place, settings, None, before, url)
        evertoken.said("no connection" if url else "Successfully refreshed token")
        at_start = {} if url else written(trace, folder)
        work(evertoken)
        after = written(trace, folder)
        # strace passes the signal on.
        (child,) = pathlib.Path(f"/proc/{evertoken.pid()}/task/{evertoken.pid()}/children").read_text().split()
        os.kill(int(child), signal.SIGTERM)
        evertoken.process.wait(LIMIT_S)
        for kind, counts in after.items():
            counts.subtract(at_start.get(kind, {}))
        return after

    def refresh(evertoken):
        for _ in range(REFRESHES):
            assert evertoken.ask("POST", "/-/refresh/work").status == 200

    def try_in_vain(evertoken):
        for _ in range(REFRESHES):
            assert evertoken.ask("POST", "/-/refresh/work").status == 502

    def use(evertoken):
        # With a save each second; each request is in one of its own.
        day = folder / "state/usage"
        for _ in range(SAVES):
            before = {one: one.stat().st_mtime_ns for one in day.glob("*.json")}
            answer = evertoken.ask("POST", "/v1/messages", message(10, streams=False))
            assert answer.status == 200, answer.read()
            answer.read()
            eventually("a save", lambda: {one: one.stat().st_mtime_ns for one in day.glob("*.json")} != before)

    rest = traced({"save_interval": 1}, lambda _: time.sleep(REST_S))
    assert not any(any(counts.values()) for counts in rest.values()), f"it writes at rest: {rest}"
    return (traced({"usage": False}, refresh)["tokens"], traced({"save_interval": 1}, use)["usage"],
            traced({"usage": False}, try_in_vain, UNREACHABLE)["tokens"])


def day(counts, number, times):
    """What is written in a day, if `counts` are those of `number` events, and there are `times` a day."""
    replaced = counts["renames"] / number * times
    return f"{replaced:,.0f}", f"{counts['syncs'] / number * times:,.0f}", f"{counts['bytes'] / number * times / 1024:,.0f} KB"


def table(head, rows):
    print("| " + " | ".join(head) + " |")
    print("| " + " | ".join("---" for _ in head) + " |")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("sandbox")
    parser.add_argument("--memory", type=int, default=64, help="MB")
    parser.add_argument("--core", type=int, default=10, help="per cent of one")
    options = parser.parse_args()
    assert os.geteuid() == 0, "control groups need root"
    memory = options.memory * MIB
    with tempfile.TemporaryDirectory(dir=pathlib.Path(options.program).resolve().parent) as name:
        folder = pathlib.Path(name)
        certificates(folder)
        program = folder / "evertoken"
        shutil.copy2(options.program, program)
        with Sandbox(options.sandbox, EVENT_DELAY_MS) as sandbox:
            place = folder, program, sandbox, Front(folder, sandbox.port)
            group = Group(memory, options.core)
            rows, peaks = run_in_group(place, group)
            group.close()
            print(f"{program.stat().st_size} bytes, {options.memory} MB, {options.core} % of a core\n")
            table(["", "measured"], rows)
            rows, killed = run_out_of_memory(place, memory, options.core)
            table(["", "answers", "most memory", ""], rows)
            refresh, save, in_vain = run_under_strace(place)
            # Refreshed five minutes before its end, and a tenth of that earlier at most.
            times = DAY_S / (3600 - 300)
            rows = [("a token of one hour", *day(refresh, REFRESHES, times)),
                    ("no network, however many tries", *day(in_vain, 1, 1))]
            for interval in [10, 300, 3600]:
                each = day(save, SAVES, DAY_S / interval)
                rows.append((f"counts of tokens, requests all day, `save_interval: {interval}`", *each))
            table(["", "files replaced a day", "syncs a day", "bytes a day"], rows)
            print("of one refresh:", {key: value / REFRESHES for key, value in refresh.items()})
            print("of one save:", {key: value / SAVES for key, value in save.items()})
    judge(peaks, killed, refresh, save, in_vain)


def judge(peaks, killed, refresh, save, in_vain):
    """The limits of what docs/small-machines.md promises."""
    # The last one is of the default settings, which are not for such a machine.
    with_settings = sum(list(killed.values())[:-1])
    limits = [
        ("memory at rest", peaks["at rest"], 8 * MIB),
        ("memory with streams and requests", peaks["with streams and requests"], 16 * MIB),
        ("kills with the settings for small machines", with_settings, 0),
        ("files replaced in one refresh", refresh["renames"] / REFRESHES, 2),
        ("files replaced by tries without a network", in_vain["renames"], 2),
        ("files replaced in one save", save["renames"] / SAVES, 1),
    ]
    failed = [f"{what}: {is_now}, at most {most}" for what, is_now, most in limits if is_now > most]
    print("\n".join(failed) if failed else f"{len(limits)} limits held")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
