"""Holds a container image to what an engine expects of it and to the Dockerfile, and runs it without an engine.

image.py IMAGE DOCKERFILE, as root, in a network of its own: each digest and size, both lists of the tar, the same settings as the
Dockerfile's, then the image's own command in its own root as its own user, with its own health check.
"""

import gzip
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time

import dockerfile

LIMIT_S = 60
DURATION_NS = {"s": 1_000_000_000, "m": 60_000_000_000}


def sha256(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Image:
    """The files of the tar, and what they say."""

    def __init__(self, path):
        with tarfile.open(path) as tar:
            self.files = {entry.name: tar.extractfile(entry).read() for entry in tar if entry.isfile()}
        assert json.loads(self.files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
        self.seen = set()
        (top,) = json.loads(self.files["index.json"])["manifests"]
        self.manifest = json.loads(self.blob(top))
        self.config = json.loads(self.blob(self.manifest["config"]))
        self.layers = [self.blob(layer) for layer in self.manifest["layers"]]
        blobs = {name for name in self.files if name.startswith("blobs/")}
        assert blobs == self.seen, blobs ^ self.seen
        self.tag = top["annotations"]["io.containerd.image.name"]

    def blob(self, descriptor):
        """What a descriptor stands for."""
        name = "blobs/" + descriptor["digest"].replace(":", "/")
        content = self.files[name]
        assert sha256(content) == descriptor["digest"] and len(content) == descriptor["size"], descriptor
        self.seen.add(name)
        return content

    def check_lists(self):
        """The layers are those of the configuration; Docker's list says the same as OCI's."""
        unpacked = [sha256(gzip.decompress(layer)) for layer in self.layers]
        assert self.config["rootfs"] == {"type": "layers", "diff_ids": unpacked}
        (docker,) = json.loads(self.files["manifest.json"])
        name = lambda descriptor: "blobs/" + descriptor["digest"].replace(":", "/")
        assert docker["Config"] == name(self.manifest["config"])
        assert docker["Layers"] == [name(layer) for layer in self.manifest["layers"]]
        assert [f"docker.io/library/{tag}" for tag in docker["RepoTags"]] == [self.tag]


def nanoseconds(text):
    number, unit = re.fullmatch(r"(\d+)([sm])", text).groups()
    return int(number) * DURATION_NS[unit]


def settings_of(path):
    """The settings of an image that the Dockerfile's last stage makes."""
    settings = {}
    for command in dockerfile.parse_file(path):
        name, value = command.cmd.upper(), list(command.value)
        if name == "FROM":
            settings = {}
        elif name == "USER":
            settings["User"] = value[0]
        elif name == "ENV":
            settings["Env"] = [f"{value[0]}={value[1]}"]
        elif name == "VOLUME":
            settings["Volumes"] = {one: {} for one in value}
        elif name == "EXPOSE":
            settings["ExposedPorts"] = {f"{one}/tcp": {} for one in value}
        elif name == "STOPSIGNAL":
            settings["StopSignal"] = value[0]
        elif name == "ENTRYPOINT":
            settings["Entrypoint"] = value
        elif name == "CMD":
            settings["Cmd"] = value
        elif name == "HEALTHCHECK":
            flags = dict(flag.removeprefix("--").split("=") for flag in command.flags)
            settings["Healthcheck"] = {
                "Test": ["CMD", *json.loads(command.original[command.original.index("["):])],
                "Interval": nanoseconds(flags["interval"]),
                "Timeout": nanoseconds(flags["timeout"]),
                "StartPeriod": nanoseconds(flags["start-period"]),
            }
    return settings


def unpack(image, root):
    """Makes the image's root, with a certificate for clients that names nobody here; returns its user."""
    for layer in image.layers:
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            tar.extractall(root, numeric_owner=True)
    user = int(image.config["config"]["User"].split(":")[0])
    assert user != 0
    state = root / "state"
    assert (state.stat().st_uid, state.stat().st_mode & 0o777) == (user, 0o700)
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    folder = root / "etc/evertoken"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-subj", "/CN=proxy.example", "-addext",
                    "subjectAltName=DNS:proxy.example", "-addext", "basicConstraints=critical,CA:FALSE"],
                   check=True, capture_output=True)
    os.chown(folder / "key.pem", user, user)
    return user


def run_it(image, root, user, settings):
    """Does what an engine does with the image, and stops it."""
    (root / "etc/evertoken/providers.yaml").write_text(
        f"settings: {{auth: {{enabled: true}}{settings}}}\n"
        "providers: [{name: One, type: generic, base_url: 'http://127.0.0.1:9', auth_type: none}]\n")
    env = dict(one.split("=", 1) for one in image.config["config"]["Env"]) | {"EVERTOKEN_API_KEY": "inbound-key"}
    inside = [shutil.which("chroot"), f"--userspec={user}:{user}", root]

    def is_healthy():
        _, *check = image.config["config"]["Healthcheck"]["Test"]
        return subprocess.run(inside + check, env=env, capture_output=True, timeout=LIMIT_S).returncode == 0

    command = image.config["config"]["Entrypoint"] + image.config["config"]["Cmd"]
    with open(root / "log", "w+") as log:
        running = subprocess.Popen(inside + command, env=env, stderr=log)
        until = time.monotonic() + LIMIT_S
        while not is_healthy():
            assert running.poll() is None and time.monotonic() < until, (root / "log").read_text()
            time.sleep(0.05)
        running.send_signal(signal.Signals[image.config["config"]["StopSignal"]])
        assert running.wait(LIMIT_S) == 0, (root / "log").read_text()
    assert not is_healthy()


def main():
    path, of_dockerfile = sys.argv[1:]
    image = Image(path)
    image.check_lists()
    expected, found = settings_of(of_dockerfile), dict(image.config["config"])
    assert set(found.pop("Labels")) == {f"org.opencontainers.image.{name}" for name in ("title", "version", "licenses")}
    assert found == expected, (found, expected)
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        root = pathlib.Path(folder)
        user = unpack(image, root)
        tls = ", tls: {cert_file: /etc/evertoken/cert.pem, key_file: /etc/evertoken/key.pem}"
        for settings in ["", tls, ", port: 9090", ", port: 9090" + tls]:
            run_it(image, root, user, settings)
    print("ok - image: its digests, its settings as the Dockerfile's, run as its user, its health check without and with TLS")


if __name__ == "__main__":
    main()
