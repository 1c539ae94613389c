"""Reads the plist with Python's own parser, and runs its shell with a stand-in for the program."""

import os
import pathlib
import plistlib
import subprocess
import sys
import tempfile

# launchd.plist(5).
KNOWN = {"Label", "ProgramArguments", "RunAtLoad", "KeepAlive", "ThrottleInterval", "ExitTimeOut", "Umask", "SoftResourceLimits"}

plist = plistlib.loads(pathlib.Path(sys.argv[1]).read_bytes())
assert set(plist) <= KNOWN, plist
assert plist["Label"] == "evertoken" and plist["RunAtLoad"] is True
assert plist["KeepAlive"] == {"SuccessfulExit": False}, "a stop is no failure"
assert plist["Umask"] == 0o077
assert plist["ExitTimeOut"] > 30, "longer than settings.shutdown_grace by default"
assert plist["SoftResourceLimits"]["NumberOfFiles"] >= 2 * 512 + 64, "for settings.max_connections by default"

shell, option, script = plist["ProgramArguments"]
assert (shell, option) == ("/bin/sh", "-c")
program = "/usr/local/bin/evertoken"
# Once, for `make install` with another prefix.
assert script.count(program) == 1
with tempfile.TemporaryDirectory() as home:
    home = pathlib.Path(home)
    (home / "Library/Logs").mkdir(parents=True)
    folder = home / ".config/evertoken"
    folder.mkdir(parents=True)
    stand_in = home / "program"
    stand_in.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\necho logged >&2\nexit 3\n')
    stand_in.chmod(0o755)
    script = script.replace(program, str(stand_in))
    for variables in [False, True]:
        expected = ["run", "--config", f"{folder}/providers.yaml"]
        if variables:
            (folder / "environment").write_text("A=b\n")
            expected += ["--environment-file", f"{folder}/environment"]
        done = subprocess.run([shell, option, script], env={**os.environ, "HOME": str(home)}, capture_output=True, text=True)
        assert done.stdout.splitlines() == expected, done
        assert done.returncode == 3 and not done.stderr, "its end is evertoken's"
    assert (home / "Library/Logs/evertoken.log").read_text() == "logged\n" * 2, "the log grows"
