#!/usr/bin/env python3
"""Looks at what `make dist` left: dist.py FOLDER. Sums, lists of libraries, the image for two machines, packages of each program."""

import gzip
import hashlib
import io
import json
import pathlib
import re
import sys
import tarfile

# By the first word of each target: the architectures of .deb and .rpm; None for a machine that neither is for.
PACKAGED = {"x86_64": ("amd64", "x86_64"), "aarch64": ("arm64", "aarch64"), "armv7": ("armhf", "armv7hl"),
            "riscv64gc": ("riscv64", "riscv64"), "mips": None, "mipsel": None}
IN_AN_IMAGE = {"amd64": "x86_64", "arm64": "aarch64"}
# Some of what each program is made of.
LIBRARIES = {"ring", "rustls", "serde_json", "ureq", "webpki-roots"}


def check_sums(folder):
    listed = dict(reversed(line.split("  ", 1)) for line in (folder / "SHA256SUMS").read_text().splitlines())
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    del found["SHA256SUMS"]
    assert listed == found, "SHA256SUMS"


def check_libraries(path, version):
    bom = json.loads(path.read_text())
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.5"), path
    own = bom["metadata"]["component"]
    assert (own["name"], own["version"]) == ("evertoken", version), path
    assert LIBRARIES <= {one["name"] for one in bom["components"]}, path
    for one in bom["components"]:
        assert one["version"] and one["purl"].startswith("pkg:cargo/") and one["licenses"], (path, one["name"])


def check_image(path, programs):
    with tarfile.open(path) as tar:
        files = {entry.name: tar.extractfile(entry).read() for entry in tar if entry.isfile()}

    def blob(descriptor):
        content = files["blobs/" + descriptor["digest"].replace(":", "/")]
        assert "sha256:" + hashlib.sha256(content).hexdigest() == descriptor["digest"], descriptor
        return content

    (top,) = json.loads(files["index.json"])["manifests"]
    images = {one["platform"]["architecture"]: json.loads(blob(one)) for one in json.loads(blob(top))["manifests"]}
    assert images.keys() == IN_AN_IMAGE.keys(), images.keys()
    for architecture, manifest in images.items():
        assert json.loads(blob(manifest["config"]))["architecture"] == architecture
        (layer,) = manifest["layers"]
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(blob(layer)))) as tar:
            program = tar.extractfile("evertoken").read()
        assert program == programs[IN_AN_IMAGE[architecture]].read_bytes(), architecture


def main():
    folder = pathlib.Path(sys.argv[1])
    version = re.search('^version = "(.*)"$', pathlib.Path("Cargo.toml").read_text(), re.MULTILINE)[1]
    # As packagers write a version before a release.
    packed = version.replace("-", "~", 1)
    programs = {}
    for path in folder.glob(f"evertoken-{version}-*-linux-*.cdx.json"):
        machine = path.name.removeprefix(f"evertoken-{version}-").partition("-")[0]
        programs[machine] = folder / path.name.removesuffix(".cdx.json")
        check_libraries(path, version)
    assert programs.keys() == PACKAGED.keys(), programs.keys()
    packages = [f"evertoken-{version}-{name}.oci.tar" for name in ("all", *IN_AN_IMAGE.values())]
    for machine, names in PACKAGED.items():
        packages.append(f"evertoken_{packed}_openwrt_{machine.removesuffix('gc')}.ipk")
        if names:
            packages += [f"evertoken_{packed}_{names[0]}.deb", f"evertoken-{packed}-1.{names[1]}.rpm"]
    missing = {name for name in packages if not (folder / name).is_file()}
    assert not missing, missing
    check_image(folder / packages[0], programs)
    check_sums(folder)
    print(f"ok - dist: {len(programs)} programs, {len(packages)} packages, sums, libraries, the image for two machines")


if __name__ == "__main__":
    main()
