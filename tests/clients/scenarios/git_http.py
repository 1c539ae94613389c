"""git clone and push over HTTP, to git's own http-backend."""

import os
import pathlib
import random
import subprocess

from recorder import Answer
from scenarios import child

HOST = "git.example.com"
# More than git holds back (http.postBuffer, 1 MiB), so that it sends chunks.
FILE_BYTES = 3 << 20


def git(folder, *words, header=None):
    """What it prints. Everything that a commit's name is made from is fixed."""
    env = child.environment(
        folder, GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_NOSYSTEM="1", GIT_TERMINAL_PROMPT="0",
        GIT_AUTHOR_NAME="A", GIT_AUTHOR_EMAIL="a@example.com", GIT_AUTHOR_DATE="2026-01-01T00:00:00Z",
        GIT_COMMITTER_NAME="A", GIT_COMMITTER_EMAIL="a@example.com", GIT_COMMITTER_DATE="2026-01-01T00:00:00Z",
    )
    options = ["-c", "pack.threads=1", "-c", "init.defaultBranch=main", "-c", "protocol.version=2"]
    if header:
        options += ["-c", f"http.extraHeader={header}"]
    return child.run(["git", *options, *words], folder, env)


def clone_and_push(side):
    folder = side.folder()
    header = f"Authorization: Bearer {side.credential}" if side.credential != "none" else None
    git(folder, "clone", f"{side.provider}/repository.git", "clone", header=header)
    clone = folder / "clone"
    read = (clone / "README").read_text()
    (clone / "large").write_bytes(random.Random(7).randbytes(FILE_BYTES))
    git(clone, "add", ".")
    git(clone, "commit", "-m", "large")
    git(clone, "push", "origin", "main", header=header)
    pushed = git(side.world.folder / "repositories/repository.git", "rev-parse", "main")
    assert pushed == git(clone, "rev-parse", "HEAD"), pushed
    return read, pushed


def serve(world):
    """A new repository with one commit, behind http-backend."""
    root = world.folder / "repositories"
    subprocess.run(["rm", "-rf", root], check=True)
    first = root / "first"
    first.mkdir(parents=True)
    git(first, "init")
    (first / "README").write_text("evertoken\n")
    git(first, "add", ".")
    git(first, "commit", "-m", "first")
    git(root, "clone", "--bare", "first", "repository.git")
    return lambda record: backend(root, record)


def backend(root, record):
    """What git's CGI program answers (RFC 3875)."""
    path, _, query = record.rest.partition("?")
    env = {
        "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(root), "GIT_HTTP_EXPORT_ALL": "1", "REMOTE_USER": "tests",
        "REQUEST_METHOD": record.method, "PATH_INFO": path, "QUERY_STRING": query,
        "CONTENT_TYPE": record.field("content-type") or "", "CONTENT_LENGTH": str(len(record.body)),
        "HTTP_CONTENT_ENCODING": record.field("content-encoding") or "", "GIT_PROTOCOL": record.field("git-protocol") or "",
    }
    done = subprocess.run([program()], env=env, input=record.body, capture_output=True, timeout=60)
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    fields = [tuple(line.split(": ", 1)) for line in head.decode().split("\r\n")]
    status = int(dict(fields).get("Status", "200").split()[0])
    fields = [(name, value) for name, value in fields if name != "Status"]
    return Answer(status, [*fields, ("content-length", str(len(body)))], [body])


def program():
    folder = subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True).stdout.strip()
    return pathlib.Path(folder) / "git-http-backend"


def missing():
    return None if program().exists() else f"{program()} is not there"


SCENARIOS = [
    {
        "name": "git, clone and push", "host": HOST, "slug": "git", "run": clone_and_push, "script": serve, "missing": missing,
        "says": ("git clone http://127.0.0.1:8080/to/git/repository.git", '"http.extraHeader=Authorization: Bearer $KEY"'),
    },
]
