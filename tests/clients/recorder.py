"""An HTTP server that stands where the providers would: it records each request, field by field, demands an access token that
one of the issuers granted, and then answers by a script or relays to the sandbox.

The first part of a path is the host that a program would ask (`/api.anthropic.com/v1/messages`), so one server
stands for all of them, and a record says which provider a request reached.
"""

import http.client
import http.server
import json
import sys
import threading
import urllib.parse

PATIENCE_SECONDS = 60
PIECE_BYTES = 65536
# Fields of one connection alone (RFC 9110 §7.6.1): a relay does not pass them on.
HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
# Where a client may put its credential.
CREDENTIAL_FIELDS = ("authorization", "x-api-key", "x-goog-api-key", "api-key")


class Record:
    """A request as it arrived."""

    def __init__(self, method, target, headers, body):
        self.method, self.target, self.headers, self.body = method, target, headers, body
        # The first part of the path, and the rest of the target.
        self.host, _, rest = target.removeprefix("/").partition("/")
        self.rest = "/" + rest
        # Of the answer, once its head is there.
        self.status = None

    def field(self, name):
        return next((value for own, value in self.headers if own.lower() == name), None)

    def json(self):
        return json.loads(self.body or b"{}")

    def credentials(self):
        """Each credential field that the request has, and its value without the scheme."""
        fields = [(name.lower(), value) for name, value in self.headers if name.lower() in CREDENTIAL_FIELDS]
        return [(name, value.removeprefix("Bearer ")) for name, value in fields]

    def __repr__(self):
        return f"{self.method} {self.target}"


class Answer:
    """A status, header fields, and the body in pieces, each of which is sent at once."""

    def __init__(self, status, headers, pieces):
        self.status, self.headers, self.pieces = status, headers, pieces

    @classmethod
    def json(cls, value, status=200, headers=()):
        body = json.dumps(value).encode()
        return cls(status, [("content-type", "application/json"), ("content-length", str(len(body))), *headers], [body])

    @classmethod
    def events(cls, events):
        """Server-sent events, each a pair of its name (or None) and its data."""
        named = lambda name: f"event: {name}\n" if name else ""
        pieces = [f"{named(name)}data: {json.dumps(data)}\n\n".encode() for name, data in events]
        return cls(200, [("content-type", "text/event-stream")], pieces)


def relay(record, url, path, token=None):
    """What the server at `url` answers to the same request for `path`, with `token` in the place of its credential."""
    target = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(target.hostname, target.port, timeout=PATIENCE_SECONDS)
    connection.putrequest(record.method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in record.headers:
        if name.lower() not in HOP_BY_HOP | {"content-length", "expect", *CREDENTIAL_FIELDS}:
            connection.putheader(name, value)
    if token:
        connection.putheader("authorization", f"Bearer {token}")
    if record.body or record.method in ("POST", "PUT", "PATCH"):
        connection.putheader("content-length", str(len(record.body)))
    connection.endheaders(record.body or None)
    response = connection.getresponse()
    headers = [(name, value) for name, value in response.getheaders() if name.lower() not in HOP_BY_HOP]
    return Answer(response.status, headers, iter(lambda: response.read1(PIECE_BYTES), b""))


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request, client_address):
        """A client that goes away is no news."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Recorder:
    """The server. `issuers` has the URL of a sandbox for each host of a token endpoint."""

    def __init__(self, issuers):
        self.issuers = issuers
        # The host that granted each token.
        self.tokens = {}
        self.records, self.refused = [], []
        # Answers a record, or None where nobody does.
        self.script = lambda record: None
        self.lock = threading.Lock()
        recorder = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = PATIENCE_SECONDS
            disable_nagle_algorithm = True

            def serve(self):
                recorder.serve(self)

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = serve

            def log_message(self, *_):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def begin(self, script):
        """Begins a new list of records, with answers by `script`."""
        with self.lock:
            self.records, self.refused, self.script = [], [], script

    def serve(self, handler):
        record = Record(handler.command, handler.path, list(handler.headers.items()), read_body(handler))
        try:
            answer = self.answer(record)
            record.status = answer.status
            send(handler, record, answer)
        except (ConnectionError, TimeoutError, http.client.HTTPException):
            # The client or the server behind this one went away.
            handler.close_connection = True

    def answer(self, record):
        if record.host in self.issuers and record.method == "POST":
            return self.grant(record)
        with self.lock:
            self.records.append(record)
            script = self.script
        shown = record.credentials()
        if len(shown) != 1 or shown[0][1] not in self.tokens:
            said = f"{record}: {', '.join(name for name, _ in shown) or 'nothing'} instead of one good credential"
            self.refused.append(said)
            return Answer.json({"error": {"message": said, "type": "authentication_error"}}, 401)
        return script(record) or Answer.json({"error": {"message": f"no answer to {record}"}}, 404)

    def grant(self, record):
        """Has the issuer answer a token request, and takes the token that it grants from then on."""
        answer = relay(record, self.issuers[record.host], "/oauth/token")
        body = b"".join(answer.pieces)
        if answer.status == 200:
            with self.lock:
                self.tokens[json.loads(body)["access_token"]] = record.host
        return Answer(answer.status, answer.headers, [body])

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def read_body(handler):
    if handler.headers.get("transfer-encoding", "").lower() == "chunked":
        pieces = []
        while size := int(handler.rfile.readline().split(b";")[0], 16):
            pieces.append(handler.rfile.read(size))
            handler.rfile.readline()
        while handler.rfile.readline().strip():
            pass
        return b"".join(pieces)
    return handler.rfile.read(int(handler.headers.get("content-length", "0")))


def send(handler, record, answer):
    has_body = record.method != "HEAD" and answer.status not in (204, 304)
    sized = any(name.lower() == "content-length" for name, _ in answer.headers)
    handler.send_response_only(answer.status)
    for name, value in answer.headers:
        handler.send_header(name, value)
    if has_body and not sized:
        handler.send_header("transfer-encoding", "chunked")
    handler.end_headers()
    if not has_body:
        return
    for piece in answer.pieces:
        handler.wfile.write(piece if sized else b"%x\r\n%s\r\n" % (len(piece), piece))
    if not sized:
        handler.wfile.write(b"0\r\n\r\n")
