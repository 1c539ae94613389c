"""Clients of evertoken, and the provider behind it, while a package is upgraded.

traffic.py PORT FOLDER: asks evertoken on PORT until the file FOLDER/stop is there, then prints how many answers came, and ends
with 1 if one failed. FOLDER/started is written after the first answers. The provider listens on 127.0.0.1:9009.
"""

import http.client
import http.server
import json
import pathlib
import sys
import threading
import time

PORT = int(sys.argv[1])
FOLDER = pathlib.Path(sys.argv[2])
PROVIDER_PORT = 9009
LIMIT_S = 60
EVENTS = 20
EVENT_EVERY_S = 0.02
# New connections for each request, kept connections, and streams.
CLIENTS = {"new": 6, "kept": 3, "stream": 2}


class Provider(http.server.BaseHTTPRequestHandler):
    """Answers with JSON, or with events, and says which credential came."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        if not body.get("stream"):
            text = json.dumps({"key": self.headers.get("authorization")}).encode()
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
            return
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for number in range(EVENTS):
            event = f"data: {number}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            time.sleep(EVENT_EVERY_S)
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class ToldToRepeat(http.client.RemoteDisconnected):
    """A later request on a kept connection crossed the stop."""


def ask(connection, streams):
    """One request, or an exception."""
    body = json.dumps({"model": "m", "stream": streams})
    fields = {"content-type": "application/json", "anthropic-version": "2023-06-01"}
    connection.request("POST", "/v1/messages", body, fields)
    answer = connection.getresponse()
    text = answer.read()
    if answer.headers.get("x-evertoken-error") == "shutting_down" and answer.headers.get("retry-after"):
        raise ToldToRepeat("shutting_down")
    if answer.status != 200:
        raise http.client.HTTPException(f"{answer.status} {text[:200]}")
    if streams and text.count(b"data: ") != EVENTS:
        raise http.client.HTTPException(f"a stream was cut: {text[-40:]}")
    if not streams and json.loads(text)["key"] != "Bearer a-secret":
        raise http.client.HTTPException(f"another credential: {text}")


class Client:
    def __init__(self, kind):
        self.kind = kind
        self.answers = 0
        self.failures = []
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", PORT, timeout=LIMIT_S)

    def run(self):
        connection = self.connect()
        is_used = False
        while not (FOLDER / "stop").exists():
            try:
                ask(connection, self.kind == "stream")
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                connection = self.connect()
                # A server may close a kept connection, or tell that it stops; every client asks again on a new one.
                if not (is_used and isinstance(error, (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError))):
                    self.failures.append(repr(error))
                    time.sleep(0.05)
                is_used = False
                continue
            self.answers += 1
            is_used = self.kind == "kept"
            if not is_used:
                connection.close()
                connection = self.connect()


def main():
    provider = Server(("127.0.0.1", PROVIDER_PORT), Provider)
    threading.Thread(target=provider.serve_forever, daemon=True).start()
    clients = [Client(kind) for kind, count in CLIENTS.items() for _ in range(count)]
    until = time.monotonic() + LIMIT_S
    while not all(client.answers for client in clients) and time.monotonic() < until:
        time.sleep(0.02)
    (FOLDER / "started").touch()
    for client in clients:
        client.thread.join()
    answers = sum(client.answers for client in clients)
    failures = [failure for client in clients for failure in client.failures]
    for failure in failures[:5]:
        print(failure)
    print(f"{answers} answers, {len(failures)} failures")
    sys.exit(bool(failures) or answers < len(clients))


if __name__ == "__main__":
    main()
