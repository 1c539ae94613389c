#!/usr/bin/env python3
"""Measures a static program for ARM in a whole machine: qemu-system with one core and 64 MB, Debian's kernel, and a BusyBox.

small_router.py PROGRAM SANDBOX: PROGRAM is one of `contrib/dist armv7-unknown-linux-musleabihf`. It prints the table of
docs/small-machines.md. Kernel and BusyBox come from Debian's registry, into target/router. Needs qemu-system-arm, cpio, openssl.

The processor is emulated, so its times say little about a real one; the memory is real.
"""

import http.client
import json
import pathlib
import re
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import small_machine as small
from sandbox import LIMIT_S, Sandbox, certificates, configuration, eventually, own_tls

ROOT = pathlib.Path(__file__).resolve().parents[2]
HOME = ROOT / "target/router"
MEMORY_MB = 64
REQUESTS = 300
REST_S = 15
# The host, and the guest, in qemu's own network.
HOST, GUEST, PORT = "10.0.2.2", "10.0.2.15", 8443
MODULES = ["drivers/virtio/virtio_mmio.ko", "net/core/failover.ko", "drivers/net/net_failover.ko", "drivers/net/virtio_net.ko"]
KEY = "key"

INIT = """#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs state /state; chmod 700 /state
for module in {modules}; do insmod /modules/$module; done
until [ -e /sys/class/net/eth0 ]; do sleep 0.1; done
ip link set lo up; ip addr add {guest}/24 dev eth0; ip link set eth0 up; ip route add default via {host}
date -s @{now} > /dev/null
export {variables}
# Each line with the seconds since the machine began.
seconds() {{ cut -d ' ' -f 1 /proc/uptime; }}
echo "BEFORE $(seconds)"
evertoken run --config /etc/providers.yaml 2>&1 | while read -r line; do echo "LOG $(seconds) $line"; done &
while :; do
    pid=$(pidof evertoken)
    echo "MEMORY $(sed -n 's/^VmRSS:[^0-9]*//p' "/proc/$pid/status") $(sed -n 's/^MemTotal:[^0-9]*//p; s/^MemAvailable:[^0-9]*//p' /proc/meminfo | tr '\\n' ' ')"
    sleep 1
done
"""


def apt(*words, **options):
    """apt for the packages of another architecture, which leaves this machine's own alone."""
    lists, cache = HOME / "lists", HOME / "cache"
    for folder in [lists / "partial", cache / "archives/partial"]:
        folder.mkdir(parents=True, exist_ok=True)
    settings = ["APT::Architecture=armhf", "APT::Architectures=armhf", f"Dir::State::lists={lists}", f"Dir::Cache={cache}",
                "Dir::State::status=/dev/null", "APT::Sandbox::User=root"]
    return subprocess.run(["apt-get", "-qq", *(part for one in settings for part in ("-o", one)), *words], **options)


def fetch():
    """Debian's kernel and static BusyBox; returns the folder that they are unpacked in."""
    unpacked = HOME / "debian"
    if not unpacked.exists():
        HOME.mkdir(parents=True, exist_ok=True)
        # Some lists of this machine's sources may be of its own architecture alone.
        apt("update", check=False, capture_output=True)
        shown = apt("install", "--print-uris", "--no-install-recommends", "linux-image-armmp", capture_output=True, text=True)
        kernel = re.search(r"/(linux-image-\d[^_]*-armmp)_", shown.stdout)
        assert kernel, f"no kernel: {shown.stdout}{shown.stderr}"
        apt("download", kernel[1], "busybox-static", check=True, cwd=HOME)
        for package in HOME.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, HOME / "new"], check=True)
        (HOME / "new").rename(unpacked)
    return unpacked


def make_disk(folder, program, debian, variables, url):
    """The machine's only files, in memory."""
    root = folder / "root"
    for name in ["bin", "proc", "sys", "dev", "etc", "state", "modules"]:
        (root / name).mkdir(parents=True)
    shutil.copy2(debian / "bin/busybox", root / "bin")
    shutil.copy2(program, root / "bin/evertoken")
    (kernel,) = (debian / "lib/modules").iterdir()
    for module in MODULES:
        shutil.copy2(kernel / "kernel" / module, root / "modules")
    for file in ["cert.pem", "key.pem", "ca.pem"]:
        shutil.copy2(folder / file, root / "etc")
    settings = {"listen": [f"0.0.0.0:{PORT}"], "state_dir": "/state", "tls": own_tls("/etc"),
                "auth": {"enabled": True, "api_key_env": "KEY"}, **small.SMALL}
    (root / "etc/providers.yaml").write_text(configuration(url, settings, ca_file="/etc/ca.pem"))
    exports = " ".join(f"{name}={value}" for name, value in variables.items())
    modules = " ".join(pathlib.Path(module).name for module in MODULES)
    # The machine has no clock.
    now = int(time.time()) + 5
    (root / "init").write_text(INIT.format(modules=modules, guest=GUEST, host=HOST, now=now, variables=exports))
    (root / "init").chmod(0o755)
    subprocess.run("find . | cpio -o -H newc --quiet | gzip > ../disk", shell=True, cwd=root, check=True)
    return folder / "disk"


class Router(small.Evertoken):
    """The machine, and questions to the evertoken in it."""

    def __init__(self, folder, program, debian, sandbox, front):
        # Nobody keeps the port meanwhile; on a machine of tests it stays free.
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        disk = make_disk(folder, program, debian, {"KEY": KEY, **sandbox.variables()}, f"https://{HOST}:{front.url.rsplit(':', 1)[1]}")
        (kernel,) = (debian / "boot").glob("vmlinuz-*")
        arguments = ["qemu-system-arm", "-M", "virt", "-cpu", "cortex-a7", "-m", str(MEMORY_MB), "-smp", "1", "-nographic", "-no-reboot",
                     "-kernel", kernel, "-initrd", disk, "-append", "console=ttyAMA0 quiet panic=1",
                     "-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{self.port}-:{PORT}", "-device", "virtio-net-device,netdev=net"]
        self.lines, self.began = [], time.monotonic()
        self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                        errors="replace")
        # Where `read` looks.
        self.process.stderr = self.process.stdout
        threading.Thread(target=self.read, daemon=True).start()
        self.trust = ssl.create_default_context(cafile=folder / "ca.pem")

    def ask(self, method, path, body=None, connection=None):
        connection = connection or http.client.HTTPSConnection("localhost", self.port, timeout=LIMIT_S, context=self.trust)
        fields = {"content-type": "application/json", "anthropic-version": "2023-06-01", "x-api-key": KEY}
        connection.request(method, path, body and json.dumps(body), fields)
        return connection.getresponse()

    def second(self, text):
        """When the machine said this, on its own clock."""
        self.said(text)
        line = next(line for _, line in self.lines if text in line)
        return float(re.search(r"(?:BEFORE|LOG) ([\d.]+)", line)[1])

    def memory(self):
        """The program's RSS, all memory and what is available of it, in bytes, from now on."""
        known = len(self.lines)
        line = eventually("a look at the memory", lambda: next((line for _, line in self.lines[known:] if line.startswith("MEMORY")), None))
        return [int(number) * 1024 for number in re.findall(r"(\d+) kB", line)]


def main():
    program, sandbox_program = (pathlib.Path(name).resolve() for name in sys.argv[1:3])
    debian = fetch()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        certificates(folder, f"IP:{HOST}")
        with Sandbox(sandbox_program, small.EVENT_DELAY_MS) as sandbox:
            router = Router(folder, program, debian, sandbox, small.Front(folder, sandbox.port))
            try:
                measure(router)
            finally:
                router.process.kill()
                router.process.wait()


def measure(router):
    before = router.second("BEFORE")
    listening, ready = router.second("Listening on"), router.second("Successfully refreshed token")
    time.sleep(REST_S)
    rss, total, left = router.memory()
    rows = [("start until it listens / until the first token", f"{listening - before:.1f} s / {ready - before:.1f} s"),
            ("memory beside the kernel", small.mb(total)),
            ("at rest: RSS, memory left to others", f"{small.mb(rss)}, {small.mb(left)}")]
    results = []
    threads = [threading.Thread(target=small.stream, args=(router, results)) for _ in range(small.STREAMS)]
    for thread in threads:
        thread.start()
    time.sleep(small.WORDS * small.EVENT_DELAY_MS / 2000)
    rss, _, left = router.memory()
    rows.append((f"{small.STREAMS} streams, TLS on both sides: RSS, memory left to others", f"{small.mb(rss)}, {small.mb(left)}"))
    began = time.monotonic()
    assert router.ask("POST", "/-/refresh/work").status == 200
    rows.append(("a refresh meanwhile", small.ms(time.monotonic() - began)))
    for thread in threads:
        thread.join(LIMIT_S)
    assert len(results) == small.STREAMS, results
    gaps = sorted(later - earlier for times in results for earlier, later in zip(times, times[1:]))
    rows.append((f"gap between two events where the provider's is {small.EVENT_DELAY_MS} ms, median and 99 %",
                 f"{small.ms(statistics.median(gaps))}, {small.ms(gaps[len(gaps) * 99 // 100])}"))
    connection = http.client.HTTPSConnection("localhost", router.port, timeout=LIMIT_S, context=router.trust)
    began = time.monotonic()
    for _ in range(REQUESTS):
        answer = router.ask("POST", "/v1/messages", small.message(10, streams=False), connection)
        assert answer.status == 200, answer.read()
        answer.read()
    rows.append((f"{REQUESTS} requests one after the other", f"{REQUESTS / (time.monotonic() - began):.0f} a second"))
    rss, _, left = router.memory()
    rows.append(("after them: RSS, memory left to others", f"{small.mb(rss)}, {small.mb(left)}"))
    small.table(["", "measured"], rows)


if __name__ == "__main__":
    main()
