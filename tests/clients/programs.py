"""Real programs, each asking directly, through evertoken, and through evertoken with a key (`settings.auth`): what they show must
be the same, and so must the requests that arrive, field by field.

The providers are those that docs/clients.md and docs/recipes.md print, word for word but for addresses and secrets: the recorder
stands for their hosts, and a sandbox with each issuer's manners for their token endpoints. Words given as arguments choose
scenarios by their names. EVERTOKEN_BINARIES (target/release) is the folder of the programs under test.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import typing
import urllib.error
import urllib.parse
import urllib.request

import drive
import recorder
from comparison import differences, without_added
from scenarios import azure, claude_code, codex, gemini, git_http, model_context

BINARIES = pathlib.Path(os.environ.get("EVERTOKEN_BINARIES", drive.ROOT / "target/release"))
drive.BINARY = BINARIES / "evertoken"
DOCUMENTS = [drive.ROOT / "docs/clients.md", drive.ROOT / "docs/recipes.md"]
# Whose manners the issuer has at each host of a token endpoint.
MANNERS = {
    "platform.claude.com": "anthropic",
    "auth.openai.com": "openai",
    "login.microsoftonline.com": "entra",
    "auth.example.com": "xai",
    "issuer.example.com": "rfc6749",
}
# Who granted what programs hold where they ask directly, and what stands in the place of an API key.
DIRECT_ISSUER = "issuer.example.com"
# What programs hold that need no key, and those that do.
NO_KEY, KEY = "none", "inbound-key-of-the-tests"
# The variable of what `evertoken login` would store.
LOGIN = "TEST_LOGIN"


class Sandbox:
    """A sandbox as a child process."""

    def __init__(self, *options):
        command = [str(drive.ROOT / "target/debug/sandbox"), "serve", "--event-delay", "0", "--lifetime", "3600", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        said = [self.process.stdout.readline().strip() for _ in range(4)]
        self.url = said[0].split()[-1]
        values = dict(line.split("=", 1) for line in said[1:])
        self.client_id, self.client_secret = values["client_id"], values["client_secret"]

    def login(self):
        return drive.get(f"{self.url}/control/login")["refresh_token"]

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@dataclasses.dataclass
class Side:
    """One of the ways to a provider."""

    name: str
    # Where paths of the provider that answers to them begin, and where those of a named provider do.
    root: str
    provider: str
    # What the program holds as its credential.
    credential: str
    world: "World"

    @property
    def is_direct(self):
        return self.name == "directly"

    def folder(self):
        """An empty home, at the same path on each way, since programs say where they are."""
        folder = self.world.folder / "home"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder


@dataclasses.dataclass
class Scenario:
    """A program does something."""

    name: str
    # The host that the program would ask, and the slug of the provider that the documents print.
    host: str
    slug: str
    # Does it, and gives what the program shows, which must be the same on each way.
    run: typing.Callable[[Side], object]
    # For each way anew: what answers a record; the sandbox where it gives None.
    script: typing.Callable[["World"], typing.Callable] = lambda world: lambda record: None
    # The field in which the credential arrives, directly and through evertoken.
    credential: tuple = ("authorization", "authorization")
    # Values that the provider's entry adds to fields.
    added: dict = dataclasses.field(default_factory=dict)
    # A parameter that it adds to every request.
    added_query: str = ""
    # Patterns of what differs between two runs of this program, in bodies and in `name: value` of fields, with a name each.
    varying: tuple = ()
    # Whether the program writes the keys of JSON objects in another order each time.
    shuffles_json: bool = False
    # Texts that docs/clients.md or docs/recipes.md prints.
    says: tuple = ()
    # Says why it can't be had here, or None.
    missing: typing.Callable = lambda: None


class World:
    """Issuers, the recorder in the place of the providers, and evertoken with the recipes before it."""

    def __init__(self, folder):
        self.folder, self.children = folder, contextlib.ExitStack()
        # The host whose issuer granted the token of each provider.
        self.issuer_of = {}

    def begin(self):
        self.issuers = {host: self.child(Sandbox("--manner", kind)) for host, kind in MANNERS.items()}
        self.sandbox = self.child(Sandbox())
        self.recorder = self.child(recorder.Recorder({host: issuer.url for host, issuer in self.issuers.items()}))
        self.own_token = self.grant(self.sandbox, self.sandbox.url + "/oauth/token")
        # What programs hold where they ask directly.
        self.direct_token = self.grant(self.issuers[DIRECT_ISSUER], f"{self.recorder.url}/{DIRECT_ISSUER}/oauth/token")
        self.children.callback(model_context.Server.end)
        self.open = self.evertoken("open", "")
        self.keyed = self.evertoken("keyed", ", auth: {enabled: true, api_key_env: TEST_KEY}")

    def child(self, one):
        self.children.callback(one.close)
        return one

    def evertoken(self, name, settings):
        """A running evertoken that is ready."""
        folder = self.folder / name
        folder.mkdir()
        env = {**drive.variables(), "HOME": str(folder), "RUST_LOG": "evertoken=debug", "TEST_KEY": KEY}
        self.write_providers(folder, settings, env)
        one = drive.Evertoken(folder, env)
        self.children.callback(one.kill)
        url = one.url()
        drive.wait_for(lambda: is_ready(url), one.lines)
        return one

    @staticmethod
    def grant(issuer, url):
        form = {"grant_type": "refresh_token", "refresh_token": issuer.login(), "client_id": issuer.client_id}
        form["client_secret"] = issuer.client_secret
        body = "&".join(f"{name}={urllib.parse.quote(value, safe='')}" for name, value in form.items()).encode()
        with urllib.request.urlopen(url, body, timeout=drive.PATIENCE_SECONDS) as answer:
            return json.load(answer)["access_token"]

    def write_providers(self, folder, settings, env):
        """providers.yaml with all that is printed; the variables that it names go into `env`."""
        text = f'settings: {{port: 0, state_dir: "{folder}/state"{settings}}}\nproviders:\n'
        for number, entry in enumerate(printed("  - name:")):
            if "token_url" in entry and "refresh_token_env" not in entry and "client_credentials" not in entry:
                entry = re.sub(r"( +)token_url:", rf"\1refresh_token_env: {LOGIN}_{number}\n\1token_url:", entry)
            env.update(self.secrets(folder, entry))
            text += re.sub(r'((?:base|token)_url: ")https:/', rf"\1{self.recorder.url}", entry)
        (folder / "providers.yaml").write_text(text + "".join(printed("model_routes:\n")))

    def secrets(self, home, entry):
        """The variables that an entry names; files that it names below `home` are written."""
        found = {}
        for name in re.findall(r'auth_value_env: "(\w+)"', entry):
            found[name] = self.direct_token
        for path in re.findall(r'auth_value_file: "~/(\S+)"', entry):
            (home / path).parent.mkdir(parents=True)
            (home / path).write_text(self.direct_token + "\n")
        slug = re.search(r'- name: "(.*)"', entry)[1].lower().replace(" ", "-")
        self.issuer_of[slug] = DIRECT_ISSUER
        if host := re.search(r'token_url: "https://([^/"]+)', entry):
            self.issuer_of[slug] = host[1]
            issuer = self.issuers[host[1]]
            for key, name in re.findall(r'(client_id|client_secret|refresh_token)_env: "?(\w+)', entry):
                found[name] = issuer.login() if key == "refresh_token" else getattr(issuer, key)
        return found

    def from_sandbox(self, record, path=None):
        """What the sandbox answers to a record."""
        return recorder.relay(record, self.sandbox.url, path or record.rest, self.own_token)

    def sides(self, scenario):
        direct = f"{self.recorder.url}/{scenario.host}"
        yield Side("directly", direct, direct, self.direct_token, self)
        for name, evertoken, credential in [
            ("through evertoken", self.open, NO_KEY), ("through evertoken with a key", self.keyed, KEY)
        ]:
            url = evertoken.url()
            yield Side(name, url, f"{url}/to/{scenario.slug}", credential, self)


def is_ready(url):
    try:
        with urllib.request.urlopen(url + "/-/ready", timeout=drive.PATIENCE_SECONDS):
            return True
    except urllib.error.HTTPError:
        return False


def printed(text):
    """The blocks of YAML that the documents print and that hold the text."""
    pages = "".join(document.read_text() for document in DOCUMENTS)
    found = [block for block in re.findall(r"^```yaml\n(.*?)^```$", pages, re.DOTALL | re.MULTILINE) if text in block]
    assert found, f"no document prints YAML with {text}"
    return found


def check_documents(all_scenarios):
    """What a scenario sets, and the versions that are driven, are printed as they are."""
    pages = "".join(document.read_text() for document in DOCUMENTS)
    for scenario in all_scenarios:
        for text in scenario.says:
            assert text in pages, f"{scenario.name}: no document says {text}"
    pins = (drive.ROOT / "tests/clients/requirements.txt").read_text().split()
    versions = dict(pin.split("==") for pin in pins if pin.startswith(("anthropic=", "google-genai=", "mcp=", "openai=")))
    for package in (drive.ROOT / "tests/clients/npm").glob("*/package.json"):
        versions.update(json.loads(package.read_text())["dependencies"])
    table = DOCUMENTS[0].read_text()
    for name, version in versions.items():
        assert version in table, f"docs/clients.md does not say that {name} {version} was tried"


def check(world, scenario):
    """Runs it on each way and compares; how many requests arrived on one."""
    first = None
    for side in world.sides(scenario):
        shown, records = run(world, scenario, side)
        if first is None:
            first = shown, records
            continue
        assert KEY not in repr([(record.target, record.headers, record.body) for record in records]), "the key went on"
        found = differences(first[1], [without_added(record, scenario) for record in records], scenario)
        assert not found, f"{side.name}, what arrives is not the same:\n  " + "\n  ".join(found)
        assert first[0] == shown, f"{side.name}, the program shows something else: {first[0]!r} / {shown!r}"
    return len(first[1])


def run(world, scenario, side):
    """What the program shows, and the requests that arrive, each with the right credential in its place."""
    script = scenario.script(world)
    world.recorder.begin(lambda record: script(record) or world.from_sandbox(record))
    try:
        shown = scenario.run(side)
    except Exception as error:
        error.add_note(f"{side.name}; requests: {world.recorder.records}; refused: {world.recorder.refused}")
        raise
    records = world.recorder.records
    assert records and not world.recorder.refused, (side.name, records, world.recorder.refused)
    field = scenario.credential[0 if side.is_direct else 1]
    for record in records:
        ((found, token),) = record.credentials()
        assert found == field, f"{side.name}, {record}: the credential is in {found} and not in {field}"
        whose = world.recorder.tokens[token]
        assert side.is_direct or whose == world.issuer_of[scenario.slug], f"{record}: it has a token of {whose}"
    return shown, records


def scenarios():
    return [
        Scenario(**entry)
        for module in (claude_code, codex, gemini, azure, model_context, git_http)
        for entry in module.SCENARIOS
    ]


def main():
    wanted = sys.argv[1:]
    check_documents(scenarios())
    passed, failed, left_out = 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        world = World(pathlib.Path(folder))
        with world.children:
            world.begin()
            for scenario in scenarios():
                if wanted and not any(word in scenario.name for word in wanted):
                    continue
                if why := scenario.missing():
                    left_out += 1
                    print(f"LEFT OUT - {scenario.name}: {why}", flush=True)
                    continue
                begun = time.monotonic()
                try:
                    count = check(world, scenario)
                    passed += 1
                    print(f"ok - {scenario.name}: {count} requests ({time.monotonic() - begun:.1f} s)", flush=True)
                except Exception as error:  # every kind of failure is a failed test
                    failed += 1
                    notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", []))
                    print(f"FAILED - {scenario.name}: {type(error).__name__}: {error}{notes}", flush=True)
            if failed:
                print("\n".join(world.open.lines()[-100:] + world.keyed.lines()[-100:]))
    print(f"test-clients: programs. {passed} passed; {failed} failed; {left_out} left out")
    return failed > 0 or not passed


if __name__ == "__main__":
    sys.exit(main())
