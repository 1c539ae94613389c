"""`evertoken login` against a real issuer (oidc-provider) with a real browser: authorization code with PKCE, and
a device code; and a running evertoken that serves with each login without being restarted.

Needs chromium; CHROMIUM (/usr/bin/chromium) is where it is.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request

from drive import BINARY, PATIENCE_SECONDS, ROOT, Evertoken, Issuer, variables, wait_for

PROVIDER = """
settings: {{port: 0, state_dir: "{folder}/state"}}
providers:
  - name: "Login"
    type: anthropic
    base_url: "{url}"
    auto_refresh_config:
      token_url: "{url}/token"
      client_id_env: LOGIN_ID
      scope: "openid offline_access"
      {keys}
"""
LIFETIME_SECONDS = 3600
BROWSER_SECONDS = 60


def browse(address, wanted):
    """The page with the `wanted` text, which a browser comes to from `address`."""
    done = subprocess.run(
        ["node", str(ROOT / "target/clients/browser.mjs"), address, wanted],
        capture_output=True, text=True, timeout=BROWSER_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Login:
    """`evertoken login` as a child process."""

    def __init__(self, folder, env, *arguments):
        self.said = open(folder / "login", "w+")
        self.process = subprocess.Popen(
            [str(BINARY), "login", "--no-browser", *(arguments or ("--provider", "login"))],
            cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=self.said, stderr=self.said,
        )

    def lines(self):
        return pathlib.Path(self.said.name).read_text().splitlines()

    def addresses(self):
        return [line.strip() for line in self.lines() if line.startswith("  http")]

    def end(self):
        code = self.process.wait(PATIENCE_SECONDS)
        self.said.close()
        assert code == 0, self.lines()


def ask(proxy):
    """The status of a request to the provider, and what it says."""
    body = json.dumps({"messages": [{"role": "user", "content": "hello"}]}).encode()
    request = urllib.request.Request(proxy.url() + "/v1/messages", body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            return answer.status, json.load(answer)["content"][0]["text"]
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def token(proxy):
    with urllib.request.urlopen(proxy.url() + "/-/status", timeout=PATIENCE_SECONDS) as answer:
        return json.load(answer)["providers"][0]["token"]


def taken_up(proxy, times):
    said = "Using the login that was stored for provider: Login"
    wait_for(lambda: sum(said in line for line in proxy.lines()) == times, proxy.lines)


def main():
    env = {**variables(), "LOGIN_ID": "evertoken-login"}
    with tempfile.TemporaryDirectory() as folder, Issuer(LIFETIME_SECONDS) as issuer:
        folder = pathlib.Path(folder)
        write = lambda keys: (folder / "providers.yaml").write_text(
            PROVIDER.format(folder=folder, url=issuer.url, keys=keys)
        )
        # A consent is what this issuer wants before it gives refresh tokens.
        write(f'authorization_url: "{issuer.url}/auth?prompt=consent"\n      issuer: "{issuer.url}"')
        proxy = Evertoken(folder, env)
        status, said = ask(proxy)
        assert status == 403 and "run: evertoken login --provider login" in said, (status, said)

        login = Login(folder, env)
        address = wait_for(login.addresses, login.lines)[0]
        page = browse(address, "evertoken has its token for Login")
        assert page["status"] == 200, page
        assert page["url"].startswith("http://127.0.0.1:") and "/callback?" in page["url"], page
        assert page["policy"].startswith("default-src 'none'") and page["cached"] == "no-store", page
        login.end()
        taken_up(proxy, 1)
        assert ask(proxy) == (200, "You said: hello")
        first = token(proxy)

        # Another login, while the first one's token is good: with a code typed into a browser anywhere.
        write(f'device_authorization_url: "{issuer.url}/device/auth"')
        login = Login(folder, env)
        complete = wait_for(lambda: login.addresses()[1:], login.lines)[0]
        browse(complete, "Sign-in Success")
        login.end()
        taken_up(proxy, 2)
        assert ask(proxy) == (200, "You said: hello")
        second = token(proxy)
        assert second["generation"] > first["generation"], (first, second)

        # Its chain goes on as any other does.
        refreshed = subprocess.run([str(BINARY), "refresh"], cwd=folder, env=env, capture_output=True, text=True)
        assert refreshed.returncode == 0, refreshed.stderr
        proxy.stop()
        stats = issuer.stats()
    print(f"Logins: a browser and a device code, {stats}")
    assert stats["refused"] == 0 and stats["rotations"] == 3, stats
    print("test-clients: login ok. 2 passed; 0 failed")


if __name__ == "__main__":
    sys.exit(main())
