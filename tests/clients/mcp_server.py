"""An MCP server as frameworks mount them: whoever asks for /mcp is sent to /mcp/. Prints its address, and then each request with
its credential.
"""

import contextlib
import socket

import uvicorn
from mcp.server.mcpserver import MCPServer
from starlette.applications import Starlette
from starlette.routing import Mount

server = MCPServer("tools")


@server.tool()
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


served = server.streamable_http_app(streamable_http_path="/")


@contextlib.asynccontextmanager
async def lifespan(_):
    async with server.session_manager.run():
        yield


app = Starlette(routes=[Mount("/mcp", served)], lifespan=lifespan)


async def telling(scope, receive, send):
    if scope["type"] == "http":
        credential = dict(scope["headers"]).get(b"authorization", b"").decode()
        print(scope["method"], scope["path"], credential, flush=True)
    await app(scope, receive, send)


listener = socket.socket()
listener.bind(("127.0.0.1", 0))
print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
uvicorn.Server(uvicorn.Config(telling, log_level="error")).run(sockets=[listener])
