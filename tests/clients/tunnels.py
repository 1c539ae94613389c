"""WebSockets through evertoken, between programs of others: the websockets package at both ends, OpenAI's realtime client,
Codex, which tries a WebSocket before it uses HTTP, and a page in Chromium.
"""

import http.server
import json
import os
import pathlib
import socket
import struct
import subprocess
import tempfile
import threading
import urllib.parse

import openai
import websockets.exceptions
import websockets.frames
import websockets.sync.client
import websockets.sync.server
from drive import Evertoken, get, wait_for
from scenarios import child

KEY = "a-key-of-the-clients-1234"
QUESTION = "Say the word evertoken."
LARGE = os.urandom(1024 * 1024)
CONFIG = """
settings:
  port: 0
  state_dir: "{folder}/state"
  shutdown_grace: 1
  auth: {{ enabled: true, api_key_env: KEY }}
providers:
  - name: Provider
    type: openai
    base_url: "http://127.0.0.1:{port}"
    auto_refresh_config:
      token_url: "http://127.0.0.1:{issuer}/token"
      client_id_env: ID
      refresh_token_env: SEED
      client_auth: none
"""


class Issuer(http.server.BaseHTTPRequestHandler):
    """Gives out `token-1`, `token-2` and so on."""

    issued = 0

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        Issuer.issued += 1
        body = json.dumps({"access_token": f"token-{Issuer.issued}", "expires_in": 3600}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Provider:
    """Takes the second token alone, so that the first handshake needs a newer one; remembers the handshakes."""

    def __init__(self):
        self.handshakes, self.closed, self.reports = [], [], []
        self.server = websockets.sync.server.serve(
            self.talk, "127.0.0.1", 0, process_request=self.look, select_subprotocol=self.choose, max_size=None
        )
        self.port = self.server.socket.getsockname()[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def look(self, connection, request):
        if "upgrade" not in request.headers:
            return connection.respond(404, "There are WebSockets alone here")
        self.handshakes.append(request)
        if request.headers["authorization"] != "Bearer token-2":
            return connection.respond(401, "The token is not valid")
        return None

    def choose(self, _, offered):
        assert not any(KEY in one for one in offered), offered
        return offered[0] if offered else None

    def talk(self, connection):
        path = urllib.parse.urlsplit(connection.request.path).path
        report = lambda one: self.reports.extend(one)
        kinds = {
            "/v1/echo": echo,
            "/v1/ping": ping,
            "/v1/reset": reset,
            "/v1/realtime": realtime,
            "/v1/responses": responses,
            "/v1/report": report,
        }
        try:
            kinds[path](connection)
        except websockets.exceptions.ConnectionClosed as closed:
            self.closed.append(closed.rcvd and closed.rcvd.code)


def echo(connection):
    while True:
        connection.send(connection.recv())


def ping(connection):
    connection.send("pong" if connection.ping().wait(10) else "no pong came")


def reset(connection):
    """Ends in the middle of a frame, as a provider does that dies."""
    connection.recv()
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.socket.sendall(b"\x82\x7e\xff\xffhalf a frame")
    connection.socket.close()


def realtime(connection):
    connection.send(json.dumps({"type": "session.created", "event_id": "e1", "session": {"type": "realtime"}}))
    for message in connection:
        asked = json.loads(message)
        if asked["type"] == "response.create":
            said = {"type": "response.output_text.delta", "event_id": "e2", "response_id": "r", "item_id": "i"}
            connection.send(json.dumps({**said, "output_index": 0, "content_index": 0, "delta": "hello"}))


def responses(connection):
    """As OpenAI's Responses API over a WebSocket: a message asks, and the events are those of a stream."""
    for message in connection:
        asked = json.loads(message)
        assert asked["type"] == "response.create", asked
        events = [{"type": "response.created", "response": {"id": "r1"}}]
        # Codex asks once without an answer, so that the connection is ready.
        if asked.get("generate", True):
            text = [part["text"] for item in asked["input"] for part in item.get("content", []) if "text" in part][-1]
            said = [{"type": "output_text", "text": f"You said: {text}"}]
            item = {"type": "message", "role": "assistant", "id": "m1", "content": said}
            events.append({"type": "response.output_item.done", "output_index": 0, "item": item})
        usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
        events.append({"type": "response.completed", "response": {"id": "r1", "usage": usage}})
        for event in events:
            connection.send(json.dumps(event))


class World:
    def __init__(self, folder):
        self.provider = Provider()
        issuer = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Issuer)
        threading.Thread(target=issuer.serve_forever, daemon=True).start()
        text = CONFIG.format(folder=folder, port=self.provider.port, issuer=issuer.server_port)
        (folder / "providers.yaml").write_text(text)
        self.evertoken = Evertoken(folder, {"HOME": "/nonexistent", "KEY": KEY, "ID": "id", "SEED": "seed"})
        self.url = self.evertoken.url()
        self.address = self.url.replace("http:", "ws:")

    def connect(self, path, **more):
        return websockets.sync.client.connect(
            self.address + path, additional_headers={"x-api-key": KEY}, max_size=None, proxy=None, **more
        )


def messages(world):
    """Both ends are the websockets package, with and without its compression."""
    for compression in ["deflate", None]:
        with world.connect("/v1/echo", compression=compression) as connection:
            for message in ["", "text", b"\0\xff", LARGE, "é" * 70_000]:
                connection.send(message)
                assert connection.recv() == message
            connection.send(["one ", "message ", "in fragments"])
            assert connection.recv() == "one message in fragments"
            assert connection.ping().wait(10), "no pong came"
            connection.close(4321, "a code of our own")
        wait_for(lambda: 4321 in world.provider.closed)
        world.provider.closed.clear()
    assert len(world.provider.handshakes) == 3, "the first one came again with a newer token"
    extensions = [one.headers.get("sec-websocket-extensions", "") for one in world.provider.handshakes]
    assert ["permessage-deflate" in one for one in extensions] == [True, True, False], extensions


def abrupt_ends(world):
    """A side that dies is seen as such by the other, and in the log."""
    with world.connect("/v1/ping") as connection:
        assert connection.recv() == "pong"
    with world.connect("/v1/reset") as connection:
        connection.send("die")
        try:
            connection.recv()
        except websockets.exceptions.ConnectionClosedError as closed:
            assert closed.rcvd is None, closed
    wait_for(lambda: any("/v1/reset -> 101" in line and "the provider broke off" in line for line in world.evertoken.lines()))
    connection = world.connect("/v1/echo")
    world.provider.closed.clear()
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.socket.close()
    wait_for(lambda: world.provider.closed == [None], lambda: world.provider.closed)
    wait_for(lambda: any("/v1/echo -> 101" in line and "the client went away" in line for line in world.evertoken.lines()))


NODE = """
const socket = new WebSocket("ADDRESS/v1/echo", ["realtime", "openai-insecure-api-key.KEY"]);
socket.binaryType = "arraybuffer";
socket.onopen = () => socket.send(new Uint8Array(3_000_000));
socket.onmessage = (event) => socket.close(4001, String(event.data.byteLength));
socket.onerror = (event) => { throw event.error ?? new Error(event.message); };
socket.onclose = (event) => console.log(event.code, event.reason, event.wasClean, socket.protocol);
"""


def node_client(world, folder):
    """The WebSocket that Node has of its own."""
    script = NODE.replace("ADDRESS", world.address).replace("KEY", KEY)
    printed = child.run(["node", "--experimental-websocket", "-e", script], folder, child.environment(folder))
    assert printed == "4001 3000000 true realtime\n", printed


def refusals(world):
    for headers, path, status in [({}, "/v1/echo", 401), ({"x-api-key": KEY}, "/to/nobody/", 404)]:
        try:
            websockets.sync.client.connect(world.address + path, additional_headers=headers, proxy=None)
        except websockets.exceptions.InvalidStatus as refused:
            assert refused.response.status_code == status, refused
        else:
            raise AssertionError("it was let in")


def realtime_client(world):
    """OpenAI's own client."""
    client = openai.OpenAI(base_url=f"{world.url}/v1", api_key=KEY)
    with client.realtime.connect(model="gpt-realtime") as connection:
        assert connection.recv().type == "session.created"
        connection.session.update(session={"type": "realtime", "instructions": "Be brief"})
        connection.response.create()
        event = connection.recv()
        assert (event.type, event.delta) == ("response.output_text.delta", "hello"), event
    seen = world.provider.handshakes[-1]
    assert seen.path == "/v1/realtime?model=gpt-realtime", seen
    assert KEY not in str(seen.headers), seen


def key_among_subprotocols(world):
    """As OpenAI's clients in browsers send it, which can set no header."""
    offered = ["realtime", f"openai-insecure-api-key.{KEY}"]
    with websockets.sync.client.connect(world.address + "/v1/realtime?model=m", subprotocols=offered, proxy=None) as connection:
        assert connection.subprotocol == "realtime"
        assert json.loads(connection.recv())["type"] == "session.created"
    assert world.provider.handshakes[-1].headers.get_all("sec-websocket-protocol") == ["realtime"]


PAGE = """<!doctype html><script>
const protocols = ["realtime", "openai-insecure-api-key.KEY"];
const socket = new WebSocket("ADDRESS/v1/echo", protocols);
socket.binaryType = "arraybuffer";
socket.onopen = () => socket.send(new Uint8Array(200000));
socket.onmessage = (event) => socket.close(4000, String(event.data.byteLength));
socket.onclose = (event) => {
  const report = new WebSocket("ADDRESS/v1/report", protocols);
  report.onopen = () => report.send(`${event.code} ${event.reason} ${event.wasClean} ${socket.protocol}`);
};
</script>"""


def page_in_chromium(world, folder):
    """A page opens a WebSocket, sends a message, closes it, and tells how that went."""
    page = folder / "page.html"
    page.write_text(PAGE.replace("ADDRESS", world.address).replace("KEY", KEY))
    words = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile", page.as_uri()]
    browser = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: world.provider.reports, world.evertoken.lines)
    finally:
        browser.terminate()
        browser.wait()
    assert world.provider.reports == ["4000 200000 true realtime"], world.provider.reports


def codex(world, folder):
    """Its built-in provider gets its answer over the WebSocket, in one try."""
    if why := child.missing("codex", "codex"):
        return print(f"Codex is left out: {why}")
    home = folder / "codex"
    (home / ".codex").mkdir(parents=True)
    (home / ".codex/config.toml").write_text(f'openai_base_url = "{world.url}/v1"\n')
    env = child.environment(home, CODEX_API_KEY=KEY)
    program = child.NPM / "codex/node_modules/.bin/codex"
    world.provider.handshakes.clear()
    printed = child.run([program, "exec", "--skip-git-repo-check", "--json", QUESTION], home, env, "")
    items = [json.loads(line).get("item", {}) for line in printed.splitlines()]
    said = [item["text"] for item in items if item.get("type") == "agent_message"]
    assert said == [f"You said: {QUESTION}"], printed
    paths = [one.path for one in world.provider.handshakes]
    assert paths == ["/v1/responses"], paths
    posted = [line for line in world.evertoken.lines() if "POST /v1/responses" in line]
    assert not posted, posted


def stop(world):
    """Both ends learn of a stop by the code 1001."""
    world.provider.closed.clear()
    with world.connect("/v1/echo") as connection:
        connection.send("still open")
        assert connection.recv() == "still open"
        tunnels = get(f"{world.url}/-/status?key={KEY}")["providers"][0]["tunnels"]
        assert tunnels["open"] == 1 and tunnels["received_bytes"] > len(LARGE), tunnels
        world.evertoken.process.terminate()
        try:
            connection.recv()
        except websockets.exceptions.ConnectionClosed as closed:
            assert closed.rcvd.code == websockets.frames.CloseCode.GOING_AWAY, closed
        else:
            raise AssertionError("a message came")
    wait_for(lambda: world.provider.closed == [1001], lambda: world.provider.closed)
    assert world.evertoken.process.wait(20) == 0


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        world = World(folder)
        try:
            messages(world)
            abrupt_ends(world)
            node_client(world, folder)
            refusals(world)
            realtime_client(world)
            key_among_subprotocols(world)
            page_in_chromium(world, folder)
            codex(world, folder)
            stop(world)
        except BaseException:
            print("\n".join(world.evertoken.lines()[-30:]))
            world.evertoken.kill()
            raise
    print("WebSockets pass between the programs of others")


if __name__ == "__main__":
    main()
