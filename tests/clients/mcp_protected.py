"""MCP's own Python server as a protected resource: its metadata names the issuer, which judges the tokens. Prints its address.

python mcp_protected.py ISSUER
"""

import json
import socket
import sys
import urllib.parse
import urllib.request

import uvicorn
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer

issuer = sys.argv[1]
listener = socket.create_server(("127.0.0.1", 0))
url = f"http://127.0.0.1:{listener.getsockname()[1]}"


class Verifier:
    """Asks the issuer what a token is good for."""

    async def verify_token(self, token):
        asked = urllib.parse.urlencode({"is": token})
        with urllib.request.urlopen(f"{issuer}/control/token?{asked}", timeout=20) as answer:
            found = json.load(answer)
        if not found["valid"]:
            return None
        scopes = (found.get("scope") or "").split()
        return AccessToken(token=token, client_id=found["client"], scopes=scopes, resource=found.get("aud"))


server = MCPServer(
    "protected",
    log_level="WARNING",
    token_verifier=Verifier(),
    auth=AuthSettings(
        issuer_url=issuer, resource_server_url=f"{url}/mcp", required_scopes=["read"], validate_token_resource=True,
    ),
)


@server.tool()
def say(text: str) -> str:
    """Says the text back."""
    return f"You said: {text}"


print(url, flush=True)
uvicorn.Server(uvicorn.Config(server.streamable_http_app(), log_level="warning")).run(sockets=[listener])
