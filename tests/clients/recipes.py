"""The recipes of docs/recipes.md under the programs that they are for: google-genai, AzureOpenAI, MCP's Python client against a
server that adds a slash, and web pages in a real browser. Each request that arrives is looked at: the provider's credential
in its place, and nothing of the client's.

Needs chromium; CHROMIUM (/usr/bin/chromium) is where it is.
"""

import asyncio
import contextlib
import http.server
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading

import httpx2
from google import genai
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from openai import AzureOpenAI

from drive import ROOT, Evertoken, variables, wait_for

KEY = "inbound-key-of-the-tests"
CREDENTIALS = ("authorization", "x-api-key", "x-goog-api-key", "api-key")
COMPLETION = {
    "id": "x", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "from azure"}, "finish_reason": "stop"}],
}
CONTENT = {"candidates": [{"content": {"role": "model", "parts": [{"text": "from gemini"}]}, "finishReason": "STOP"}]}
CHROMIUM_SECONDS = 60
PAGE = """<pre id="told"></pre><script>
const told = [];
async function ask(name, path, options) {
  try {
    const answer = await fetch("URL" + path, options);
    told.push([name, answer.status, answer.headers.get("x-evertoken-error") ?? answer.headers.get("x-request-id")].join(" "));
  } catch (error) { told.push(name + " failed"); }
}
(async () => {
  const key = "KEY";
  await ask("post", "/to/azure/x", { method: "POST", headers: { "content-type": "application/json", "api-key": key }, body: "{}" });
  await ask("put", "/to/azure/x", { method: "PUT", headers: { "x-own": "1", authorization: "Bearer " + key }, body: "{}" });
  await ask("wrong", "/to/azure/x", { method: "POST", headers: { "x-api-key": "wrong" }, body: "{}" });
  await ask("nobody", "/to/nobody/x", { headers: { "x-goog-api-key": key } });
  document.getElementById("told").textContent = told.join("; ") + "; all asked";
})();
</script>"""


class Server:
    """An HTTP server on a port of its own; `seen` is what it was asked: target and credentials."""

    def __init__(self, answer):
        self.seen = seen = []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                self.rfile.read(int(self.headers.get("content-length") or 0))
                fields = {name.lower(): value for name, value in self.headers.items()}
                seen.append((self.path, {name: fields[name] for name in CREDENTIALS if name in fields}, fields))
                kind, body = answer(self.path)
                self.send_response(200)
                for name, value in {"content-type": kind, "content-length": len(body), "x-request-id": "r1",
                                    "access-control-allow-origin": "*"}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = do_POST

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def api(path):
    return "application/json", json.dumps(CONTENT if path.endswith("enerateContent") else COMPLETION).encode()


def recipe(name, url, token_url):
    """The entry of docs/recipes.md called `name`, with its servers on this machine."""
    page = (ROOT / "docs/recipes.md").read_text()
    entries = re.findall(r"```yaml\n(  - name.*?)```", page, re.DOTALL)
    entry = next(one for one in entries if f'- name: "{name}"' in one)
    entry = re.sub(r'base_url: ".*"', f'base_url: "{url}"', entry)
    return re.sub(r'token_url: ".*"', f'token_url: "{token_url}"', entry)


def check_gemini(url, provider):
    client = genai.Client(api_key=KEY, http_options={"base_url": f"{url}/to/gemini"})
    assert client.models.generate_content(model="m", contents="hi").text == "from gemini"
    path, credentials, _ = provider.seen[-1]
    assert path.endswith("/models/m:generateContent"), path
    assert credentials == {"x-goog-api-key": "key-of-gemini"}, credentials


def check_azure(url, provider):
    for name, expected in [("azure", {"api-key": "key-of-azure"}), ("azure-entra", {"authorization": "Bearer token-1"})]:
        client = AzureOpenAI(azure_endpoint=f"{url}/to/{name}", api_key=KEY, api_version="2023-05-15")
        answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
        assert answer.choices[0].message.content == "from azure"
        path, credentials, _ = provider.seen[-1]
        assert path == "/openai/deployments/m/chat/completions?api-version=2024-10-21", path
        assert credentials == expected, credentials


async def call_tool(url):
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}) as http:
        transport = streamable_http_client(f"{url}/to/tools/mcp", http_client=http)
        async with Client(transport, mode="legacy") as client:
            return (await client.call_tool("add", {"a": 2, "b": 3})).content[0].text


@contextlib.contextmanager
def mcp_server():
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tests/clients/mcp_server.py")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        yield process.stdout.readline().strip(), process.stdout
    finally:
        process.kill()
        process.wait()


def check_mcp(url, said):
    lines = []
    threading.Thread(target=lambda: lines.extend(said), daemon=True).start()
    assert asyncio.run(call_tool(url)) == "5"
    wait_for(lambda: any(line.startswith("DELETE /mcp/") for line in lines), lambda: lines)
    assert all(line.rstrip().endswith(" Bearer token-1") for line in lines), lines
    assert any(line.startswith("POST /mcp ") for line in lines), "it adds no slash"


def text_of(address):
    """The page as it is once its scripts are done, in a browser that nothing stands in the way of: Playwright would answer
    preflights itself."""
    with tempfile.TemporaryDirectory() as profile:
        chromium = [os.environ.get("CHROMIUM", "/usr/bin/chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
                    "--disable-background-networking", f"--user-data-dir={profile}", "--virtual-time-budget=10000", "--dump-dom"]
        done = subprocess.run([*chromium, address], capture_output=True, text=True, timeout=CHROMIUM_SECONDS)
    return done.stdout


def check_pages(url, listed, other, provider):
    before = len(provider.seen)
    told = text_of(listed.url)
    assert "post 200 r1; put 200 r1; wrong 401 unauthorized; nobody 404 unknown_provider" in told, told
    assert len(provider.seen) == before + 2
    assert all(credentials == {"api-key": "key-of-azure"} for _, credentials, _ in provider.seen[before:])
    told = text_of(other.url)
    assert "post failed; put failed; wrong failed; nobody failed" in told, told
    assert len(provider.seen) == before + 2, "a page that is not listed was served"


def main():
    page = lambda _: ("text/html", PAGE.replace("URL", proxy.url()).replace("KEY", KEY).encode())
    provider, listed, other = Server(api), Server(page), Server(page)
    issuer = Server(lambda _: ("application/json", b'{"access_token":"token-1","expires_in":3600}'))
    with tempfile.TemporaryDirectory() as folder, mcp_server() as (tools, said):
        folder = pathlib.Path(folder)
        (folder / ".config/gemini").mkdir(parents=True)
        (folder / ".config/gemini/key").write_text("key-of-gemini\n")
        entries = [recipe(name, provider.url, issuer.url) for name in ("Gemini", "Azure", "Azure Entra")]
        entries.append(recipe("Tools", tools, issuer.url))
        (folder / "providers.yaml").write_text(
            f'settings: {{port: 0, state_dir: "{folder}/state", allowed_origins: ["{listed.url}"],\n'
            f"  auth: {{enabled: true, api_key_env: KEY}}}}\nproviders:\n" + "".join(entries)
        )
        own = variables(KEY=KEY, HOME=str(folder), AZURE_OPENAI_API_KEY="key-of-azure", AZURE_CLIENT_ID="a", AZURE_CLIENT_SECRET="b",
                        TOOLS_CLIENT_ID="c", TOOLS_REFRESH_TOKEN="d")
        proxy = Evertoken(folder, own)
        url = proxy.url()
        check_gemini(url, provider)
        check_azure(url, provider)
        check_mcp(url, said)
        check_pages(url, listed, other, provider)
        for path, _, fields in provider.seen:
            assert KEY not in path + json.dumps(fields), (path, fields)
        proxy.stop()
        assert KEY not in (folder / "log").read_text()
    print("recipes: Gemini, Azure, MCP and web pages are served, and no key of a client arrived")


if __name__ == "__main__":
    main()
