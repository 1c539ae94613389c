"""Keys of clients under the official SDKs, Claude Code and Codex: a model that a key may not use, and a limit that is used up,
are what each of them expects.
"""

import concurrent.futures
import pathlib
import subprocess
import tempfile
import time

import anthropic
import openai
from drive import BINARY, wait_for
from sandboxed import Sandboxed
from scenarios import child

# Longer than that, a program waits for itself or asks again and again.
REFUSED_SECONDS = 30

KEYS = {
    "some": "models: ['sandbox-*']",
    "few": "requests_per_minute: 2",
    "spent": "tokens_per_day: 1",
}


class World(Sandboxed):
    """The sandbox, and evertoken before it with a new key for each limit."""

    def __init__(self, folder):
        self.keys, entries = {}, ""
        for name, limit in KEYS.items():
            printed = subprocess.run([BINARY, "key", name], cwd=folder, capture_output=True, text=True, check=True).stdout
            self.keys[name], entry = printed.splitlines()[0], printed.splitlines()[-1]
            entries += "    " + entry.replace(" }", f", {limit} }}") + "\n"
        settings = f"  auth:\n    enabled: true\n    keys:\n{entries}"
        super().__init__(folder, settings, [("anthropic", "anthropic"), ("openai", "openai")])

    def clients(self, name):
        key = self.keys[name]
        claude = anthropic.Anthropic(base_url=self.url, api_key=key, max_retries=0)
        return claude, openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)


def ask(client, model):
    said = [{"role": "user", "content": "a b"}]
    if isinstance(client, anthropic.Anthropic):
        return client.messages.create(model=model, max_tokens=8, messages=said)
    return client.chat.completions.create(model=model, messages=said)


def refused(kind, client, model, part):
    """The error of a request that is refused with an exception of this `kind`."""
    try:
        ask(client, model)
    except kind as error:
        assert part in str(error), error
        return error
    raise AssertionError(f"{client} was not refused")


def models(world):
    for client, library in zip(world.clients("some"), [anthropic, openai]):
        ask(client, "sandbox-1")
        assert [model.id for model in client.models.list()] == ["sandbox-1"]
        refused(library.PermissionDeniedError, client, "other", "The key 'some' may not use the model 'other'")
    claude, _ = world.clients("some")
    said = [{"role": "user", "content": "a b"}]
    assert claude.messages.count_tokens(model="sandbox-1", messages=said).input_tokens > 0
    return "PermissionDeniedError for another model, and a list of its own"


def limits(world):
    claude, gpt = world.clients("few")
    ask(claude, "m")
    ask(gpt, "m")
    for client, library in [(claude, anthropic), (gpt, openai)]:
        error = refused(library.RateLimitError, client, "m", "has made 2 requests within a minute")
        assert 1 <= int(error.response.headers["retry-after"]) <= 60, error.response.headers
        assert error.response.headers["x-evertoken-error"] == "key_limit"
    claude, gpt = world.clients("spent")
    ask(claude, "m")
    # An answer is counted a moment after its last byte.
    error = wait_for(lambda: spent(gpt))
    assert int(error.response.headers["retry-after"]) <= 24 * 3600
    return "RateLimitError with Retry-After"


def spent(client):
    try:
        ask(client, "m")
    except openai.RateLimitError as error:
        return error
    return None


def program(name, package, command, run):
    """What a program shows of a model that its key may not use."""
    why = child.missing(package, command)
    if why:
        return f"skipped: {why}"
    begun = time.monotonic()
    told = run(child.NPM / package / "node_modules/.bin" / command)
    took = time.monotonic() - begun
    assert "may not use the model" in told, told
    assert took < REFUSED_SECONDS, f"{name} took {took:.0f} s"
    return f"shows the refusal after {took:.0f} s"


def claude_code(world, folder):
    home = folder / "claude"
    home.mkdir()
    env = child.environment(
        home,
        ANTHROPIC_BASE_URL=world.url,
        ANTHROPIC_AUTH_TOKEN=world.keys["some"],
        DISABLE_AUTOUPDATER="1",
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
    )
    return lambda program: output([program, "--print", "hello"], home, env)


def codex(world, folder):
    home = folder / "codex"
    (home / ".codex").mkdir(parents=True)
    (home / ".codex/config.toml").write_text(f'openai_base_url = "{world.url}/v1"\n')
    env = child.environment(home, CODEX_API_KEY=world.keys["some"])
    return lambda program: output([program, "exec", "--skip-git-repo-check", "hello"], home, env)


def output(command, home, env):
    done = subprocess.run(command, cwd=home, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0, done
    return done.stdout + done.stderr


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        with World(folder) as world:
            for part in [models, limits]:
                print(f"Keys, {part.__name__}: {part(world)}")
            with concurrent.futures.ThreadPoolExecutor() as pool:
                runs = {
                    "Claude Code": pool.submit(program, "Claude Code", "claude-code", "claude", claude_code(world, folder)),
                    "Codex": pool.submit(program, "Codex", "codex", "codex", codex(world, folder)),
                }
            for name, told in runs.items():
                print(f"Keys, {name}: {told.result()}")


if __name__ == "__main__":
    main()
