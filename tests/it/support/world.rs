//! A state folder that several proxies use, one after the other or at once; their provider and issuer.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::support::client::{get, post};
use crate::support::issuer::StrictIssuer;
use crate::support::peer::Peer;
use crate::support::proxy::{Builder, TestProxy};

/// The lifetime of its tokens.
pub(crate) const LIFETIME_SECS: u64 = 3600;

pub(crate) struct World {
    pub(crate) base: tempfile::TempDir,
    pub(crate) provider: Peer,
    pub(crate) issuer: StrictIssuer,
}

impl World {
    pub(crate) fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir(base.path().join("disk")).unwrap();
        symlink(base.path().join("disk"), base.path().join("state")).unwrap();
        let provider = Peer::telling_the_credential();
        Self { base, provider, issuer: StrictIssuer::start(LIFETIME_SECS) }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.base.path().join("state")
    }

    pub(crate) fn described(&self) -> Builder {
        let state = format!("state_dir: \"{}\"", self.state().display());
        TestProxy::builder().settings(&state).variable("OTHER_ID", "another-client")
    }

    /// A proxy before providers of these names and `auto_refresh_config`s.
    pub(crate) fn with(&self, providers: &[(&str, &str)]) -> Builder {
        let url = self.provider.url();
        let one = |builder: Builder, (name, lines): &(&str, &str)| {
            builder.provider(name, "anthropic", &url, lines)
        };
        providers.iter().fold(self.described(), one)
    }

    /// Replaces the file `name` beside the state folder.
    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.base.path().join(name), text).unwrap();
    }

    /// An `auto_refresh_config` with the refresh token of that file.
    pub(crate) fn of_file(&self, name: &str) -> String {
        let file = self.base.path().join(name);
        let seed = format!("refresh_token_file: \"{}\"", file.display());
        of_env(&self.issuer.url()).replace("refresh_token_env: REFRESH_TOKEN", &seed)
    }

    /// The number of credentials that the provider saw.
    pub(crate) fn was_shown(&self) -> usize {
        self.provider.seen().len()
    }

    #[track_caller]
    pub(crate) fn nothing_came_twice(&self) {
        assert_eq!(self.issuer.revoked(), [""; 0], "{:?}", self.issuer.presented());
    }

    /// The path of `name` in the state folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.state().join(name)
    }

    /// A proxy before providers of these names, all with the same refresh token of the environment.
    pub(crate) fn called(&self, names: &[&str]) -> Builder {
        let lines = of_env(&self.issuer.url());
        let providers: Vec<_> = names.iter().map(|name| (*name, lines.as_str())).collect();
        self.with(&providers)
    }

    /// The names in the state folder that end so.
    pub(crate) fn files(&self, end: &str) -> Vec<String> {
        let names =
            std::fs::read_dir(self.state()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        names.retain(|name| name.ends_with(end));
        names.sort();
        names
    }

    pub(crate) fn presented(&self) -> usize {
        self.issuer.presented().len()
    }
}

pub(crate) fn of_env(token_url: &str) -> String {
    format!(
        "auto_refresh_config:\n  enabled: true\n  token_url: \"{token_url}\"\n  client_id_env: CLIENT_ID\n  \
         refresh_token_env: REFRESH_TOKEN"
    )
}

pub(crate) fn order(proxy: &TestProxy, slug: &str) -> u16 {
    proxy.ask(post(&format!("/-/refresh/{slug}"), "")).status
}

pub(crate) fn sent(proxy: &TestProxy, slug: &str) -> String {
    proxy.ask(get(&format!("/to/{slug}/x"))).body
}
