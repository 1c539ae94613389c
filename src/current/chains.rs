//! The running refreshers, and how they go on when another configuration replaces the one in use.
//!
//! A chain of refresh tokens has one refresher for as long as this process runs: a reload changes the refresher's
//! setup, and never starts a second one for the same chain. A refresher that no provider uses any more stays idle, with
//! its tokens, until nobody can need them.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::bounded;
use log::error;

use crate::assemble::{Environment, StartError, refresher_setup};
use crate::clock::Deadline;
use crate::config::{Config, Credential, FileFormat, ProviderConfig};
use crate::current::chains::running::{Basis, Running, Task, end};
use crate::proxy;
use crate::shared::keeper::Keeper;
use crate::token::group::{Group, groups};
use crate::token::hang::read_folder;
use crate::token::places::{Contents, FoundFile, Homes, Move, Seeker};
use crate::token::refresher::{Change, Inbox, Setup};
use crate::token::store::{PostingKey, TokenStore};
use crate::token::watched::Unsaved;

mod running;

/// The least time that a stop gives the refreshers for a last write, whenever the requests in flight ended.
const END_MIN: Duration = Duration::from_secs(2);

/// The running refreshers; see the module's documentation.
#[derive(Default)]
pub(super) struct Chains {
    running: Vec<Running>,
}

/// The plan for one group of a configuration.
struct Step {
    key: PostingKey,
    members: Vec<usize>,
    basis: Basis,
    /// The files of the group in the state folder.
    found: FoundFile,
    work: Work,
}

enum Work {
    /// The refresher with this key goes on unchanged, except for the places where it would look for its file.
    Keep(Box<Seeker>),
    /// The refresher with this key goes on with another setup; true if it keeps its chain in the shared store.
    Change(Box<Setup>, bool),
    /// A new refresher starts.
    Start(Box<Setup>),
}

/// The plan for a configuration. Nothing is done yet, and a plan may be dropped.
pub(super) struct Plan {
    steps: Vec<Step>,
    contents: Contents,
}

impl Plan {
    /// The key under which the token of the provider at `index` will be published; None if it has none to refresh.
    pub(super) fn posting(&self, index: usize) -> Option<PostingKey> {
        let step = self.steps.iter().find(|step| step.members.contains(&index));
        step.map(|step| step.key)
    }

    /// Moves the state files to the places where the refreshers will look for them.
    fn settle(&self, environment: &Environment) {
        let wait = |length| {
            // Only the end of the timer matters.
            let _ = (environment.timer)(length).recv();
        };
        let moves = self.steps.iter().map(|step| Move {
            name: step.basis.name.clone(),
            found: step.found.clone(),
            home: step.basis.location.slug.clone(),
        });
        let moves: Vec<Move> = moves.collect();
        self.contents.settle(&moves, environment.clock.wall(), &wait);
    }
}

impl Chains {
    /// Plans the steps for `config` without taking any. New refreshers are numbered from `next_key` on.
    pub(super) fn plan(
        &self,
        config: &Config,
        next_key: &mut PostingKey,
        store: &Arc<TokenStore>,
        environment: &mut Environment,
    ) -> Result<Plan, StartError> {
        let all = groups(&config.providers);
        let enabled: Vec<&Group> =
            all.iter().filter(|group| group.is_enabled(&config.providers)).collect();
        let contents = read_folder(&config.settings.state_dir, &environment.clock);
        let heirs = self.heirs(&enabled);
        let homes = self.homes(&enabled, &heirs, &contents, &all);
        let keys: Vec<PostingKey> = heirs
            .iter()
            .map(|heir| {
                let key = heir.map_or(*next_key, |running| running.key);
                *next_key += u64::from(heir.is_none());
                key
            })
            .collect();
        let key_of = |index: usize| {
            let own = enabled.iter().position(|group| group.members.contains(&index));
            own.map_or(PostingKey::MAX, |own| keys[own])
        };
        let mut steps = Vec::new();
        for (((group, heir), (home, found)), &key) in
            enabled.iter().zip(heirs).zip(homes).zip(&keys)
        {
            let basis = Basis::of(group, &home, config, &key_of);
            let mut setup = || {
                refresher_setup(key, group, &home, config, store, environment, &key_of)
                    .map(Box::new)
            };
            let work = match heir {
                Some(running) if running.basis == basis => {
                    Work::Keep(Box::new(Seeker::new(group, all.clone(), config)))
                }
                Some(running) => {
                    Work::Change(setup()?, running.basis.location.shared == basis.location.shared)
                }
                None => Work::Start(setup()?),
            };
            steps.push(Step { key, members: group.members.clone(), basis, found, work });
        }
        Ok(Plan { steps, contents })
    }

    /// The running refresher that each group goes on with: the one of the same chain; else the one that has the group's
    /// place in the state folder, as after a restart.
    fn heirs(&self, groups: &[&Group]) -> Vec<Option<&Running>> {
        let mut heirs: Vec<Option<&Running>> = vec![None; groups.len()];
        for fits in [Running::has_chain_of, Running::has_place_of] {
            for (index, group) in groups.iter().enumerate() {
                let is_free =
                    |one: &&Running| heirs.iter().flatten().all(|heir| heir.key != one.key);
                let found = self.running.iter().filter(is_free).find(|one| fits(one, group));
                heirs[index] = heirs[index].or(found);
            }
        }
        heirs
    }

    /// The name of each group's state file, and the group's files in the state folder. A running refresher keeps its
    /// file if the name is one of its providers'.
    fn homes(
        &self,
        groups: &[&Group],
        heirs: &[Option<&Running>],
        contents: &Contents,
        all: &[Group],
    ) -> Vec<(String, FoundFile)> {
        let stored = || self.running.iter().filter(|one| !one.keeps_nothing());
        let in_use: Vec<&str> = stored().map(|one| one.basis.location.slug.as_str()).collect();
        let leaves = |one: &&Running| {
            let mut own = groups.iter().zip(heirs);
            own.any(|(group, heir)| {
                heir.is_some_and(|heir| heir.key == one.key) && !one.has_place_of(group)
            })
        };
        let (leaving, staying): (Vec<&Running>, Vec<&Running>) = stored().partition(leaves);
        let slugs =
            |all: Vec<&Running>| all.iter().map(|one| one.basis.location.slug.clone()).collect();
        let mut homes = Homes { taken: slugs(staying), leaving: slugs(leaving) };
        // Groups whose refresher leaves its place come first, because they wait for nobody.
        let mut given = Vec::new();
        for (group, heir) in groups.iter().zip(heirs) {
            if group.config.grant_type.keeps_nothing() {
                given.push(Some((group.slug.clone(), FoundFile::default())));
                continue;
            }
            given.push(heir.map(|heir| {
                let stays =
                    Some(heir.basis.location.slug.clone()).filter(|_| heir.has_place_of(group));
                let home = stays.unwrap_or_else(|| homes.give(group, None, false, contents));
                (home, contents.find_beside(group, all, &in_use, &heir.basis.location.slug))
            }));
        }
        let of_new = |(group, given): (&&Group, Option<(String, FoundFile)>)| {
            given.unwrap_or_else(|| {
                let found = contents.find(group, all, &in_use);
                (homes.give(group, found.slug.as_deref(), true, contents), found)
            })
        };
        groups.iter().zip(given).map(of_new).collect()
    }

    /// Carries out the plan. If a refresher can't be started, no other one is changed.
    pub(super) fn carry_out(
        &mut self,
        plan: Plan,
        keeper: Option<&Keeper>,
        environment: &Environment,
    ) -> Result<(), StartError> {
        let in_use: Vec<PostingKey> = plan.steps.iter().map(|step| step.key).collect();
        plan.settle(environment);
        let (mut changed, mut starting, mut left) = (Vec::new(), Vec::new(), Vec::new());
        for Step { key, basis, work, .. } in plan.steps {
            match work {
                Work::Keep(seeker) => changed.push((key, basis, Task::Keep(seeker))),
                Work::Change(setup, keeps_chain) => {
                    let (leaving, has_left) = bounded(1);
                    let before = self.running.iter().find(|one| one.key == key);
                    left.extend(before.map(|one| (one.basis.location.slug.clone(), has_left)));
                    let change = Change { setup: *setup, keeps_chain, leaving };
                    changed.push((key, basis, Task::Change(Box::new(change))));
                }
                Work::Start(setup) => starting.push((basis, *setup)),
            }
        }
        let mut started = Vec::new();
        for (basis, setup) in starting {
            let before = left.iter().find(|(slug, _)| *slug == basis.location.slug);
            let left = before.map(|(_, left)| left.clone());
            match Running::start(basis, setup, left, keeper) {
                Ok(running) => started.push(running),
                Err(error) => {
                    // Refreshers that wait for a place end if it is never left.
                    drop(changed);
                    return Err(StartError::Thread(error));
                }
            }
        }
        for running in self.running.iter_mut().filter(|one| !in_use.contains(&one.key)) {
            running.retire();
        }
        for (key, basis, task) in changed {
            if let Some(running) = self.running.iter_mut().find(|one| one.key == key) {
                running.go_on(basis, task, keeper);
            }
        }
        self.running.extend(started);
        self.running
            .iter()
            .filter_map(|one| Some((one, keeper?)))
            .for_each(|(one, keeper)| one.share(keeper));
        Ok(())
    }

    /// The posting of `provider`'s chain, if its refreshing was turned off while a refresher of the chain still runs:
    /// that refresher may have been unable to store the newest token.
    pub(super) fn unsaved(
        &self,
        provider: &ProviderConfig,
        store: &Arc<TokenStore>,
    ) -> Option<Unsaved> {
        let Credential::Watched(file) = &provider.credential else { return None };
        let FileFormat::Stored { seed, client } = &file.form else { return None };
        let has_chain = |running: &&Running| {
            let known = &running.basis.config;
            let same_seed =
                matches!((&known.seed, seed), (Some(Ok(known)), Some(seed)) if known == seed);
            same_seed && (client.is_none() || *client == known.client_hash())
        };
        let has_place = |running: &&Running| {
            let lacks_seed =
                running.basis.config.seed.as_ref().is_none_or(Result::is_err) || seed.is_none();
            lacks_seed && !running.keeps_nothing() && running.basis.location.slug == provider.slug
        };
        let running = self.running.iter();
        let found = running.clone().find(has_chain).or_else(|| running.clone().find(has_place))?;
        Some(Unsaved { store: store.clone(), key: found.key })
    }

    /// The inbox of the refresher that publishes under `key`.
    pub(super) fn inbox(&self, key: PostingKey) -> Option<Inbox> {
        let running = self.running.iter().find(|one| one.key == key);
        running.map(|one| one.refresher.inbox())
    }

    /// The refreshers whose chain other hosts may share.
    pub(super) fn in_use(&self) -> impl Iterator<Item = PostingKey> {
        self.running.iter().filter(|one| !one.is_retired).map(|one| one.key)
    }

    /// Notes that `providers` use their tokens.
    pub(super) fn are_used_by(&mut self, providers: &[Arc<proxy::provider::Provider>]) {
        for running in &mut self.running {
            let own = providers.iter().filter(|one| one.source.chain() == Some(running.key));
            running.users.extend(own.map(Arc::downgrade));
            running.users.retain(|user| user.strong_count() > 0);
        }
    }

    /// Ends unneeded refreshers: no request can come for their token, and all their tokens are on disk.
    pub(super) fn end_unused(&mut self, store: &Arc<TokenStore>) {
        let is_idle = |key| {
            let posting = store.read(key);
            !posting.refreshing && posting.disk_error.is_none()
        };
        let unused = |one: &mut Running| {
            one.is_retired
                && one.users.iter().all(|user| user.strong_count() == 0)
                && is_idle(one.key)
        };
        let ended: Vec<Running> = self.running.extract_if(.., unused).collect();
        if !ended.is_empty() {
            end(ended, store.clone());
        }
    }

    /// Refreshes every chain in use now, without waiting.
    pub(super) fn refresh_all(&self) {
        for running in self.running.iter().filter(|one| !one.is_retired) {
            drop(running.refresher.inbox().force());
        }
    }

    /// Ends all refreshers once their tokens are on disk; leaves one behind that is still refreshing at the `deadline`.
    pub(super) fn stop(self, deadline: Deadline) {
        // All are told before the first is awaited, so that slow answers are awaited at the same time.
        self.running.iter().for_each(|one| one.refresher.stop());
        let deadline = Deadline::after(deadline.left().max(END_MIN));
        for running in self.running {
            if !running.refresher.end_before(deadline) {
                error!(
                    provider = running.basis.name.as_str();
                    "The refresher of provider {} did not end within settings.shutdown_grace; it \
                     is left behind, and any answer that its issuer sends now is lost",
                    running.basis.name
                );
            }
        }
    }
}
