"""`selection_strategy: sticky` under the official SDKs, Claude Code and Codex: the conversations of each stay at one of three
accounts, where the sandbox has a prompt cache for each.
"""

import concurrent.futures
import pathlib
import tempfile

import anthropic
import openai
from drive import get
from sandboxed import Sandboxed
from scenarios import child

# No multiple of the accounts: in turn, a conversation would come back to its account.
CONVERSATIONS = 25
TURNS = 3
# The sandbox caches prompts without a mark from 1,024 tokens on, and a word is a token.
LONG = "word " * 1100

ACCOUNTS = {"anthropic": ["A", "B", "C"], "openai": ["D", "E", "F"]}


class Accounts(Sandboxed):
    """The sandbox with three accounts for each API, and evertoken before them."""

    def __init__(self, folder):
        accounts = [(name, kind) for kind, names in ACCOUNTS.items() for name in names]
        super().__init__(folder, "  selection_strategy: sticky\n", accounts)

    def requests(self, kind):
        """The number of requests that each account of an API has had."""
        status = get(f"{self.url}/-/status")
        return [one["requests"]["total"] for one in status["providers"] if one["type"] == kind]


def converse(ask):
    """Conversations in turns; `ask(number, question)` continues one and returns the tokens from the cache and the others."""
    read = other = 0
    for turn in range(TURNS):
        for number in range(CONVERSATIONS):
            cached, rest = ask(number, f"question {turn} of {number}")
            # The last answer and the new question are new.
            assert turn == 0 or (cached > 0 and rest < 20), f"conversation {number}, request {turn}: {cached} cached, {rest} not"
            read, other = read + cached, other + rest
    return f"{100 * read // (read + other)} % of the tokens from the cache"


def messages(accounts):
    client = anthropic.Anthropic(base_url=accounts.url, api_key="none", max_retries=0)
    talks = [[] for _ in range(CONVERSATIONS)]

    def ask(number, question):
        talk = talks[number]
        for said in talk:
            for block in said["content"]:
                block.pop("cache_control", None)
        text = {"type": "text", "text": question, "cache_control": {"type": "ephemeral"}}
        talk.append({"role": "user", "content": [text]})
        asked = {"model": "m", "max_tokens": 9, "messages": talk, "system": "be kind"}
        if number % 2:
            with client.messages.stream(**asked) as stream:
                answer = stream.get_final_message()
        else:
            answer = client.messages.create(**asked)
        talk.append({"role": "assistant", "content": [{"type": "text", "text": answer.content[0].text}]})
        return answer.usage.cache_read_input_tokens, answer.usage.cache_creation_input_tokens

    return converse(ask)


def completions(accounts):
    client = openai.OpenAI(base_url=f"{accounts.url}/v1", api_key="none", max_retries=0)
    talks = [[{"role": "system", "content": LONG}] for _ in range(CONVERSATIONS)]

    def ask(number, question):
        talk = talks[number]
        talk.append({"role": "user", "content": question})
        answer = client.chat.completions.create(model="m", messages=talk)
        talk.append({"role": "assistant", "content": answer.choices[0].message.content})
        cached = answer.usage.prompt_tokens_details.cached_tokens
        return cached, answer.usage.prompt_tokens - cached

    return converse(ask)


def responses(accounts):
    """By `prompt_cache_key`."""
    client = openai.OpenAI(base_url=f"{accounts.url}/v1", api_key="none", max_retries=0)
    talks = [[] for _ in range(CONVERSATIONS)]

    def ask(number, question):
        talk = talks[number]
        talk.append({"role": "user", "content": question})
        key = f"conversation-{number}"
        answer = client.responses.create(model="m", input=talk, instructions=LONG + key, prompt_cache_key=key)
        talk.append({"role": "assistant", "content": answer.output_text})
        cached = answer.usage.input_tokens_details.cached_tokens
        return cached, answer.usage.input_tokens - cached

    return converse(ask)


def sessions(accounts, kind, count, talk):
    """The requests of each session, which `talk(number)` makes, reach one account."""
    for number in range(count):
        before = accounts.requests(kind)
        talk(number)
        after = accounts.requests(kind)
        served = [index for index, (was, now) in enumerate(zip(before, after)) if now > was]
        assert len(served) == 1 and sum(after) - sum(before) > 1, (number, before, after)
    return f"each session at one account, {count} in all"


def claude_code(accounts, folder):
    def talk(number):
        home = folder / f"claude-{number}"
        home.mkdir()
        env = child.environment(
            home,
            ANTHROPIC_BASE_URL=accounts.url,
            ANTHROPIC_AUTH_TOKEN="none",
            DISABLE_AUTOUPDATER="1",
            CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
        )
        program = child.NPM / "claude-code/node_modules/.bin/claude"
        child.run([program, "--print", "hello"], home, env, "")
        child.run([program, "--print", "--continue", f"and then {number}"], home, env, "")

    return sessions(accounts, "anthropic", 2, talk)


def codex(accounts, folder):
    def talk(number):
        home = folder / f"codex-{number}"
        (home / ".codex").mkdir(parents=True)
        (home / ".codex/config.toml").write_text(f'openai_base_url = "{accounts.url}/v1"\n')
        env = child.environment(home, CODEX_API_KEY="none")
        program = child.NPM / "codex/node_modules/.bin/codex"
        options = ["--skip-git-repo-check", "--json"]
        child.run([program, "exec", *options, "hello"], home, env, "")
        child.run([program, "exec", "resume", "--last", *options, f"and then {number}"], home, env, "")

    return sessions(accounts, "openai", 1, talk)


def programs(accounts, folder):
    """Both programs at once: each waits for itself most of the time, and asks another API."""
    known = {"Claude Code": (claude_code, "claude-code", "claude"), "Codex": (codex, "codex", "codex")}

    def outcome(program, package, command):
        why = child.missing(package, command)
        return f"skipped: {why}" if why else program(accounts, folder)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        outcomes = {name: pool.submit(outcome, *words) for name, words in known.items()}
    for name, told in outcomes.items():
        print(f"Sticky, {name}:", told.result())


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        with Accounts(folder) as accounts:
            print("Sticky, Messages:", messages(accounts))
            print("Sticky, Chat Completions:", completions(accounts))
            print("Sticky, Responses:", responses(accounts))
            for kind in ACCOUNTS:
                # Each has its part of the conversations.
                counts = accounts.requests(kind)
                assert all(count > CONVERSATIONS * TURNS // 10 for count in counts), counts
            programs(accounts, folder)


if __name__ == "__main__":
    main()
