"""The recipes of docs/tools.md, word for word but for addresses and paths: curl, git, kubectl, docker, Claude Code and Codex get
their tokens from `evertoken token`, with a running evertoken that hands them out and without one. What arrives has a token that
the issuer granted, and nothing is refreshed for it.

The words of the page choose the providers: work, cluster, git and registry. A program that is not here is named and left out.
EVERTOKEN_BINARIES (target/release) is the folder of the programs under test.
"""

import base64
import contextlib
import http.server
import json
import os
import pathlib
import re
import shutil
import ssl
import subprocess
import tempfile
import threading

import drive
from programs import BINARIES, Sandbox
from scenarios import child, claude_code, git_http

PAGE = (drive.ROOT / "docs/tools.md").read_text()
PATHS = ("~/evertoken/providers.yaml", "/home/me/evertoken/providers.yaml")
QUESTION = "Say the word evertoken."


class Host:
    """An issuer, and the servers that want its tokens: a cluster, a git host, a registry, an API. `granted` are the tokens, and
    `asked` what arrived with one: path and token."""

    def __init__(self, folder, repositories):
        self.granted, self.asked = [], []
        host, self.repositories = self, repositories

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                if self.path == "/token":
                    host.granted.append(f"token-{len(host.granted)}")
                    return self.send(200, {"access_token": host.granted[-1], "expires_in": 3600})
                token = host.token_of(self.headers.get("authorization"))
                if token not in host.granted:
                    return self.send(401, {}, [("www-authenticate", self.challenge())])
                host.asked.append((self.path, token))
                if self.path.startswith("/repository.git"):
                    return self.from_git(body)
                self.send(200, {"kind": "APIVersions", "apiVersion": "v1", "versions": ["v1"]})

            do_GET = do_HEAD = do_POST

            def challenge(self):
                return "Bearer" if self.path.startswith("/api") else 'Basic realm="x"'

            def from_git(self, body):
                fields = [(name, value) for name, value in self.headers.items()]
                record = git_http_record(self.command, self.path, fields, body)
                answer = git_http.backend(host.repositories, record)
                self.send_bytes(answer.status, answer.headers, b"".join(answer.pieces))

            def send(self, status, value, more=()):
                body = json.dumps(value).encode()
                fields = [("content-type", "application/json"), ("content-length", str(len(body))), *more]
                self.send_bytes(status, fields, body)

            def send_bytes(self, status, fields, body):
                self.send_response(status)
                for name, value in fields:
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, *_):
                pass

        # kubectl sends no credential over a connection without TLS.
        self.certificate = folder / "certificate.pem"
        make_certificate(self.certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate)
        self.address = self.serve(Handler, lambda socket: socket)
        self.tls_address = self.serve(Handler, lambda socket: context.wrap_socket(socket, server_side=True))
        self.url = f"http://{self.address}"

    @staticmethod
    def serve(handler, wrap):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.socket = wrap(server.socket)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"127.0.0.1:{server.server_port}"

    @staticmethod
    def token_of(field):
        kind, _, value = (field or "").partition(" ")
        if kind.lower() == "basic":
            return base64.b64decode(value).decode().partition(":")[2]
        return value if kind.lower() == "bearer" else None

    def paths(self):
        return [path for path, _ in self.asked]



def make_certificate(path):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
         "/CN=tests", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", path, "-out", f"{path}.part"],
        check=True, capture_output=True,
    )
    path.write_text(path.read_text() + pathlib.Path(f"{path}.part").read_text())


def git_http_record(method, target, fields, body):
    from recorder import Record

    record = Record(method, target, fields, body)
    record.rest = target
    return record


def block(heading, kind, number=0):
    """A block of the page below `heading`."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(rf"```{kind}\n(.*?)```", section, re.DOTALL)[number]


class Tools:
    """A home with providers.yaml, and `evertoken` in the PATH."""

    def __init__(self, folder, host, sandbox, is_running):
        self.folder, self.host, self.sandbox = folder, host, sandbox
        self.home = folder / "home"
        (folder / "bin").mkdir()
        self.home.mkdir()
        (folder / "bin/evertoken").symlink_to(BINARIES / "evertoken")
        self.file = folder / "providers.yaml"
        self.env = child.environment(self.home, CLIENT=sandbox.client_id, SECRET=sandbox.client_secret, SEED=sandbox.login(), OTHER="seed")
        self.env["PATH"] = f"{folder}/bin:{self.env['PATH']}"
        socket = f'listen: ["unix:{folder}/s"], token_endpoint: true, ' if is_running else ""
        entry = '- {{name: {0}, type: generic, base_url: "{1}", auto_refresh_config: {{token_url: "{1}{2}", {3}}}}}\n'
        own = "client_id_env: CLIENT, client_secret_env: SECRET, refresh_token_env: SEED"
        other = "client_id_env: CLIENT, client_auth: none, refresh_token_env: OTHER"
        self.file.write_text(
            f'settings: {{{socket}state_dir: "{folder}/state"}}\nproviders:\n'
            + entry.format("work", sandbox.url, "/oauth/token", own)
            + "".join(entry.format(name, host.url, "/token", other) for name in ("cluster", "git", "registry", "api"))
        )

    def words(self, recipe, **more):
        """The recipe with what is here in the place of what it says."""
        for path in PATHS:
            recipe = recipe.replace(path, str(self.file))
        for old, new in more.items():
            recipe = recipe.replace(old, new)
        return recipe

    def shell(self, script, **env):
        return child.run(["sh", "-c", script], self.home, {**self.env, **env})


def curl(tools):
    for number, line in enumerate(block("curl", "sh").strip().splitlines()):
        line = line.replace("--provider work", f"--config {tools.file} --provider api")
        tools.shell(line.replace("https://api.example.com/v1/models", f"-sSf {tools.host.url}/api/{number}"))
    assert tools.host.paths()[-2:] == ["/api/0", "/api/1"], tools.host.paths()


def exec_command(tools):
    line = block("One command with a token in its environment", "sh").strip()
    assert line.endswith("-- python script.py"), line
    line = line.replace("--provider work", f"--config {tools.file} --provider api")
    said = tools.shell(line.removesuffix("python script.py") + "sh -c 'echo $OPENAI_API_KEY'").strip()
    assert said in tools.host.granted, said


def git(tools):
    recipe = tools.words(block("git", "sh"), **{"https://git.example.com": tools.host.url})
    env = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}
    # Another helper keeps what it sees, and would give an ended token later.
    tools.shell("git config --global credential.helper store", **env)
    tools.shell(recipe, **env)
    tools.shell(f"git clone -q {tools.host.url}/repository.git clone && cat clone/README", **env)
    assert (tools.home / "clone/README").read_text() == "evertoken\n"
    assert any(path.startswith("/repository.git/info/refs") for path in tools.host.paths())
    assert not (tools.home / ".git-credentials").exists()
    # Without a token, git gets no empty password.
    ask = f"printf 'url={tools.host.url}\\n\\n' | git credential fill"
    none = subprocess.run(
        ["sh", "-c", ask.replace("git credential", "mv ../providers.yaml ../away; git credential")], cwd=tools.home,
        env={**tools.env, **env}, capture_output=True, text=True,
    )
    (tools.folder / "away").rename(tools.file)
    assert none.returncode != 0 and "password=" not in none.stdout, none.stdout


def kubectl(tools):
    user = tools.words(block("kubectl", "yaml"))
    config = (
        f"apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: 'https://"
        f"{tools.host.tls_address}', certificate-authority: '{tools.host.certificate}'}}}}]\n"
        f"contexts: [{{name: c, context: {{cluster: c, user: me}}}}]\n{user}"
    )
    (tools.home / "kubeconfig").write_text(config)
    said = tools.shell("kubectl --kubeconfig kubeconfig get --raw /api")
    assert json.loads(said)["kind"] == "APIVersions", said
    assert tools.host.paths()[-1] == "/api"


def docker(tools):
    script = tools.words(block("docker", "sh"))
    helper = tools.folder / "bin/docker-credential-evertoken"
    helper.write_text(script)
    helper.chmod(0o755)
    (tools.home / ".docker").mkdir()
    (configured,) = re.findall(r"`(\{ \"credHelpers\".*?\})`", PAGE)
    (tools.home / ".docker/config.json").write_text(configured.replace("registry.example.com", tools.host.tls_address))
    # What it makes of the answer does not matter here.
    tools.shell(f"docker manifest inspect --insecure {tools.host.tls_address}/a/image:1 || true")
    assert any("/manifests/" in path for path in tools.host.paths())


def claude(tools):
    (tools.home / ".claude").mkdir()
    (tools.home / ".claude/settings.json").write_text(tools.words(block("Claude Code", "json")))
    env = {
        **tools.env, "ANTHROPIC_BASE_URL": tools.sandbox.url, "DISABLE_AUTOUPDATER": "1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    program = child.NPM / "claude-code/node_modules/.bin/claude"
    command = [program, "--print", "--output-format", "stream-json", "--verbose", QUESTION]
    messages = [json.loads(line) for line in child.run(command, tools.home, env, "").splitlines()]
    assert claude_code.result(messages) == f"You said: {QUESTION}", messages


def codex(tools):
    (tools.home / ".codex").mkdir()
    config = tools.words(block("Codex", "toml"), **{"https://api.example.com": tools.sandbox.url})
    (tools.home / ".codex/config.toml").write_text(config)
    program = child.NPM / "codex/node_modules/.bin/codex"
    said = child.run([program, "exec", "--skip-git-repo-check", "--json", QUESTION], tools.home, tools.env, "")
    assert f"You said: {QUESTION}" in said, said


def no_kubectl():
    """Exec plugins of the version that the page has came with 1.22."""
    if why := here("kubectl"):
        return why
    said = child.run(["kubectl", "version", "--client", "-o", "json"], "/", child.environment("/nonexistent"))
    version = json.loads(said)["clientVersion"]["gitVersion"]
    major, minor = (int(number) for number in re.match(r"v(\d+)\.(\d+)", version).groups())
    return None if (major, minor) >= (1, 22) else f"{version} is older than v1.22"


def here(program):
    return None if shutil.which(program) else "it is not installed here"


TOOLS = [
    ("curl", curl, lambda: here("curl")),
    ("evertoken exec", exec_command, lambda: None),
    ("git", git, lambda: here("git") or git_http.missing()),
    ("kubectl", kubectl, no_kubectl),
    ("docker", docker, lambda: here("docker")),
    ("Claude Code", claude, lambda: child.missing("claude-code", "claude")),
    ("Codex", codex, lambda: child.missing("codex", "codex")),
]


def repositories(folder):
    class World:
        pass

    World.folder = folder
    git_http.serve(World)
    return folder / "repositories"


@contextlib.contextmanager
def running(tools):
    """An evertoken that hands tokens out."""
    proxy = drive.Evertoken(tools.folder, tools.env)
    drive.wait_for(lambda: sum("Successfully refreshed" in line for line in proxy.lines()) == 2, proxy.lines)
    yield proxy
    handed = sum("Handed out the token" in line for line in proxy.lines())
    proxy.stop()
    assert handed > 0, "the tokens came from the running evertoken"


def drive_all(is_running):
    used, left_out = [], []
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(Sandbox()) as sandbox:
        folder = pathlib.Path(folder)
        host = Host(folder, repositories(folder))
        tools = Tools(folder, host, sandbox, is_running)
        with running(tools) if is_running else contextlib.nullcontext():
            for name, use, missing in TOOLS:
                if why := missing():
                    left_out.append(f"{name} ({why})")
                    continue
                use(tools)
                used.append(name)
        # They share a chain, and each call after the first found a good token.
        assert len(host.granted) == 1, host.granted
        assert all(token in host.granted for _, token in host.asked)
    return used, left_out


def main():
    drive.BINARY = BINARIES / "evertoken"
    used, left_out = drive_all(is_running=True)
    TOOLS[:] = [tool for tool in TOOLS if tool[0] in ("curl", "git", "kubectl", "docker")]
    drive_all(is_running=False)
    print(f"tools: {', '.join(used)} got their tokens" + "".join(f"; left out: {one}" for one in left_out))


if __name__ == "__main__":
    main()
