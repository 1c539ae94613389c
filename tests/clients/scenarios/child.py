"""Starts programs that are children of a test."""

import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[3]
NPM = ROOT / "target/clients/npm"
PATIENCE_SECONDS = 120


def missing(folder, program):
    """Why a program from npm can't be run here, or None."""
    path = NPM / folder / "node_modules/.bin" / program
    if not path.exists():
        return "it could not be installed from the npm registry"
    done = subprocess.run([path, "--version"], env=environment("/nonexistent"), capture_output=True, text=True, timeout=60)
    return None if done.returncode == 0 else f"it does not start here: {done.stderr.strip()[:200]}"


def environment(home, **more):
    """A program's environment: an empty home, and no way to hosts other than this one."""
    return {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        # Nobody listens there.
        "HTTPS_PROXY": "http://127.0.0.1:1",
        "NO_PROXY": "127.0.0.1",
        **more,
    }


def run(command, folder, env, given=None, code=0):
    """What the program prints on stdout."""
    done = subprocess.run(
        [str(word) for word in command], cwd=folder, env=env, input=given, text=True, capture_output=True, timeout=PATIENCE_SECONDS
    )
    said = f"exit code {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert done.returncode == code, said
    return done.stdout
