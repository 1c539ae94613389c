"""Claude Code in print mode: a question, a tool call, 9 MB of input, a 429."""

import json

from recorder import Answer
from scenarios import child

HOST = "api.anthropic.com"
LARGE_BYTES = 9_000_000


def ask(side, question, *options, given="", prepare=lambda folder: None, **variables):
    """The messages that it prints as stream-json, each a JSON object."""
    folder = side.folder()
    prepare(folder)
    env = child.environment(
        folder,
        ANTHROPIC_BASE_URL=side.root,
        ANTHROPIC_AUTH_TOKEN=side.credential,
        DISABLE_AUTOUPDATER="1",
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
        **variables,
    )
    program = child.NPM / "claude-code/node_modules/.bin/claude"
    command = [program, "--print", "--output-format", "stream-json", "--verbose", *options, *question]
    return [json.loads(line) for line in child.run(command, folder, env, given).splitlines()]


def result(messages):
    """The answer at the end."""
    (last,) = [message for message in messages if message["type"] == "result"]
    assert last["subtype"] == "success" and not last["is_error"], last
    return last["result"]


def hello(side):
    said = result(ask(side, ["Say the word evertoken."]))
    assert said == "You said: Say the word evertoken.", said
    return said


def read_a_file(side):
    write = lambda folder: (folder / "note.txt").write_text("evertoken was here\n")
    messages = ask(side, ["What does note.txt say?"], prepare=write)
    blocks = [block for message in messages if message["type"] == "user" for block in message["message"]["content"]]
    assert any("evertoken was here" in str(block.get("content")) for block in blocks), messages
    return result(messages)


def large_input(side):
    text = "nine megabytes " * (LARGE_BYTES // 15)
    given = json.dumps({"type": "user", "message": {"role": "user", "content": text}}) + "\n"
    # Otherwise it says that the prompt is too long, and asks nobody.
    variables = {"CLAUDE_CODE_BLOCKING_LIMIT_OVERRIDE": "100000000", "DISABLE_COMPACT": "1"}
    said = result(ask(side, [], "--input-format", "stream-json", given=given, **variables))
    assert max(len(record.body) for record in side.world.recorder.records) > LARGE_BYTES
    return said


def tool_call(world):
    """The first answer asks for the tool Read."""

    def script(record):
        if not record.rest.startswith("/v1/messages?"):
            return None
        asked = record.json()
        has_tool = any(tool["name"] == "Read" for tool in asked.get("tools", []))
        if not has_tool or "tool_result" in json.dumps(asked["messages"]):
            return None
        return Answer.events(tool_use(asked["model"], "Read", {"file_path": f"{world.folder}/home/note.txt"}))

    return script


def tool_use(model, tool, arguments):
    block = {"type": "tool_use", "id": "toolu_1", "name": tool, "input": {}}
    return answer(model, block, {"type": "input_json_delta", "partial_json": json.dumps(arguments)}, "tool_use")


def short_answer(world):
    """The sandbox would say all of it back."""

    def script(record):
        if not record.rest.startswith("/v1/messages?"):
            return None
        delta = {"type": "text_delta", "text": f"{len(record.body)} bytes"}
        return Answer.events(answer(record.json()["model"], {"type": "text", "text": ""}, delta, "end_turn"))

    return script


def answer(model, block, delta, reason):
    """The events of an answer with one block."""
    message = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": [], "stop_reason": None,
        "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1},
    }
    end = {"stop_reason": reason, "stop_sequence": None}
    events = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": end, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    ]
    return [(event["type"], event) for event in events]


def one_limit(world):
    """The first request is told to come again."""
    limited = []

    def script(record):
        if limited or not record.rest.startswith("/v1/messages?"):
            return None
        limited.append(record)
        error = {"type": "rate_limit_error", "message": "This request would exceed a rate limit."}
        return Answer.json({"type": "error", "error": error}, 429, [("retry-after", "1")])

    return script


COMMON = {
    "host": HOST, "slug": "claude-code", "missing": lambda: child.missing("claude-code", "claude"),
    "says": ("export ANTHROPIC_BASE_URL=http://127.0.0.1:8080", "export ANTHROPIC_AUTH_TOKEN=none"),
    "added": {"anthropic-beta": "oauth-2025-04-20"},
}
SCENARIOS = [
    {"name": "Claude Code, a question", "run": hello, **COMMON},
    {"name": "Claude Code, a tool call", "run": read_a_file, "script": tool_call, **COMMON},
    {"name": "Claude Code, 9 MB of input", "run": large_input, "script": short_answer, **COMMON},
    {"name": "Claude Code, a 429 and then an answer", "run": hello, "script": one_limit, **COMMON},
]
