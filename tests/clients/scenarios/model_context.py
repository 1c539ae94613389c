"""MCP's Python client with MCP's own server: a session, its GET stream, an answer that is resumed, a redirect."""

import subprocess
import sys

import anyio
import httpx2
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

import drive
import recorder
from scenarios import child

HOST = "mcp.example.com"
SECONDS = 60


class Server:
    """The server as a child process, which serves all scenarios."""

    process, url = None, None

    @classmethod
    def begin(cls, _):
        if cls.process is None:
            command = [sys.executable, "-m", "scenarios.mcp_server"]
            cls.process = subprocess.Popen(command, cwd=child.ROOT / "tests/clients", stdout=subprocess.PIPE, text=True)
            cls.url = cls.process.stdout.readline().strip()
            assert cls.url, "MCP's server does not start"
        drive.get(f"{cls.url}/begin")
        return lambda record: recorder.relay(record, cls.url, record.target)

    @classmethod
    def end(cls):
        if cls.process:
            cls.process.kill()
            cls.process.wait()
            cls.process.stdout.close()


async def connected(side, path, mode, use):
    """What `use` gives for a client of the server."""
    heard = []

    async def hear(message):
        heard.append(type(getattr(message, "root", message)).__name__)

    headers = {"authorization": f"Bearer {side.credential}"}
    with anyio.fail_after(SECONDS):
        async with httpx2.AsyncClient(headers=headers, timeout=SECONDS) as http:
            transport = streamable_http_client(side.provider + path, http_client=http)
            async with Client(transport, mode=mode, message_handler=hear) as client:
                return await use(side, client, heard)


async def session(side, client, heard):
    """Tools, a notification over the GET stream, and an answer whose stream ends before it is whole."""
    tools = [tool.name for tool in (await client.list_tools()).tools]
    said = text(await client.call_tool("say", {"text": "hello"}))
    await stream_is_open(side)
    announced = text(await client.call_tool("announce", {}))
    await until(lambda: "ResourceListChangedNotification" in heard)
    progress = []

    async def on_progress(done, whole, _):
        progress.append((done, whole))

    resumed = text(await client.call_tool("long_work", {}, progress_callback=on_progress))
    ids = [record.field("last-event-id") for record in side.world.recorder.records]
    assert any(ids), "the client did not resume the stream"
    assert tools == ["say", "announce", "long_work"] and said == "You said: hello", (tools, said)
    return tools, said, announced, resumed, progress


async def one_call(side, client, heard):
    return text(await client.call_tool("say", {"text": "hello"}))


async def call_in_session(side, client, heard):
    """One that does not end before the stream is open, which would then be asked for or not."""
    await stream_is_open(side)
    return await one_call(side, client, heard)


async def stream_is_open(side):
    """Waits for the server's way to the client: what is said before is not heard. A redirect leads to it."""
    requests = lambda: [record for record in side.world.recorder.records if record.method == "GET"]
    await until(lambda: any(record.status == 200 for record in requests()))


def text(result):
    return result.content[0].text


async def until(condition):
    while not condition():
        await anyio.sleep(0.01)


def of(path, mode, use):
    return lambda side: anyio.run(connected, side, path, mode, use)


# Which event the server sends before it ends a stream is a matter of moments.
VARYING = ((r"^last-event-id: \d+", "last-event-id: (number)"),)
COMMON = {
    "varying": VARYING, "host": HOST, "slug": "tools", "says": ("http://127.0.0.1:8080/to/tools/mcp",), "script": Server.begin,
}
SCENARIOS = [
    {"name": "MCP, a session with its GET stream and a resumed answer", "run": of("/mcp", "legacy", session), **COMMON},
    {"name": "MCP 2026-07-28, without a session", "run": of("/mcp", "auto", one_call), **COMMON},
    {"name": "MCP, a redirect to the path without its last slash", "run": of("/mcp/", "legacy", call_in_session), **COMMON},
]
