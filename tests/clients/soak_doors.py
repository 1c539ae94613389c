"""The ways in to evertoken under soak.py: its addresses (TCP, TLS, unix sockets), WebSockets through each of them, and the
handshakes of clients that mean no good or come to nothing.

Each client here knows what it may see: evertoken's farewell at a stop, a cut at a kill, and else nothing but what it
asked for. All other things are problems, which the report names.
"""

import asyncio
import collections
import random
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time

import httpx2
import websockets.asyncio.client
import websockets.exceptions

import drive
import echoes

GOING_AWAY, NORMAL = 1001, 1000
PATIENCE_SECONDS = 30
# Of the configuration that soak.py writes.
CLIENT_HEAD_SECONDS = 3
IDLE_SECONDS = 5
# Of the idle WebSockets.
PING_SECONDS = 2
LARGE_BYTES = 1024 * 1024
HANDSHAKES = ["silent", "garbage", "plain", "slow", "left", "old", "alpn"]


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()


LOOP = Loop()


class Tunnel:
    """A WebSocket of asyncio's client, for threads. Not the client for threads itself: it reads and writes one TLS connection in two
    threads at once, which loses bytes with Python 3.11.
    """

    def __init__(self, connection):
        self.connection = connection

    def send(self, message):
        LOOP.run(self.connection.send(message))

    def recv(self, timeout):
        return LOOP.run(asyncio.wait_for(self.connection.recv(), timeout))

    def close(self):
        LOOP.run(self.connection.close())

    def leave(self):
        LOOP.loop.call_soon_threadsafe(self.connection.transport.abort)

    def wait_closed(self):
        LOOP.run(self.connection.wait_closed())

    def received_end(self):
        """The close frame that came, or None."""
        return self.connection.protocol.close_rcvd


class Door:
    """An address of evertoken, as clients reach it."""

    def __init__(self, name, url, path=None, trust=None, is_handed=False):
        self.name, self.url, self.path, self.trust, self.is_handed = name, url, path, trust, is_handed

    def http_client(self):
        if self.path:
            return httpx2.Client(transport=httpx2.HTTPTransport(uds=str(self.path)))
        return httpx2.Client(verify=self.trust or True)

    def connect(self):
        """A connection, without TLS yet."""
        if self.path:
            stream = socket.socket(socket.AF_UNIX)
            stream.settimeout(PATIENCE_SECONDS)
            stream.connect(str(self.path))
            return stream
        host, port = self.url.split("//")[1].split(":")
        return socket.create_connection((host, int(port)), PATIENCE_SECONDS)

    def open_tunnel(self, ping_interval=None):
        stream = self.connect()
        address = self.url.replace("http", "ws", 1) + "/to/websocket/v1/realtime?model=m"
        options = {"ssl": self.trust, "server_hostname": "127.0.0.1"} if self.trust else {}
        stream.setblocking(False)
        connecting = websockets.asyncio.client.connect(
            address, sock=stream, proxy=None, max_size=None, ping_interval=ping_interval, compression=None,
            open_timeout=PATIENCE_SECONDS, close_timeout=PATIENCE_SECONDS, **options,
        )
        return Tunnel(LOOP.run(wait_for(connecting)))


async def wait_for(awaitable):
    return await awaitable


class Counts:
    """What the clients of the doors saw, and what none of them may see."""

    def __init__(self):
        self.lock = threading.Lock()
        self.seen = collections.Counter()
        self.problems = []

    def add(self, what, count=1):
        with self.lock:
            self.seen[what] += count

    def problem(self, what):
        with self.lock:
            self.problems.append(f"{time.strftime('%H:%M:%S', time.gmtime())} {what}")


class Tunnels:
    """WebSockets through one door of `host`, whose kills and stops are counted before they happen."""

    def __init__(self, host, door, running, counts, seed):
        self.host, self.door, self.running, self.counts = host, door, running, counts
        self.rng = random.Random(seed)

    def threads(self, idle):
        """Some that are idle all the time, one that echoes, one that comes and goes, and one that is silent for too long."""
        talks = [(self.rest, PING_SECONDS)] * idle + [(self.echo, None), (self.come_and_go, None), (self.be_silent, None)]
        return [threading.Thread(target=self.again_and_again, args=talk) for talk in talks]

    def again_and_again(self, talk, ping_interval):
        while self.running.is_set():
            kills, stops = self.host.over
            try:
                connection = self.door.open_tunnel(ping_interval)
            except Exception as error:
                self.note_refusal(error)
                time.sleep(self.rng.uniform(0.05, 0.3))
                continue
            self.counts.add(f"tunnels opened: {self.door.name}")
            try:
                expected = talk(connection)
                connection.close()
                self.check_end(connection, expected, kills, stops)
            except websockets.exceptions.ConnectionClosed as closed:
                self.check_end(connection, (), kills, stops, f"{talk.__name__}: {closed.__cause__!r}")
            except Exception as error:
                self.counts.problem(f"{self.door.name}, {talk.__name__}: {error!r}")
            finally:
                connection.leave()

    def note_refusal(self, error):
        if isinstance(error, websockets.exceptions.InvalidStatus):
            status = error.response.status_code
            self.counts.add(f"tunnels refused: {status}")
            if status in (401, 403):
                self.counts.problem(f"{self.door.name}: a handshake got {status}: {error.response.body}")
            return
        self.counts.add("tunnels not opened")
        if self.door.is_handed and isinstance(error, (ConnectionRefusedError, FileNotFoundError)):
            self.counts.problem(f"{self.door.name}: nobody listens: {error!r}")

    def check_end(self, connection, expected, kills, stops, told=""):
        """`expected`: the codes of the end that was asked for, None for a cut."""
        received = connection.received_end()
        code, reason = (received.code, received.reason) if received else (None, "")
        if code in expected:
            return self.counts.add(f"tunnels ended as asked: {code or 'cut'}")
        if code == GOING_AWAY and reason == "evertoken is stopping" and self.host.stops > stops:
            return self.counts.add("tunnels ended by a stop with 1001")
        if code is None and self.host.kills > kills:
            return self.counts.add("tunnels cut by a kill")
        self.counts.problem(f"{self.door.name}: a tunnel ended with {code} {reason!r}, not with one of {expected} {told}")

    def pass_messages(self, connection, messages):
        for message in messages:
            connection.send(message)
        for message in messages:
            try:
                echoed = connection.recv(timeout=PATIENCE_SECONDS)
            except TimeoutError:
                self.counts.add("messages LOST")
                raise
            if echoed != message:
                self.counts.add("messages WRONG")
                raise ValueError(f"sent {message[:40]!r} ({len(message)}), got {echoed[:40]!r} ({len(echoed)})")
        self.counts.add("messages", len(messages))

    def messages(self, first):
        """Some messages, numbered from `first`."""
        sizes = [self.rng.choice([0, 10, 1000, 20_000]) for _ in range(self.rng.randint(1, 5))]
        if self.rng.random() < 0.01:
            sizes.append(LARGE_BYTES)
        return [struct.pack(">Q", first + index) + self.rng.randbytes(size) for index, size in enumerate(sizes)]

    def rest(self, connection):
        while self.running.is_set():
            try:
                said = connection.recv(timeout=1)
                raise ValueError(f"an idle tunnel got {said[:40]!r}")
            except TimeoutError:
                pass
        self.pass_messages(connection, ["after all that time"])
        self.counts.add("idle tunnels that passed a message at the end")
        return (NORMAL,)

    def echo(self, connection):
        number = 0
        while self.running.is_set():
            messages = self.messages(number)
            number += len(messages)
            self.pass_messages(connection, messages)
            time.sleep(self.rng.uniform(0.005, 0.05))
        return (NORMAL,)

    def come_and_go(self, connection):
        self.pass_messages(connection, self.messages(0))
        time.sleep(self.rng.uniform(0.05, 0.3))
        end = self.rng.choice(["own", "own", "close", "abort", "leave"])
        if end == "own":
            return (NORMAL,)
        if end == "leave":
            connection.leave()
            connection.wait_closed()
            return (None,)
        connection.send(echoes.CLOSE if end == "close" else echoes.ABORT)
        try:
            connection.recv(timeout=PATIENCE_SECONDS)
            raise ValueError("a message came instead of an end")
        except websockets.exceptions.ConnectionClosed:
            return (echoes.CLOSE_CODE if end == "close" else None,)

    def be_silent(self, connection):
        try:
            connection.recv(timeout=IDLE_SECONDS + PATIENCE_SECONDS)
            raise ValueError("a message came")
        except websockets.exceptions.ConnectionClosed as closed:
            if closed.rcvd and "timeouts.idle" in closed.rcvd.reason:
                self.counts.add("tunnels ended for their silence with 1001")
                return (GOING_AWAY,)
            raise


class Authority:
    """Signs certificates for this machine, and replaces that of evertoken."""

    def __init__(self, folder):
        self.folder = folder
        self.serial = 0
        self.certificate, self.key = folder / "ca.pem", folder / "ca-key.pem"
        self.openssl("req", "-x509", *self.new_key(0), "-days", "30", "-subj", "/CN=Soak", "-keyout", self.key, "-out", self.certificate)
        self.trust = ssl.create_default_context(cafile=self.certificate)
        self.of_evertoken = folder / "cert.pem", folder / "key.pem"
        self.replace(*self.of_evertoken)

    def openssl(self, *arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=PATIENCE_SECONDS)

    def new_key(self, number):
        kinds = [["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], ["rsa:2048"], ["ed25519"], ["ec", "-pkeyopt", "ec_paramgen_curve:P-384"]]
        return ["-nodes", "-newkey", *kinds[number % len(kinds)]]

    def replace(self, certificate, key):
        """Puts a new pair in place, one file after the other, as programs do that renew them; returns its number."""
        self.serial += 1
        request, extensions = self.folder / "request", self.folder / "extensions"
        extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
        new_key, new = self.folder / "new-key", self.folder / "new-cert"
        self.openssl("req", "-new", *self.new_key(self.serial), "-subj", "/CN=localhost", "-keyout", new_key, "-out", request)
        self.openssl("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key, "-days", "7", "-extfile", extensions,
                     "-set_serial", self.serial, "-out", new)
        new_key.rename(key)
        new.rename(certificate)
        return self.serial


class Handshakes:
    """TLS handshakes that come to nothing, and certificates that change, at the door `door` of `host`."""

    def __init__(self, host, door, running, counts, seed, authority, replace_every):
        self.host, self.door, self.running, self.counts = host, door, running, counts
        self.rng = random.Random(seed)
        self.authority, self.replace_every = authority, replace_every

    def threads(self):
        return [threading.Thread(target=self.shake), threading.Thread(target=self.renew)]

    def shake(self):
        while self.running.is_set():
            kind = self.rng.choice(HANDSHAKES)
            before = self.host.over
            try:
                with self.door.connect() as stream:
                    getattr(self, f"shake_{kind}")(stream)
                self.counts.add(f"handshakes: {kind}")
            except Exception as error:
                # In a stop the waiting handshakes end at once, and at a kill everything does.
                if (self.host.kills, self.host.stops) == before:
                    self.counts.problem(f"{self.door.name}, a handshake that is {kind}: {error!r}")
            time.sleep(self.rng.uniform(0.02, 0.3))

    def shake_silent(self, stream):
        """Nothing comes: the head's deadline ends it."""
        begun = time.monotonic()
        rest = stream.recv(1)
        assert rest == b"" and time.monotonic() - begun < CLIENT_HEAD_SECONDS + 5, rest

    def shake_garbage(self, stream):
        stream.sendall(self.rng.randbytes(self.rng.randint(1, 3000)))
        stream.shutdown(socket.SHUT_WR)
        read_to_the_end(stream)

    def shake_plain(self, stream):
        stream.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = read_to_the_end(stream)
        assert answer.startswith(b"HTTP/1.1 400 "), answer

    def shake_slow(self, stream):
        """A good handshake, in single bytes for a while."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self.authority.trust.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        finish(stream, tls, incoming, outgoing, tls.do_handshake, slow=20)
        tls.write(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = finish(stream, tls, incoming, outgoing, lambda: tls.read(1000))
        assert answer.startswith(b"HTTP/1.1 200 "), answer

    def shake_left(self, stream):
        """The client leaves in the middle, with a reset."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self.authority.trust.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            hello = outgoing.read()
            stream.sendall(hello[:self.rng.randint(1, len(hello))])
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def shake_old(self, stream):
        """TLS 1.1."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        self.refused(context, stream)

    def shake_alpn(self, stream):
        """HTTP/2 alone."""
        context = ssl.create_default_context(cafile=self.authority.certificate)
        context.set_alpn_protocols(["h2"])
        self.refused(context, stream)

    def refused(self, context, stream):
        try:
            context.wrap_socket(stream, server_hostname="127.0.0.1").read(1)
        except ssl.SSLError as error:
            assert "alert" in str(error), error
        else:
            raise AssertionError("the handshake was taken")

    def renew(self):
        """Replaces the certificate, now and then by rubbish first, and looks for it in handshakes."""
        certificate, key = self.authority.of_evertoken
        while self.wait(self.replace_every):
            # A start refuses files that do not fit each other.
            with self.host.starting:
                if self.rng.random() < 0.3:
                    certificate.write_text("rubbish")
                    self.wait(3)
                number = self.authority.replace(certificate, key)
            deadline = time.monotonic() + PATIENCE_SECONDS
            while self.shown() != number:
                if time.monotonic() > deadline:
                    self.counts.problem(f"certificate {number} is not shown")
                    break
                time.sleep(0.2)
            else:
                self.counts.add("certificates replaced")

    def wait(self, seconds):
        """False if the run is over before that."""
        until = time.monotonic() + seconds
        while self.running.is_set() and time.monotonic() < until:
            time.sleep(0.2)
        return self.running.is_set()

    def shown(self):
        """The number of the certificate that a new client sees; None if it can't connect."""
        try:
            with self.authority.trust.wrap_socket(self.door.connect(), server_hostname="127.0.0.1") as stream:
                return int(stream.getpeercert()["serialNumber"], 16)
        except OSError:
            return None


def read_to_the_end(stream):
    """All that comes; a reset is an end as well."""
    read = b""
    try:
        while piece := stream.recv(4096):
            read += piece
    except ConnectionResetError:
        pass
    return read


def finish(stream, tls, incoming, outgoing, step, slow=0):
    """Does `step` of `tls` over the stream; the first `slow` bytes go out one by one."""
    while True:
        try:
            result, is_done = step(), True
        except ssl.SSLWantReadError:
            result, is_done = None, False
        out = outgoing.read()
        for index in range(min(slow, len(out))):
            stream.sendall(out[index:index + 1])
            time.sleep(0.01)
        stream.sendall(out[slow:])
        if is_done:
            return result
        slow = 0
        read = stream.recv(65536)
        if not read:
            raise ConnectionResetError("the connection ended")
        incoming.write(read)


class Echoes:
    """echoes.py as a child process."""

    def __init__(self, sandbox_url, certificate, key):
        command = [sys.executable, drive.ROOT / "tests/clients/echoes.py", sandbox_url, certificate, key]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.plain, self.tls = (int(self.process.stdout.readline()) for _ in range(2))

    def close(self):
        self.process.kill()
        self.process.wait()
