//! A running refresher, and how it goes on under another configuration.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use crossbeam_channel::Receiver;
use log::warn;

use crate::assemble::{bearer, timeouts};
use crate::config::{AutoRefresh, Config, Credential, Egress, SharedStore};
use crate::proxy::provider::Provider;
use crate::shared::chain::Held;
use crate::shared::keeper::{Keeper, KeptProvider};
use crate::thread;
use crate::token::group::Group;
use crate::token::places::{OnChain, Seeker};
use crate::token::refresher::{Change, Refresher, Setup};
use crate::token::store::{PostingKey, TokenStore};
use crate::upstream::Timeouts;

/// The stack of the thread that waits for unneeded refreshers to end.
const ENDING_STACK_BYTES: usize = 128 * 1024;

/// Everything that a refresher's work depends on: while it is unchanged, the refresher is left alone.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Basis {
    pub(super) name: String,
    pub(super) config: AutoRefresh,
    pub(super) egress: Egress,
    pub(super) timeouts: Timeouts,
    pub(super) location: Location,
    /// The provider whose token its requests carry: its posting, and its credential's configuration.
    bearer: Option<(PostingKey, Credential)>,
}

/// The place of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Location {
    folder: PathBuf,
    /// The name of the state file.
    pub(super) slug: String,
    /// The shared store, and the chain's name there.
    pub(super) shared: (Option<SharedStore>, String),
}

/// A running refresher.
pub(super) struct Running {
    pub(super) key: PostingKey,
    pub(super) refresher: Refresher,
    pub(super) on: OnChain,
    pub(super) basis: Basis,
    /// The chain's lease in the shared store, which the keeper renews.
    held: Option<Arc<Held>>,
    /// The providers that use its token, including some of earlier configurations.
    pub(super) users: Vec<Weak<Provider>>,
    pub(super) is_retired: bool,
}

/// An order to a running refresher.
pub(super) enum Task {
    Keep(Box<Seeker>),
    Change(Box<Change>),
}

impl Basis {
    /// The basis for `group`; `keys` tells under which key the token of another provider is posted.
    pub(super) fn of(
        group: &Group,
        slug: &str,
        config: &Config,
        keys: &dyn Fn(usize) -> PostingKey,
    ) -> Self {
        let bearer = bearer::provider_of(&group.config, config);
        let settings = &config.settings;
        Self {
            name: group.name.clone(),
            config: group.config.clone(),
            egress: config.providers[group.lead].egress.clone(),
            timeouts: timeouts(&settings.limits),
            location: Location {
                folder: settings.state_dir.clone(),
                slug: slug.to_owned(),
                shared: (settings.token_store.clone(), group.slug.clone()),
            },
            bearer: bearer.map(|index| (keys(index), config.providers[index].credential.clone())),
        }
    }
}

impl Running {
    /// Starts a refresher, which begins once another one has `left` the place that it needs.
    pub(super) fn start(
        basis: Basis,
        mut setup: Setup,
        left: Option<Receiver<()>>,
        keeper: Option<&Keeper>,
    ) -> io::Result<Self> {
        let (key, on) = (setup.provider, setup.seeker.on());
        let held = attend(&mut setup, keeper);
        let refresher = Refresher::start(setup, left)?;
        Ok(Self { key, refresher, on, basis, held, users: Vec::new(), is_retired: false })
    }

    pub(super) fn has_chain_of(&self, group: &Group) -> bool {
        self.on.is_of(group)
    }

    pub(super) fn has_place_of(&self, group: &Group) -> bool {
        // A chain that is stored leaves nothing to one that is not, nor the other way round.
        group.slugs.contains(&self.basis.location.slug)
            && self.keeps_nothing() == group.config.grant_type.keeps_nothing()
    }

    /// True if it has no state file.
    pub(super) fn keeps_nothing(&self) -> bool {
        self.basis.config.grant_type.keeps_nothing()
    }

    /// Goes on under another configuration, with another setup or unchanged.
    pub(super) fn go_on(&mut self, basis: Basis, task: Task, keeper: Option<&Keeper>) {
        let is_of_another = self.basis.config.is_of_another_client(&basis.config);
        (self.basis, self.is_retired) = (basis, false);
        match task {
            Task::Change(mut change) => {
                self.on = change.setup.seeker.on();
                if is_of_another {
                    // No request after the reload is sent with the token of before, though the refresher may hear of
                    // the change a moment later.
                    change.setup.store.forget(self.key);
                }
                if !change.keeps_chain {
                    self.held = attend(&mut change.setup, keeper);
                }
                self.refresher.change(*change);
            }
            Task::Keep(seeker) => {
                self.on = seeker.on();
                self.refresher.reloaded(*seeker);
            }
        }
    }

    pub(super) fn retire(&mut self) {
        if !self.is_retired {
            self.is_retired = true;
            self.refresher.retire();
        }
    }

    /// Registers the refresher with the keeper, which wakes it when other hosts write and renews its lease.
    pub(super) fn share(&self, keeper: &Keeper) {
        if self.is_retired {
            return;
        }
        let inbox = self.refresher.inbox();
        keeper.add(KeptProvider {
            key: self.key,
            slug: self.basis.location.shared.1.clone(),
            wake: Some(Box::new(move || inbox.news())),
            held: self.held.clone(),
            // Cooldowns belong to the providers.
            rest: Box::new(|_, _| {}),
            quota: None,
        });
    }
}

/// Registers the chain's lease with the keeper, which renews it from now on.
fn attend(setup: &mut Setup, keeper: Option<&Keeper>) -> Option<Arc<Held>> {
    Some(setup.chain.as_mut()?.attend(&keeper?.health))
}

/// Ends refreshers on another thread, because one may be waiting for its issuer.
pub(super) fn end(ended: Vec<Running>, store: Arc<TokenStore>) {
    for one in &ended {
        one.refresher.stop();
    }
    let wait = move || {
        for running in ended {
            let key = running.key;
            drop(running);
            store.forget(key);
        }
    };
    match thread::spawn("ending", ENDING_STACK_BYTES, wait) {
        Ok(thread) => thread.detach(),
        Err(error) => warn!("Can't wait for the refreshers of removed providers: {error}"),
    }
}
