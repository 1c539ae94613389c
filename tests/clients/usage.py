"""The tokens that evertoken counts, compared with what the official SDKs were told: to the token, by model and key, whole and
as streams, from the sandbox and from a provider that speaks Gemini; on the page's JSON and by `evertoken usage`."""

import http.server
import json
import os
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections import Counter
from pathlib import Path

import anthropic
import openai
from google import genai
from google.genai import types

import apis

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "target/release/evertoken"
SAID = "one two three"
CONFIG = """
settings: {{port: 0, state_dir: "{folder}/state", auth: {{enabled: true, api_key_env: KEYS}}}}
providers:
  - {{name: Sandbox, type: generic, base_url: "{url}", auth_value_env: SANDBOX_TOKEN}}
  - {{name: Gemini, type: generic, base_url: "{gemini}", auth_type: none}}
"""
METADATA = {
    "promptTokenCount": 100, "cachedContentTokenCount": 40, "candidatesTokenCount": 20, "thoughtsTokenCount": 7,
    "totalTokenCount": 127,
}


class Gemini(http.server.BaseHTTPRequestHandler):
    """Answers whole, or as two events, of which the second has the final numbers."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        part = {"candidates": [{"content": {"role": "model", "parts": [{"text": '"usageMetadata":{'}]}, "index": 0}]}
        last = {**part, "usageMetadata": METADATA, "modelVersion": "gemini-3-flash"}
        if "stream" in self.path:
            first = {**part, "usageMetadata": {"promptTokenCount": 100, "totalTokenCount": 100}}
            body, kind = "".join(f"data: {json.dumps(one)}\r\n\r\n" for one in (first, last)), "text/event-stream"
        else:
            body, kind = json.dumps(last, indent=2), "application/json"
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


def start(folder, url, gemini, token):
    """evertoken, and its URL."""
    (folder / "providers.yaml").write_text(CONFIG.format(folder=folder, url=url, gemini=gemini))
    environment = {**os.environ, "KEYS": "first: key-one\nsecond: key-two", "SANDBOX_TOKEN": token}
    program = subprocess.Popen([PROGRAM, "run"], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    for line in program.stderr:
        if "Listening on" in line:
            threading.Thread(target=program.stderr.read, daemon=True).start()
            return program, line.split()[-1]
    raise SystemExit("evertoken did not start")


def of_anthropic(usage):
    return {
        "input": usage.input_tokens, "output": usage.output_tokens,
        "cache_read": usage.cache_read_input_tokens or 0, "cache_write": usage.cache_creation_input_tokens or 0,
    }


def of_openai(all_input, output, details):
    cached = (details and details.cached_tokens) or 0
    return {"input": all_input - cached, "output": output, "cache_read": cached, "cache_write": 0}


def ask_messages(url, key):
    client = anthropic.Anthropic(base_url=f"{url}/to/sandbox", auth_token=key, max_retries=0)
    asked = {"model": "claude-x", "max_tokens": 8, "messages": [{"role": "user", "content": SAID}]}
    yield "claude-x", of_anthropic(client.messages.create(**asked).usage)
    with client.messages.stream(**asked) as stream:
        yield "claude-x", of_anthropic(stream.get_final_message().usage)
    client.messages.count_tokens(model="claude-x", messages=asked["messages"])


def ask_openai(url, key):
    client = openai.OpenAI(base_url=f"{url}/to/sandbox/v1", api_key=key, max_retries=0)
    said = [{"role": "user", "content": SAID}]
    chat = lambda usage: of_openai(usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens_details)
    yield "gpt-x", chat(client.chat.completions.create(model="gpt-x", messages=said).usage)
    options = {"include_usage": True}
    *_, last = client.chat.completions.create(model="gpt-x", messages=said, stream=True, stream_options=options)
    yield "gpt-x", chat(last.usage)
    # A stream that reports nothing is unknown.
    list(client.chat.completions.create(model="gpt-silent", messages=said, stream=True))
    yield "gpt-silent", {"unknown": 1}
    answer = lambda usage: of_openai(usage.input_tokens, usage.output_tokens, usage.input_tokens_details)
    yield "gpt-y", answer(client.responses.create(model="gpt-y", input=SAID, instructions="be kind " * 400).usage)
    with client.responses.stream(model="gpt-y", input=SAID, instructions="be kind " * 400) as stream:
        yield "gpt-y", answer(stream.get_final_response().usage)
    embedded = client.embeddings.create(model="embed-x", input=[SAID, SAID]).usage
    yield "embed-x", of_openai(embedded.prompt_tokens, 0, None)


def ask_gemini(url, key):
    # The SDK can send the key only as its own.
    options = types.HttpOptions(base_url=f"{url}/to/gemini")
    client = genai.Client(api_key=key, http_options=options)
    usage = lambda told: {
        "input": told.prompt_token_count - told.cached_content_token_count, "cache_read": told.cached_content_token_count,
        "output": told.candidates_token_count + told.thoughts_token_count, "cache_write": 0,
    }
    model = "gemini-3-flash"
    yield model, usage(client.models.generate_content(model=model, contents=SAID).usage_metadata)
    *_, last = client.models.generate_content_stream(model=model, contents=SAID)
    yield model, usage(last.usage_metadata)


def status(url):
    request = urllib.request.Request(f"{url}/-/status", headers={"x-api-key": "key-one"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["usage"]


def compare(what, expected, rows, name):
    for label, counts in expected.items():
        row = next((row for row in rows if row[name] == label), None)
        assert row, f"{what}: {label} is missing in {rows}"
        seen = {kind: row.get(kind, 0) for kind in counts}
        assert seen == dict(counts), f"{what}, {label}: {seen} is not {dict(counts)}"


def main():
    sandbox, url, token = apis.start()
    provider = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gemini)
    threading.Thread(target=provider.serve_forever, daemon=True).start()
    by_model, by_key = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        program, own = start(folder, url, f"http://127.0.0.1:{provider.server_port}", token)
        try:
            for name, key in (("first", "key-one"), ("second", "key-two")):
                for ask in (ask_messages, ask_openai, ask_gemini):
                    for model, counts in ask(own, key):
                        for table, label in ((by_model, model), (by_key, name)):
                            table.setdefault(label, Counter()).update({**counts, "requests": 1})
            rows = [{"model": row["model"], **row["today"]} for row in status(own)["models"]]
            compare("the status", by_model, rows, "model")
        finally:
            program.terminate()
            program.wait()
            sandbox.terminate()
            sandbox.wait()
            provider.shutdown()
        assert program.returncode == 0, program.returncode
        for name, table in (("model", by_model), ("key", by_key)):
            printed = subprocess.run([PROGRAM, "usage", "--by", name, "--json"], cwd=folder, stdout=subprocess.PIPE, check=True)
            compare("evertoken usage", table, json.loads(printed.stdout)["rows"], name)
    tokens = sum(sum(counts[kind] for kind in ("input", "output", "cache_read", "cache_write")) for counts in by_key.values())
    print(f"usage: {tokens} tokens of {len(by_model)} models are counted as the SDKs were told")


if __name__ == "__main__":
    sys.exit(main())
