//! A proxy in this process, made of a configuration text.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use evertoken::testing::App;
use evertoken::testing::Clock;
use evertoken::testing::Config;
use evertoken::testing::Environment;
use evertoken::testing::Supervisor;
use evertoken::testing::{Problem, Sources, resolve};
use sandbox::Sandbox;

use super::client::{Answer, ask};

/// The number of proxies started so far.
static STARTED: AtomicU64 = AtomicU64::new(0);

/// A running proxy with its own state folder.
pub(crate) struct TestProxy {
    app: Option<App>,
    /// Its address.
    pub(crate) address: SocketAddr,
    folder: tempfile::TempDir,
}

/// The parts of a proxy.
#[derive(Default)]
pub(crate) struct Builder {
    settings: String,
    providers: String,
    routes: String,
    variables: HashMap<String, String>,
    folder: Option<tempfile::TempDir>,
    clock: Option<Clock>,
    timer: Option<fn(Duration) -> Receiver<Instant>>,
    supervisor: Option<Supervisor>,
}

impl Builder {
    /// Makes it take the time from `clock`.
    pub(crate) fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Makes it sleep by `timer`.
    pub(crate) fn timer(mut self, timer: fn(Duration) -> Receiver<Instant>) -> Self {
        self.timer = Some(timer);
        self
    }

    /// Adds lines to `settings`, in flow style: `max_connections: 1, …`.
    pub(crate) fn settings(mut self, settings: &str) -> Self {
        self.settings.push_str(", ");
        self.settings.push_str(settings);
        self
    }

    /// Adds a provider with a fixed credential, or whatever `lines` say.
    pub(crate) fn provider(mut self, name: &str, kind: &str, url: &str, lines: &str) -> Self {
        let more: String = lines.lines().map(|line| format!("    {line}\n")).collect();
        let entry =
            format!("  - name: \"{name}\"\n    type: {kind}\n    base_url: \"{url}\"\n{more}");
        self.providers.push_str(&entry);
        self
    }

    /// Adds a provider whose token comes from `token_url`.
    pub(crate) fn refreshed(self, name: &str, url: &str, token_url: &str, more: &str) -> Self {
        let more: String = more.lines().map(|line| format!("  {line}\n")).collect();
        let lines = format!(
            "auto_refresh_config:\n  enabled: true\n  token_url: \"{token_url}\"\n  \
             client_id_env: CLIENT_ID\n  client_secret_env: CLIENT_SECRET\n  \
             refresh_token_env: REFRESH_TOKEN\n{more}"
        );
        self.provider(name, "anthropic", url, &lines)
    }

    /// Adds a provider whose token comes from a login of its own at `sandbox`: an account.
    pub(crate) fn account(self, name: &str, sandbox: &Sandbox, more: &str) -> Self {
        let (secret, token) = (format!("{name}_CLIENT_SECRET"), format!("{name}_REFRESH_TOKEN"));
        let lines = format!(
            "{more}\nauto_refresh_config:\n  token_url: \"{}/oauth/token\"\n  client_id_env: CLIENT_ID\n  \
             client_secret_env: {secret}\n  refresh_token_env: {token}",
            sandbox.url()
        );
        self.variable("CLIENT_ID", sandbox::issuer::CLIENT_ID)
            .variable(&secret, &sandbox.client_secret())
            .variable(&token, &sandbox.login())
            .provider(name, "anthropic", &sandbox.url(), &lines)
    }

    /// Makes evertoken reach every provider so far through `proxy`.
    pub(crate) fn through(mut self, proxy: &str) -> Self {
        let line = format!("\n    proxy: \"{proxy}\"\n    base_url:");
        self.providers = self.providers.replace("\n    base_url:", &line);
        self
    }

    /// Adds `model_routes`.
    pub(crate) fn routes(mut self, text: &str) -> Self {
        self.routes.push_str(text);
        self
    }

    /// Sets a variable.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Takes a variable out.
    pub(crate) fn without_variable(mut self, name: &str) -> Self {
        self.variables.remove(name);
        self
    }

    /// Uses this state folder.
    pub(crate) fn folder(mut self, folder: tempfile::TempDir) -> Self {
        self.folder = Some(folder);
        self
    }

    /// Makes this one receive its messages.
    pub(crate) fn supervisor(mut self, supervisor: Supervisor) -> Self {
        self.supervisor = Some(supervisor);
        self
    }

    /// The configuration text, for a state folder unless the settings name one.
    pub(crate) fn text(&self, folder: &Path) -> String {
        let own = if self.settings.contains("state_dir") {
            String::new()
        } else {
            format!(", state_dir: \"{}\"", folder.display())
        };
        let place = if self.settings.contains("listen: [") { "" } else { "port: 0" };
        let settings = format!("{place}{own}{}", self.settings);
        format!(
            "settings: {{{}}}\n{}providers:\n{}",
            settings.trim_start_matches(", "),
            self.routes,
            self.providers
        )
    }

    /// The configuration that it is made of.
    pub(crate) fn config(&self, folder: &Path) -> Config {
        let text = self.text(folder);
        self.resolve(&text).unwrap_or_else(|problems| panic!("{text}\n{problems:?}")).0
    }

    fn load_again(&self, folder: &Path) -> Result<(Config, Vec<String>), Vec<String>> {
        let text = std::fs::read_to_string(folder.join("providers.yaml"));
        self.resolve(&text.map_err(|error| vec![error.to_string()])?)
    }

    fn resolve(&self, text: &str) -> Result<(Config, Vec<String>), Vec<String>> {
        let variables = &self.variables;
        let sources = Sources {
            environment: &|name| variables.get(name).cloned(),
            files: &evertoken::testing::read_secret_file,
            now: evertoken::testing::Timestamp::from_secs(1_800_000_000),
            file_modes: &|_| None,
            file_mode: None,
            is_root: false,
            working_folder: None,
        };
        let lines = |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect();
        match resolve(text, "providers.yaml", &sources) {
            Ok((config, warnings)) => Ok((config, lines(warnings))),
            Err(problems) => Err(lines(problems)),
        }
    }

    /// Starts the proxy.
    pub(crate) fn start(mut self) -> TestProxy {
        let folder = self.folder.take().unwrap_or_else(|| tempfile::tempdir().expect("a folder"));
        let environment = Environment {
            clock: self.clock.take().unwrap_or_else(Clock::system),
            // Each its own: by their random names two hosts tell who of them holds a lease.
            rng: fastrand::Rng::with_seed(STARTED.fetch_add(1, Ordering::Relaxed)),
            timer: self.timer.unwrap_or(crossbeam_channel::after),
            supervisor: self.supervisor.take().unwrap_or_else(Supervisor::nobody),
        };
        let config = self.config(folder.path());
        // Tests reload by writing `providers.yaml` into the state folder.
        let (again, state) = (self, folder.path().to_owned());
        let load = Box::new(move || again.load_again(&state));
        let app = App::start(config, Vec::new(), environment, load, || {});
        let app = app.unwrap_or_else(|error| panic!("{error}"));
        // Nobody asks at the port of one that has none.
        let address = app.local_addr().unwrap_or_else(|| ([127, 0, 0, 1], 0).into());
        TestProxy { address, app: Some(app), folder }
    }
}

impl TestProxy {
    /// Begins to describe a proxy, with a client id, a secret and a refresh token in the environment.
    pub(crate) fn builder() -> Builder {
        Builder::default()
            .variable("CLIENT_ID", "abc12-client")
            .variable("CLIENT_SECRET", "the-client-secret")
            .variable("REFRESH_TOKEN", "the-seed")
    }

    /// A proxy before one provider with a fixed credential.
    pub(crate) fn before(url: &str) -> Self {
        Self::builder().provider("P", "anthropic", url, "auth_value: fixed").start()
    }

    /// Sends a request on a new connection.
    #[track_caller]
    pub(crate) fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        ask(self.address, request)
    }

    /// Stops it; returns how many connections were cut off.
    pub(crate) fn stop(&mut self) -> usize {
        self.app.take().expect("it runs").stop()
    }

    /// Makes it use `described` from now on; returns the answer of `POST /-/reload`.
    #[track_caller]
    pub(crate) fn reload(&self, described: &Builder) -> Answer {
        let file = self.folder.path().join("providers.yaml");
        std::fs::write(file, described.text(self.folder.path())).expect("a file");
        self.ask("POST /-/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
    }

    /// Refreshes every provider, as SIGUSR1 does.
    pub(crate) fn refresh_all(&self) {
        self.app.as_ref().expect("it runs").current().refresh_all();
    }

    /// The state folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Stops it and hands over the state folder.
    pub(crate) fn into_folder(mut self) -> tempfile::TempDir {
        self.stop();
        self.app = None;
        std::mem::replace(&mut self.folder, tempfile::tempdir().expect("a folder"))
    }
}
