"""The first hour of somebody who has Rust, make, a C compiler and curl, and reads README.md and docs/: build, run, curl, a
configuration of their own before a real issuer, logins, a restart, a mistake, a reload, install, uninstall.

All of it happens in a root of its own, with the tools of Debian's base system and those, and an empty HOME; the network is
this root's own too. Each command is one that the documents print, word for word, but that `sudo` is left out (the
root's user is root) and that what stands in <angle brackets> is filled in. Needs root; `make test-install` calls it.
"""

import http.cookiejar
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

from drive import ROOT, Issuer, wait_for
from login import browse

HOME = ROOT / "target/first-hour"
# What Debian always has, of which the commands that any container has are taken.
BASE_PACKAGES = ["coreutils", "dash", "findutils", "grep", "sed"]
TOOLS = ["make", "cc", "gcc", "as", "ld", "ar", "curl"]
# Read-only folders of the machine that hold libraries and headers, but no commands.
LIBRARIES = ["usr/lib", "usr/lib64", "usr/libexec", "usr/include", "etc/ssl"]
BUILD_SECONDS = 900
LIFETIME_SECONDS = 3600
CALLBACK = "https://client.example/callback"

PROVIDER = """
providers:
  - name: "Work"
    type: anthropic
    base_url: "{url}"
    auto_refresh_config:
      token_url: "{url}/token"
      client_id_env: "WORK_CLIENT_ID"
      scope: "openid offline_access"
      authorization_url: "{url}/auth?prompt=consent"
      redirect_uri: "{callback}"
      device_authorization_url: "{url}/device/auth"
"""

steps = 0


def passed(what, since=None):
    global steps
    steps += 1
    took = f" ({time.monotonic() - since:.0f} s)" if since else ""
    print(f"ok {steps} - {what}{took}", flush=True)


def documented(document, command):
    """The command, which the document prints."""
    assert command in (ROOT / document).read_text(), f"{document} does not print: {command}"
    return command.replace("sudo ", "")


class Root:
    """A system with hardly anything in it."""

    def __init__(self, folder):
        self.folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        for name in ["usr/bin", "etc", "root", "proc", "dev", "opt/rust", "opt/cargo", "usr/local", "var/lib", *LIBRARIES]:
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "tmp").mkdir(mode=0o1777)
        for name in ["bin", "sbin", "lib", "lib64"]:
            (folder / name).symlink_to("usr/" + name.replace("sbin", "bin"))
        (folder / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        listed = subprocess.run(["dpkg", "-L", *BASE_PACKAGES], capture_output=True, text=True, check=True).stdout
        base = [name for name in listed.split() if re.fullmatch(r"(/usr)?/s?bin/[^/]+", name)]
        for name in base + [shutil.which(tool) or sys.exit(f"{tool} is missing") for tool in TOOLS]:
            if pathlib.Path(name).exists():
                shutil.copy2(os.path.realpath(name), folder / "usr/bin" / pathlib.Path(name).name)
        (folder / "usr/bin/sh").unlink(missing_ok=True)
        (folder / "usr/bin/sh").symlink_to("dash")
        for name in LIBRARIES:
            self.mount("--bind", "/" + name, name)
            mount("-o", "remount,bind,ro", folder / name)
        sysroot = subprocess.run(["rustc", "--print", "sysroot"], cwd=ROOT, capture_output=True, text=True, check=True)
        self.mount("--bind", sysroot.stdout.strip(), "opt/rust")
        # The packages, which would be downloaded.
        packages = os.environ.get("CARGO_HOME", os.path.expanduser("~/.cargo"))
        self.mount("--bind", packages, "opt/cargo")
        self.mount("--rbind", "/dev", "dev")
        self.mount("-t", "proc", "proc", "proc")
        self.variables = {
            "HOME": "/root",
            "PATH": "/usr/local/bin:/usr/bin:/bin:/opt/rust/bin",
            "CARGO_HOME": "/opt/cargo",
            "CARGO_NET_OFFLINE": "true",
            # The same steps as with all of the optimization, which takes minutes more and has no part in what is tested here.
            "CARGO_PROFILE_RELEASE_LTO": "off",
            "CARGO_PROFILE_RELEASE_OPT_LEVEL": "0",
            "TERM": "dumb",
        }

    def mount(self, *arguments):
        *arguments, place = arguments
        mount(*arguments, self.folder / place)

    def clone(self):
        """What git would bring: the files that are in the repository."""
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
        for name in filter(None, listed.split("\0")):
            place = self.folder / "root/evertoken" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place, follow_symlinks=False)
        return self.folder / "root/evertoken"

    def command(self, text):
        return [shutil.which("chroot"), str(self.folder), "/bin/sh", "-c", f"cd /root/evertoken && {text}"]

    def run(self, text, code=0, seconds=60, given=None):
        """What the command prints, both ways, and ends with `code`."""
        done = subprocess.run(
            self.command(text), env=self.variables, input=given, text=True, timeout=seconds,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        assert done.returncode == code, f"{text}: exit code {done.returncode}\n{done.stdout}"
        return done.stdout


class Started:
    """A command that stays."""

    def __init__(self, root, text, stdin=subprocess.DEVNULL):
        self.said = open(root.folder / "tmp" / f"said-{time.monotonic_ns()}", "w+")
        self.process = subprocess.Popen(
            root.command("exec " + text), env=root.variables, stdin=stdin, stdout=self.said, stderr=self.said,
            start_new_session=True,
        )

    def text(self):
        return pathlib.Path(self.said.name).read_text()

    def wait_for(self, wanted, seconds=20, times=1):
        deadline = time.monotonic() + seconds
        while self.text().count(wanted) < times:
            assert time.monotonic() < deadline and self.process.poll() is None, f"no '{wanted}' in: {self.text()}"
            time.sleep(0.05)
        return self.text()

    def end(self, number=signal.SIGINT):
        """As a terminal does, with Ctrl-C."""
        os.killpg(self.process.pid, number)
        code = self.process.wait(40)
        self.said.close()
        return code


def mount(*arguments):
    subprocess.run(["mount", *map(str, arguments)], check=True)


class Person(urllib.request.HTTPRedirectHandler):
    """Somebody who says yes to all that the issuer's pages ask, until they lead to the callback."""

    def redirect_request(self, *arguments):
        if arguments[-1].startswith(CALLBACK):
            raise Arrived(arguments[-1])
        return super().redirect_request(*arguments)

    def log_in(self, address):
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        opener = urllib.request.build_opener(self, cookies)
        try:
            page = opener.open(address, timeout=20)
            for _ in range(5):
                text = page.read().decode()
                action = re.search(r'<form[^>]*action="([^"]+)"', text).group(1)
                hidden = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]+)"', text))
                form = urllib.parse.urlencode({**hidden, "login": "user", "password": "any"}).encode()
                page = opener.open(urllib.parse.urljoin(page.url, action), form, timeout=20)
        except Arrived as arrived:
            return arrived.address
        raise SystemExit("the issuer's pages lead nowhere")


class Arrived(Exception):
    def __init__(self, address):
        super().__init__(address)
        self.address = address


def demo(root):
    began = time.monotonic()
    running = Started(root, documented("README.md", "make run"))
    said = running.wait_for("curl -N ", BUILD_SECONDS)
    passed("make run builds and starts the sandbox", began)
    line = next(line for line in said.splitlines() if line.strip().startswith("curl -N "))
    answer = root.run(line.strip())
    assert "event: content_block_delta" in answer or "data: " in answer, answer
    page = re.search(r"http://127\.0\.0\.1:\d+/-/", said)
    assert page and "<title>" in root.run(f"curl -s {page.group()}"), said
    # The tokens live 30 seconds: somebody who watches sees the next one.
    running.wait_for("Successfully refreshed token", 60, times=2)
    assert running.end() in (0, 130, 2, -signal.SIGINT), running.text
    passed("the printed curl line streams, the printed page is there, tokens are refreshed, Ctrl-C ends it")


def own(root, clone, issuer):
    root.run(documented("README.md", "cp providers.yaml.example providers.yaml && chmod 600 providers.yaml"))
    (clone / "providers.yaml").write_text(PROVIDER.format(url=issuer.url, callback=CALLBACK))
    root.variables["WORK_CLIENT_ID"] = "evertoken-login"
    check = documented("README.md", "target/quick/evertoken check --online")
    told = root.run(check, code=78)
    assert "There is no refresh token yet; run: evertoken login" in told, told
    passed("check --online says that a login is needed, and with which command")

    running = Started(root, documented("README.md", "make run"))
    running.wait_for("Listening on http://127.0.0.1:8080", BUILD_SECONDS)
    readme = (ROOT / "README.md").read_text()
    request = re.search(r"curl -N http://127\.0\.0\.1:8080/v1/messages.*?'\n", readme, re.S).group()
    refused = root.run(request)
    assert "evertoken login --provider work" in refused, refused

    # docs/login.md logs in to another provider, with the installed program.
    documented("docs/login.md", "evertoken login --provider")
    documented("docs/login.md", "--paste")
    login = "target/quick/evertoken login --provider work"
    pasting = Started(root, f"{login} --paste", stdin=subprocess.PIPE)
    address = re.search(r"https?://\S+/auth\?\S+", pasting.wait_for("/auth?")).group()
    pasting.process.stdin.write((Person().log_in(address) + "\n").encode())
    pasting.process.stdin.close()
    assert pasting.process.wait(20) == 0, pasting.text()
    running.wait_for("Using the login that was stored for provider: Work", 40)
    answer = root.run(request)
    assert "text_delta" in answer, answer
    told = root.run(check)
    assert "order" in told, told
    passed("a login by paste: the running evertoken takes it up, README's curl line streams, check is content")

    rotated = issuer.stats()["rotations"]
    assert running.end() in (0, 130, 2, -signal.SIGINT), running.text()
    running = Started(root, "make run")
    running.wait_for("Using the stored token for provider: Work", BUILD_SECONDS)
    assert "text_delta" in root.run(request)
    assert issuer.stats()["rotations"] == rotated, "a restart costs no refresh"
    passed("a restart: the stored token is used")

    typing = Started(root, f"{login} --device")
    complete = [line.strip() for line in typing.wait_for("user_code=").splitlines() if "user_code=" in line][0]
    browse(complete, "Sign-in Success")
    assert typing.process.wait(30) == 0, typing.text()
    passed("a login by device code, in another browser")
    return running, request


def mistake_and_reload(root, clone, issuer, running, request):
    status = documented("README.md", "evertoken status")
    good = (clone / "providers.yaml").read_text()
    (clone / "providers.yaml").write_text(good.replace("token_url", "tokn_url"))
    mistake = "unknown key 'tokn_url' in auto_refresh_config, did you mean 'token_url'?"
    assert mistake in root.run("target/quick/evertoken check", code=78)
    told = root.run("curl -s -X POST http://127.0.0.1:8080/-/reload", code=0)
    assert "tokn_url" in told, told
    running.wait_for(mistake)
    running.wait_for("stays in use")
    told = root.run(f"target/quick/{status}", code=0)
    assert "Work" in told and "tokn_url" in told, told
    assert "text_delta" in root.run(request), "the running one is left alone"
    (clone / "providers.yaml").write_text(good)
    documented("README.md", "POST /-/reload")
    root.run("curl -sf -X POST http://127.0.0.1:8080/-/reload")
    running.wait_for("Reloaded the configuration")
    assert running.end() in (0, 130, 2, -signal.SIGINT), running.text()
    passed("a mistake is shown with its place and changes nothing; a reload takes the mended file; status says both")


def installed(root, clone, issuer, request):
    before = set(files(root))
    began = time.monotonic()
    root.run(documented("docs/installing.md", "make build && sudo make install"), seconds=BUILD_SECONDS)
    passed("make build && make install, after make run", began)
    for line in [
        "sudo install -d /etc/evertoken",
        "sudo cp /usr/local/share/evertoken/providers.yaml.example /etc/evertoken/providers.yaml",
        "sudo install -m 600 /usr/local/share/evertoken/environment.example /etc/evertoken/environment",
    ]:
        root.run(documented("docs/installing.md", line))
    etc = root.folder / "etc/evertoken"
    shutil.copy(clone / "providers.yaml", etc / "providers.yaml")
    (etc / "environment").write_text(f"WORK_CLIENT_ID={root.variables.pop('WORK_CLIENT_ID')}\n")
    check = documented("docs/installing.md", "sudo evertoken check --online --config /etc/evertoken/providers.yaml")
    # Everybody is root here and has root's state folder, with what the logins above brought.
    told = root.run(check)
    assert "order" in told, told
    login = documented("docs/login.md", "sudo evertoken login --config /etc/evertoken/providers.yaml --provider work --paste")
    typing = Started(root, login.replace("--paste", "--device"))
    complete = [line.strip() for line in typing.wait_for("user_code=").splitlines() if "user_code=" in line][0]
    browse(complete, "Sign-in Success")
    assert typing.process.wait(30) == 0, typing.text()
    root.run(check)
    running = Started(root, "evertoken run --config /etc/evertoken/providers.yaml")
    documented("docs/installing.md", "evertoken run --config providers.yaml")
    running.wait_for("Listening on http://127.0.0.1:8080")
    eventually_streams(root, request)
    assert "Work" in root.run("evertoken status")
    assert running.end(signal.SIGTERM) == 0, running.text()
    passed("the installed program: checked, logged in, run, stopped")
    documented("docs/installing.md", "make uninstall")
    root.run("make uninstall")
    left = [name for name in files(root) if name not in before and name.startswith("/usr/local")]
    assert not left, left
    passed("make uninstall leaves nothing")


def eventually_streams(root, request):
    wait_for(lambda: "text_delta" in root.run(request))


def files(root):
    place = root.folder / "usr/local"
    return [str(pathlib.Path("/") / one.relative_to(root.folder)) for one in place.rglob("*") if one.is_file()]


def main():
    if os.environ.get("EVERTOKEN_FIRST_HOUR") != "inside":
        subprocess.run(["cargo", "fetch", "--locked", "--quiet", "--target", "x86_64-unknown-linux-gnu"], cwd=ROOT, check=True)
        inside = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--propagation", "private"]
        os.environ["EVERTOKEN_FIRST_HOUR"] = "inside"
        os.execvp("unshare", [*inside, sys.executable, *sys.argv])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    root = Root(HOME)
    clone = root.clone()
    demo(root)
    with Issuer(LIFETIME_SECONDS) as issuer:
        running, request = own(root, clone, issuer)
        mistake_and_reload(root, clone, issuer, running, request)
        installed(root, clone, issuer, request)
        assert issuer.stats()["reuses"] == 0, issuer.stats()
    print(f"first hour: {steps} passed; 0 failed")


if __name__ == "__main__":
    sys.exit(main())
