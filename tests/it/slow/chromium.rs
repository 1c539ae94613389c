//! Headless Chromium over its debugging protocol, by two pipes: what the page's tests look through.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crossbeam_channel::{Receiver, unbounded};
use serde_json::{Value, json};

use crate::support::{PATIENCE, eventually};

/// A browser with one page. Dropping it ends it and what it started.
pub(crate) struct Chromium {
    child: Child,
    commands: File,
    answers: Receiver<Value>,
    session: String,
    next_id: u64,
    /// Its complaints: errors of scripts, refused loads, violated policies.
    complaints: Vec<String>,
    _profile: tempfile::TempDir,
}

impl Chromium {
    /// Starts it with an empty page.
    pub(crate) fn start() -> Self {
        let profile = tempfile::tempdir().expect("a folder");
        let pipe = |name: &str| {
            let path = profile.path().join(name);
            let made = Command::new("mkfifo").arg(&path).status().expect("mkfifo is there");
            assert!(made.success());
            path
        };
        let (commands, answers) = (pipe("commands"), pipe("answers"));
        // The shell opens the pipes under the numbers that Chromium takes them by.
        let script =
            "commands=$1 answers=$2; shift 2; exec chromium \"$@\" 3<\"$commands\" 4>\"$answers\"";
        let child = Command::new("/bin/sh")
            .args(["-c", script, "sh"])
            .args([&commands, &answers])
            .args([
                "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic",
            ])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ])
            .args(["--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("chromium is installed");
        let commands = File::options().write(true).open(commands).expect("a pipe");
        let answers = listen(&answers);
        let session = String::new();
        let mut browser = Self {
            child,
            commands,
            answers,
            session,
            next_id: 0,
            complaints: Vec::new(),
            _profile: profile,
        };
        browser.attach();
        browser
    }

    fn attach(&mut self) {
        let mut page = None;
        eventually("there is a page", || {
            let targets = self.call("Target.getTargets", json!({}))["targetInfos"].clone();
            let pages = targets.as_array().expect("a list").clone();
            page = pages.into_iter().find(|target| target["type"] == "page");
            page.is_some()
        });
        let id = page.expect("it was found")["targetId"].clone();
        let attached =
            self.call("Target.attachToTarget", json!({ "targetId": id, "flatten": true }));
        attached["sessionId"].as_str().expect("a session").clone_into(&mut self.session);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            self.call(&format!("{domain}.enable"), json!({}));
        }
    }

    /// Calls a method and waits for its result.
    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "it reads better at the calls")]
    pub(crate) fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.try_call(method, &parameters).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// The same; a page that is being left can't answer, for one.
    fn try_call(&mut self, method: &str, parameters: &Value) -> Result<Value, Value> {
        self.next_id += 1;
        let id = self.next_id;
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.commands.write_all(&bytes).expect("it listens");
        loop {
            let answer = self.answers.recv_timeout(PATIENCE).expect("an answer in time");
            if answer["id"] == id {
                return match answer.get("error") {
                    Some(error) => Err(error.clone()),
                    None => Ok(answer["result"].clone()),
                };
            }
            self.note(&answer);
        }
    }

    fn note(&mut self, event: &Value) {
        let parameters = &event["params"];
        let complaint = match event["method"].as_str().unwrap_or_default() {
            "Runtime.exceptionThrown" => Some(parameters["exceptionDetails"].to_string()),
            "Runtime.consoleAPICalled" => Some(parameters["args"].to_string()),
            "Log.entryAdded" if parameters["entry"]["level"] != "verbose" => {
                Some(parameters["entry"].to_string())
            }
            _ => None,
        };
        self.complaints.extend(complaint);
    }

    /// Its complaints since the last call.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        // All earlier messages have arrived now.
        self.evaluate("0");
        std::mem::take(&mut self.complaints)
    }

    /// The value of an expression, a promise's once it is kept.
    #[track_caller]
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        self.try_evaluate(expression).unwrap_or_else(|why| panic!("{expression}: {why}"))
    }

    fn try_evaluate(&mut self, expression: &str) -> Result<Value, Value> {
        let parameters =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.try_call("Runtime.evaluate", &parameters)?;
        match result.get("exceptionDetails") {
            Some(details) => Err(details.clone()),
            None => Ok(result["result"]["value"].clone()),
        }
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, expression: &str) {
        eventually(expression, || self.try_evaluate(expression).is_ok_and(|value| value == true));
    }

    /// Opens `url` and waits until it is loaded.
    pub(crate) fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url }));
        let here = json!(url);
        self.wait_for(&format!("document.readyState === 'complete' && location.href === {here}"));
    }

    /// Shows the page on a screen of this width, light or dark.
    pub(crate) fn screen(&mut self, width: u32, scheme: &str) {
        let metrics =
            json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// Presses a key, as a person does.
    pub(crate) fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Enter" => (13, "\r"),
            "Tab" => (9, ""),
            other => panic!("no such key here: {other}"),
        };
        let down = if text.is_empty() { "rawKeyDown" } else { "keyDown" };
        for kind in [down, "keyUp"] {
            let event = json!({
                "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text,
            });
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// A picture of the whole page.
    pub(crate) fn picture(&mut self, path: &Path) {
        use base64::Engine;
        let parameters = json!({ "format": "png", "captureBeyondViewport": true });
        let data = self.call("Page.captureScreenshot", parameters)["data"].clone();
        let bytes = base64::prelude::BASE64_STANDARD.decode(data.as_str().expect("text"));
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, bytes.expect("base64")).expect("a file");
    }
}

/// Reads what comes out of `pipe`, a message up to each zero byte.
fn listen(pipe: &Path) -> Receiver<Value> {
    let reader = File::open(pipe).expect("a pipe");
    let (sender, answers) = unbounded();
    let read = move || {
        for message in BufReader::new(reader).split(0).map_while(Result::ok) {
            let message = serde_json::from_slice(&message).expect("JSON");
            if sender.send(message).is_err() {
                return;
            }
        }
    };
    evertoken::testing::spawn("chromium", 512 * 1024, read).expect("a thread").detach();
    answers
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let id = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        // Its processes are a group of their own.
        let _ = rustix::process::kill_process_group(
            id.expect("it has an id"),
            rustix::process::Signal::KILL,
        );
        let _ = self.child.wait();
        // The last of them has ended once nobody can answer, and the profile can be removed.
        self.answers.iter().for_each(drop);
    }
}
