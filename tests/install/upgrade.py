#!/usr/bin/env python3
"""The state folder of the release before under this program, and the other way round: tokens stay usable.

upgrade.py PROGRAM SANDBOX [COMMIT]: builds the program of COMMIT, by default of the newest tag v… that is not on this commit,
else of the commit that wrote CHANGELOG.md's newest release. Both run on one folder in turns, ended in order and killed, against
an issuer that revokes a chain whose refresh token is used twice.
"""

import http.client
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile

from sandbox import LIMIT_S, Sandbox, configuration, eventually

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Who runs, and how it ends.
TURNS = [("before", signal.SIGTERM), ("now", signal.SIGTERM), ("before", signal.SIGKILL), ("now", signal.SIGKILL),
         ("before", signal.SIGTERM), ("now", signal.SIGTERM)]


def git(*words):
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def commit_before():
    """The release before this one."""
    for tag in git("tag", "--list", "v*", "--sort=-version:refname", "--merged", "HEAD").split():
        if git("rev-parse", f"{tag}^{{commit}}") != git("rev-parse", "HEAD"):
            return tag
    version = re.search(r"^## \[(\d.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)[1]
    return git("log", "--reverse", "--format=%h", f"-S## [{version}]", "--", "CHANGELOG.md").split()[0]


def build(commit):
    """The program of `commit`, in folders that the next check uses again."""
    home = ROOT / "target/upgrade"
    tree = home / "tree"
    if not (tree / ".git").exists():
        home.mkdir(parents=True, exist_ok=True)
        subprocess.run(["git", "clone", "--quiet", "--no-checkout", ROOT, tree], check=True)
    subprocess.run(["git", "fetch", "--quiet", "--tags", ROOT, git("rev-parse", f"{commit}^{{commit}}")], cwd=tree, check=True)
    subprocess.run(["git", "checkout", "--quiet", "--force", "--detach", "FETCH_HEAD"], cwd=tree, check=True)
    subprocess.run(["cargo", "build", "--quiet", "--locked", "--bin", "evertoken", "--target-dir", home / "build"], cwd=tree,
                   check=True)
    return home / "build/debug/evertoken"


def ask(port, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    fields = {"content-type": "application/json", "anthropic-version": "2023-06-01"}
    connection.request(method, path, body and json.dumps(body), fields)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def turn(program, how, folder, env, issuer, requests):
    """One run: the stored token serves, a refresh brings the next one, and both are there for who comes after."""
    granted = issuer.control("stats")["granted"]
    is_first = granted == 0
    subprocess.run([program, "check", "--config", folder / "providers.yaml"], env=env, check=True, capture_output=True)
    with open(folder / "log", "w") as log:
        arguments = [program, "run", "--config", folder / "providers.yaml"]
        process = subprocess.Popen(arguments, env=env, stderr=log)
    text = lambda: (folder / "log").read_text()
    try:
        port = int(eventually("it listens", lambda: re.search(r"Listening on http://127\.0\.0\.1:(\d+)", text()))[1])
        body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
        status, said = ask(port, "POST", "/v1/messages", body)
        assert status == 200, f"{status} {said}\n{text()}"
        assert issuer.control("stats")["granted"] == granted + is_first, f"a refresh without need:\n{text()}"
        status, said = ask(port, "POST", "/-/refresh/work-account")
        assert status == 200, f"{status} {said}\n{text()}"
        assert ask(port, "POST", "/v1/messages", body)[0] == 200, text()
        assert issuer.control("stats")["granted"] == granted + is_first + 1, text()
        used = json.loads(ask(port, "GET", "/-/status")[1]).get("usage")
    finally:
        process.send_signal(how)
        code = process.wait(LIMIT_S)
    assert code == (0 if how == signal.SIGTERM else -how), f"it ended with {code}:\n{text()}"
    assert not re.search(r"\[(ERROR|WARN)\]", text()), text()
    if how == signal.SIGTERM and used is not None:
        counted = sum(one["today"]["requests"] for one in used["models"])
        assert counted >= requests["kept"], f"the usage counts of earlier runs are lost: {used}\n{text()}"
        requests["kept"] = counted


def main():
    now, sandbox = (pathlib.Path(name).resolve() for name in sys.argv[1:3])
    commit = sys.argv[3] if len(sys.argv) > 3 else commit_before()
    programs = {"before": build(commit), "now": now}
    with Sandbox(sandbox) as issuer, tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        settings = {"port": 0, "state_dir": f"{folder}/state"}
        (folder / "providers.yaml").write_text(configuration(issuer.url, settings, name="Work account"))
        (folder / "providers.yaml").chmod(0o600)
        env = {"PATH": os.environ["PATH"], "HOME": name, **issuer.variables()}
        requests = {"kept": 0}
        for who, how in TURNS:
            turn(programs[who], how, folder, env, issuer, requests)
            print(f"ok - {who}: the stored token served, a refresh brought the next one, ended by {how.name}", flush=True)
        assert issuer.control("stats")["reused"] == 0, issuer.control("stats")
        left = sorted(path.name for path in (folder / "state").iterdir())
        assert not [one for one in left if "corrupt" in one or "superseded" in one], left
    print(f"{len(TURNS)} turns between {commit} and this one passed, no refresh token was used twice")


if __name__ == "__main__":
    main()
