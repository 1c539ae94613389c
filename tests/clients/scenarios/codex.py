"""Codex: its built-in provider with `openai_base_url`, and a provider of one's own."""

import json

from recorder import Answer
from scenarios import child

EVERTOKEN = "http://127.0.0.1:8080"
# The API for keys, with the address alone, and that of ChatGPT accounts.
BUILT_IN = f'openai_base_url = "{EVERTOKEN}/v1"\n'
CUSTOM = f"""model_provider = "evertoken"

[model_providers.evertoken]
name = "evertoken"
base_url = "{EVERTOKEN}/to/codex"
wire_api = "responses"
"""
QUESTION = "Say the word evertoken."


def ask(side, config, printed, url):
    """What it answers with the configuration, `url` in the place of the one that is printed in it."""
    folder = side.folder()
    (folder / ".codex").mkdir()
    config = config.replace(printed, url)
    if side.credential != "none" and "model_providers" in config:
        config += 'env_key = "EVERTOKEN_KEY"\n'
    (folder / ".codex/config.toml").write_text(config)
    env = child.environment(folder, CODEX_API_KEY=side.credential, EVERTOKEN_KEY=side.credential)
    program = child.NPM / "codex/node_modules/.bin/codex"
    printed = child.run([program, "exec", "--skip-git-repo-check", "--json", QUESTION], folder, env, "")
    events = [json.loads(line) for line in printed.splitlines()]
    items = [event["item"] for event in events if event["type"] == "item.completed"]
    (said,) = [item["text"] for item in items if item["type"] == "agent_message"]
    assert said == f"You said: {QUESTION}", said
    return said


def answers(world):
    """By the sandbox, whose paths are those of the API for keys. It has no WebSocket (426), which the built-in provider
    tries first; tunnels.py has one that takes it."""

    def script(record):
        if record.method == "GET" and record.rest.endswith("/responses"):
            return Answer.json({"error": {"message": "There is no WebSocket here"}}, 426)
        return world.from_sandbox(record, record.rest.replace("/backend-api/codex/", "/v1/"))

    return script


COMMON = {"script": answers, "shuffles_json": True, "missing": lambda: child.missing("codex", "codex")}
SCENARIOS = [
    {
        "name": "Codex, its built-in provider", "host": "api.openai.com", "slug": "openai", "says": (BUILT_IN,),
        "run": lambda side: ask(side, BUILT_IN, EVERTOKEN, side.root),
        "varying": ((r"(?i)^sec-websocket-key: .*", "(a key)"),),
        **COMMON,
    },
    {
        "name": "Codex, a provider of one's own", "host": "chatgpt.com", "slug": "codex", "says": (CUSTOM,),
        "run": lambda side: ask(
            side, CUSTOM, f"{EVERTOKEN}/to/codex", side.provider + ("/backend-api/codex" if side.is_direct else "")
        ),
        "added": {"chatgpt-account-id": "account-of-the-sandbox"},
        **COMMON,
    },
]
