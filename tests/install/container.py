"""Reads the Dockerfile with BuildKit's own parser and holds it to what docs/installing.md says of it."""

import shlex
import subprocess
import sys

import dockerfile

KNOWN = {"FROM", "WORKDIR", "COPY", "RUN", "USER", "ENV", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK",
         "ENTRYPOINT", "CMD"}

commands = dockerfile.parse_file(sys.argv[1])
assert {command.cmd.upper() for command in commands} <= KNOWN, commands

stages = []
for command in commands:
    if command.cmd.upper() == "FROM":
        stages.append([])
    stages[-1].append(command)
build, final = stages


def values(stage, name):
    """The values of each `name` in `stage`."""
    return [command.value for command in stage if command.cmd.upper() == name]


assert values(final, "FROM") == [("scratch",)]
(user,), = values(final, "USER")
assert user.split(":")[0].isdecimal() and user.split(":")[0] != "0", "not root, by number: scratch has no names"
(entry,), = values(final, "ENTRYPOINT")
(health,) = values(final, "HEALTHCHECK")
assert health[0] == "CMD" and health[1] == entry, "the program itself tells how it is"
for command in final:
    if command.cmd.upper() in {"ENTRYPOINT", "CMD", "HEALTHCHECK"}:
        # There is no shell in the image.
        assert command.json or command.cmd.upper() == "HEALTHCHECK", command.original
    for flag in command.flags:
        if flag.startswith("--from="):
            assert flag == "--from=build", flag
copied = [paths[-1] for paths in values(final, "COPY")]
assert entry in copied, copied
for run in values(build, "RUN"):
    subprocess.run(["sh", "-n", "-c", run[0]], check=True)
    first = shlex.split(run[0])[0]
    subprocess.run(["test", "-x", first], check=True)
