"""google-genai: an answer, a stream, a count of tokens, the list of models."""

from google import genai
from google.genai import types

from recorder import Answer

HOST = "generativelanguage.googleapis.com"


def converse(side):
    options = types.HttpOptions(base_url=side.provider)
    client = genai.Client(api_key=side.credential, http_options=options)
    whole = client.models.generate_content(model="gemini-3-flash", contents="hello there")
    stream = client.models.generate_content_stream(model="gemini-3-flash", contents="hello there")
    pieces = [piece.text for piece in stream]
    count = client.models.count_tokens(model="gemini-3-flash", contents="hello there")
    assert whole.text == "You said: hello there" and pieces == ["You said: ", "hello there"], (whole, pieces)
    return whole.text, pieces, count.total_tokens, [model.name for model in client.models.list()]


def answer(record):
    path, _, query = record.rest.partition("?")
    if path == "/v1/models":
        return Answer.json({"models": [{"name": "models/gemini-3-flash"}]})
    said = record.json()["contents"][-1]["parts"][-1]["text"]
    method = path.rpartition(":")[2]
    if method == "countTokens":
        return Answer.json({"totalTokens": len(said.split())})
    candidate = lambda text: {"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}]}
    if method == "generateContent":
        return Answer.json(candidate(f"You said: {said}"))
    if method == "streamGenerateContent" and query == "alt=sse":
        return Answer.events([(None, candidate("You said: ")), (None, candidate(said))])
    return None


SCENARIOS = [
    {
        "name": "google-genai", "host": HOST, "slug": "gemini", "run": converse, "script": lambda world: answer,
        "credential": ("x-goog-api-key", "x-goog-api-key"),
        "says": ('genai.Client(api_key="none", http_options={"base_url": "http://127.0.0.1:8080/to/gemini"})',),
    },
]
