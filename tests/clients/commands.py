"""`token_command` with programs that print real tokens: the AWS CLI as kubectl's exec plugin (an ExecCredential with its end), and
keyring (a bare text). Neither needs a network for that. `evertoken token` gets both, with nothing in the environment but what
the configuration says.

EVERTOKEN_BINARIES (target/release) is the folder of the programs under test.
"""

import base64
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARIES = pathlib.Path(os.environ.get("EVERTOKEN_BINARIES", ROOT / "target/release"))
TOOLS = pathlib.Path(sys.executable).parent
BACKEND = "keyrings.alt.file.PlaintextKeyring"
CONFIGURATION = f"""
settings: {{ state_dir: "STATE" }}
providers:
  - name: cluster
    type: generic
    base_url: "http://127.0.0.1:9"
    auto_refresh_config:
      token_command: [aws, eks, get-token, --cluster-name, my-cluster, --region, eu-west-1]
      token_command_env: {{ AWS_ACCESS_KEY_ID: AKIAIOSFODNN7EXAMPLE, AWS_SECRET_ACCESS_KEY: null }}
  - name: desktop
    type: generic
    base_url: "http://127.0.0.1:9"
    auto_refresh_config:
      token_command: [keyring, -b, {BACKEND}, get, evertoken, me]
  - name: logged-out
    type: generic
    base_url: "http://127.0.0.1:9"
    auto_refresh_config:
      token_command: [keyring, -b, {BACKEND}, get, evertoken, nobody]
"""


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        configuration = folder / "providers.yaml"
        configuration.write_text(CONFIGURATION.replace("STATE", str(folder / "state")))
        configuration.chmod(0o600)
        secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
        env = {
            "PATH": f"{TOOLS}:/usr/local/bin:/usr/bin:/bin", "HOME": str(folder),
            "AWS_SECRET_ACCESS_KEY": secret, "XDG_DATA_HOME": str(folder / "ours alone"),
        }
        own = {key: value for key, value in env.items() if key != "XDG_DATA_HOME"}
        keep = [TOOLS / "keyring", "-b", BACKEND, "set", "evertoken", "me"]
        subprocess.run(keep, input="token-of-keyring\n", text=True, env=own, check=True)

        def evertoken(*words):
            words = [BINARIES / "evertoken", *words, "--config", configuration]
            return subprocess.run(words, env=env, capture_output=True, text=True, timeout=120)

        def token(provider):
            done = evertoken("token", "--provider", provider, "--format", "json")
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        checked = evertoken("check")
        assert checked.returncode == 0 and f"the token_command {TOOLS}/aws" in checked.stdout, checked
        cluster = token("cluster")
        prefix, url = cluster["access_token"].split(".", 1)
        url = base64.urlsafe_b64decode(url + "=" * (-len(url) % 4)).decode()
        assert prefix == "k8s-aws-v1" and "X-Amz-Credential=AKIAIOSFODNN7EXAMPLE" in url, cluster
        # The AWS CLI gives its token 14 minutes.
        assert 700 < cluster["expires_in"] <= 840, cluster
        assert token("desktop")["access_token"] == "token-of-keyring"
        failed = evertoken("token", "--provider", "logged-out")
        assert failed.returncode == 1 and "the token_command ended with exit code 1" in failed.stderr, failed
        assert secret not in checked.stdout + checked.stderr + failed.stderr
        assert not list(folder.glob("state/*.json")), "nothing is stored"
    print("token_command: aws eks get-token and keyring give evertoken their tokens")


if __name__ == "__main__":
    main()
