"""The sandbox with some accounts, and evertoken before it: the world of keys.py and sticky.py."""

import pathlib
import subprocess
import urllib.error
import urllib.request

from drive import Evertoken, get, wait_for

ROOT = pathlib.Path(__file__).resolve().parents[2]

PROVIDER = """
  - name: "{name}"
    type: {kind}
    base_url: "{url}"
    auto_refresh_config:
      token_url: "{url}/oauth/token"
      client_id_env: SANDBOX_ID
      client_secret_env: SANDBOX_SECRET
      refresh_token_env: {name}_TOKEN
"""


class Sandboxed:
    """Starts both with `settings`, lines of the configuration, and a provider for each name and kind of `accounts`."""

    def __init__(self, folder, settings, accounts):
        program = [ROOT / "target/debug/sandbox", "serve", "--event-delay", "0", "--lifetime", "3600"]
        self.sandbox = subprocess.Popen(program, stderr=subprocess.PIPE, text=True)
        url = self.sandbox.stderr.readline().split()[-1]
        values = dict(self.sandbox.stderr.readline().strip().split("=", 1) for _ in range(3))
        env = {"HOME": "/nonexistent", "SANDBOX_ID": values["client_id"], "SANDBOX_SECRET": values["client_secret"]}
        config = f'settings:\n  port: 0\n  state_dir: "{folder}/state"\n{settings}providers:'
        for name, kind in accounts:
            env[f"{name}_TOKEN"] = get(f"{url}/control/login")["refresh_token"]
            config += PROVIDER.format(name=name, kind=kind, url=url).rstrip()
        (folder / "providers.yaml").write_text(config + "\n")
        self.evertoken = Evertoken(folder, env)
        self.url = self.evertoken.url()
        wait_for(self.is_ready)

    def is_ready(self):
        try:
            return urllib.request.urlopen(f"{self.url}/-/ready").status == 200
        except urllib.error.HTTPError:
            return False

    def __enter__(self):
        return self

    def __exit__(self, failed, *_):
        self.sandbox.kill()
        self.sandbox.wait()
        if failed:
            self.evertoken.kill()
        else:
            self.evertoken.stop()
