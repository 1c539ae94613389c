"""From the address of MCP's own Python server, which is protected by a real issuer (oidc-provider), to a tool that is called
through evertoken: `login --discover`, which registers a client, a browser, a refresh, `check --online` and `logout`.

Needs chromium; CHROMIUM (/usr/bin/chromium) is where it is.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request

import anyio
import httpx2
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

from drive import BINARY, PATIENCE_SECONDS, ROOT, Evertoken, Issuer, get, wait_for
from login import Login, browse

CONFIG = """# mine
settings: {{port: 0, state_dir: "{folder}/state"}}   # the folder

providers: []
"""
LIFETIME_SECONDS = 3600


class Server:
    """MCP's server as a child process."""

    def __init__(self, issuer):
        script = ROOT / "tests/clients/mcp_protected.py"
        self.process = subprocess.Popen([sys.executable, str(script), issuer], stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()
        assert self.url, "MCP's server does not start"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


async def call(url):
    """What the tool says to MCP's own client, which has no credential."""
    with anyio.fail_after(PATIENCE_SECONDS):
        async with httpx2.AsyncClient(timeout=PATIENCE_SECONDS) as http:
            async with Client(streamable_http_client(url, http_client=http)) as client:
                return (await client.call_tool("say", {"text": "hello"})).content[0].text


def post(url):
    """The status of an empty request."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, b""), timeout=PATIENCE_SECONDS) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def run(folder, env, *arguments):
    done = subprocess.run([str(BINARY), *arguments], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    return done.stdout


def tokens(folder):
    stored = json.loads((folder / "state/tools.json").read_text())
    return stored["access"]["token"], stored["refresh_token"]


def main():
    env = {"HOME": "/nonexistent", "PATH": os.environ["PATH"]}
    with tempfile.TemporaryDirectory() as folder, Issuer(LIFETIME_SECONDS) as issuer, Server(issuer.url) as server:
        folder = pathlib.Path(folder)
        file = folder / "providers.yaml"
        file.write_text(CONFIG.format(folder=folder))
        login = Login(folder, env, "--discover", f"{server.url}/mcp", "--name", "Tools", "--write", "providers.yaml")
        address = wait_for(login.addresses, login.lines)[0]
        page = browse(address, "evertoken has its token for Tools")
        assert page["status"] == 200, page
        login.end()
        text = file.read_text()
        assert text.startswith("# mine\nsettings: ") and "   # the folder\n" in text, text

        proxy = Evertoken(folder, env)
        tool = f"{proxy.url()}/to/tools/mcp"
        valid = lambda token: get(f"{issuer.url}/control/token?{urllib.parse.urlencode({'is': token})}")
        first, _ = tokens(folder)
        assert valid(first)["aud"] == f"{server.url}/mcp", valid(first)
        assert anyio.run(call, tool) == "You said: hello"
        assert post(f"{proxy.url()}/-/refresh/tools") == 200
        access, refresh = tokens(folder)
        assert access != first, "the refresh brought the same token"
        assert anyio.run(call, tool) == "You said: hello"

        told = run(folder, env, "check", "--online")
        assert f"Tools: issuer {issuer.url}: its metadata names " in told, told
        assert f"Tools: revocation_url {issuer.url}/token/revocation: " in told, told

        told = run(folder, env, "logout", "--provider", "tools")
        assert "Revoked the refresh token.\nRevoked the access token.\n" in told, told
        assert not valid(access)["valid"]
        client = (folder / "state/tools.client-id").read_text().strip()
        form = {"grant_type": "refresh_token", "refresh_token": refresh, "client_id": client}
        asked = urllib.request.Request(f"{issuer.url}/token", urllib.parse.urlencode(form).encode())
        try:
            urllib.request.urlopen(asked, timeout=PATIENCE_SECONDS)
            raise SystemExit("the refresh token is still good")
        except urllib.error.HTTPError as error:
            assert json.load(error)["error"] == "invalid_grant"
        post(f"{proxy.url()}/-/refresh/tools")
        assert post(tool) == 403, "the running evertoken still has its token"
        proxy.stop()
    print("test-clients: discovery ok. 1 passed; 0 failed")


if __name__ == "__main__":
    sys.exit(main())
