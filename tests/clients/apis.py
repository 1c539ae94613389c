"""The official SDKs against the sandbox itself, without evertoken: it speaks what they speak by default."""

import json
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import anthropic
import openai

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = [("reminder", "a long reminder of the program"), ("asked", "a b")]


def start():
    """A sandbox, its URL and an access token of it."""
    sandbox = subprocess.Popen([ROOT / "target/debug/sandbox", "serve"], stderr=subprocess.PIPE, text=True)
    url = sandbox.stderr.readline().split()[-1]
    values = dict(sandbox.stderr.readline().strip().split("=", 1) for _ in range(3))
    form = urllib.parse.urlencode({"grant_type": "refresh_token", **values}).encode()
    with urllib.request.urlopen(f"{url}/oauth/token", form) as answer:
        return sandbox, url, json.load(answer)["access_token"]


def check_responses(client):
    """Whole, and as events whose names and order the SDK relies on."""
    whole = client.responses.create(model="m", input="hello there")
    assert whole.output_text == "You said: hello there" and whole.usage.total_tokens == 6, whole
    said = [{"role": "user", "content": [{"type": "input_text", "text": text} for _, text in BLOCKS]}]
    with client.responses.stream(model="m", input=said) as stream:
        kinds = [event.type for event in stream]
        assert stream.get_final_response().output_text == "You said: a b"
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed", kinds


def check_embeddings(client):
    """The SDK asks for base64 unless it is told otherwise."""
    for asked, count in [("a", 1), (["a", "b"], 2), ([1, 2, 3], 1), ([[1], [2, 3], [4]], 3)]:
        coded = client.embeddings.create(model="m", input=asked).data
        plain = client.embeddings.create(model="m", input=asked, encoding_format="float").data
        assert len(coded) == len(plain) == count, asked
        for one, other in zip(coded, plain):
            assert all(abs(left - right) < 1e-6 for left, right in zip(one.embedding, other.embedding)), asked
    try:
        client.embeddings.create(model="m", input=[])
        raise AssertionError("an empty list was taken")
    except openai.BadRequestError:
        pass


def check_completions(client):
    """Chat Completions with parts, a stream, and the usage at its end."""
    said = [{"role": "user", "content": [{"type": "text", "text": text} for _, text in BLOCKS]}]
    whole = client.chat.completions.create(model="m", messages=said)
    assert whole.choices[0].message.content == "You said: a b", whole
    counted = {"include_usage": True}
    *chunks, last = client.chat.completions.create(model="m", messages=said, stream=True, stream_options=counted)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "You said: a b"
    assert last.choices == [] and last.usage.total_tokens > 0, last


def check_messages(client):
    """Anthropic's side, with count_tokens."""
    said = [{"role": "user", "content": [{"type": "text", "text": text} for _, text in BLOCKS]}]
    whole = client.messages.create(model="m", max_tokens=8, messages=said)
    assert whole.content[0].text == "You said: a b", whole
    with client.messages.stream(model="m", max_tokens=8, messages=said) as stream:
        assert stream.get_final_text() == "You said: a b"
    count = client.messages.count_tokens(model="m", system="be kind", messages=[{"role": "user", "content": "a b c"}])
    assert count.input_tokens == 5, count


def main():
    sandbox, url, token = start()
    try:
        gpt = openai.OpenAI(base_url=f"{url}/v1", api_key=token, max_retries=0)
        claude = anthropic.Anthropic(base_url=url, auth_token=token, max_retries=0)
        check_responses(gpt)
        check_embeddings(gpt)
        check_completions(gpt)
        check_messages(claude)
        assert [model.id for model in gpt.models.list()] == [model.id for model in claude.models.list()] == ["sandbox-1"]
        for refused, ask in [
            (openai.AuthenticationError, gpt.with_options(api_key="x").models.list),
            (anthropic.AuthenticationError, claude.with_options(auth_token="x").models.list),
        ]:
            try:
                ask()
                raise AssertionError("a wrong token was taken")
            except refused:
                pass
    finally:
        sandbox.terminate()
        sandbox.wait()
    print("sandbox: Responses, Embeddings, Chat Completions and Messages are what the SDKs expect")


if __name__ == "__main__":
    sys.exit(main())
