"""MCP's own Python server over Streamable HTTP, with events that can be resumed. Prints its address.

`GET /begin` forgets all events, so that their numbers begin anew.
"""

import socket
import sys

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.streamable_http import EventMessage, EventStore
from starlette.responses import Response

PATH = "/mcp.example.com/mcp"


class Events(EventStore):
    """All events, in memory."""

    def __init__(self):
        self.all = []

    async def store_event(self, stream_id, message):
        self.all.append((stream_id, message))
        return str(len(self.all))

    async def replay_events_after(self, last_event_id, send_callback):
        first = int(last_event_id)
        stream = self.all[first - 1][0]
        for number, (own, message) in enumerate(self.all[first:], first + 1):
            if own == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


server = MCPServer("evertoken-tests", log_level="WARNING")


@server.tool()
def say(text: str) -> str:
    """Says the text back."""
    return f"You said: {text}"


@server.tool()
async def announce(context: Context) -> str:
    """Tells the client, over its GET stream, that there are other resources."""
    await context.session.send_resource_list_changed()
    return "announced"


@server.tool()
async def long_work(context: Context) -> str:
    """Ends the answer's stream in the middle of the work; the client resumes it."""
    await context.report_progress(1, 2)
    await context.close_sse_stream()
    await context.report_progress(2, 2)
    return "done after the stream had ended"


def main():
    listener = socket.create_server(("127.0.0.1", 0))
    events = Events()

    async def begin(_):
        events.all.clear()
        return Response("{}")

    app = server.streamable_http_app(streamable_http_path=PATH, event_store=events, retry_interval=10)
    app.add_route("/begin", begin)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    sys.exit(main())
