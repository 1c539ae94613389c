//! The configuration in use, and its replacement by another one without a dropped request.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError, Weak};
use std::time::Duration;

use crossbeam_channel::after;
use log::{error, info, warn};

use crate::assemble::{Environment, Load, StartError, access_rules};
use crate::atomic::AtomicU64;
use crate::bookkeeper::Bookkeeper;
use crate::clock::{Deadline, Stopwatch, Timestamp};
use crate::config::Config;
use crate::current::changes::{departed, what_changed};
use crate::current::parts::Parts;
use crate::http::message::RequestHead;
use crate::http::refusal::Refusal;
use crate::ingress::listeners::Listeners;
use crate::ingress::{After, Request, Service};
use crate::proxy::metrics::Metrics;
use crate::proxy::provider::{Counts, Provider};
use crate::proxy::state::Proxy;
use crate::proxy::watchers::Watchers;
use crate::supervisor::Stage;
use crate::token::store::PostingKey;

mod chains;
mod changes;
mod parts;
mod quota_files;

/// The longest wait of a stop for a reload to end, and the time between two looks.
const RELOAD_END_MAX: Duration = Duration::from_secs(3);
const RELOAD_LOOK_EVERY: Duration = Duration::from_millis(10);
/// The least time that a stop gives the last save of counts, whenever the requests in flight ended.
const SAVE_MIN: Duration = Duration::from_secs(2);
/// The reason why a reload changes nothing any more.
const STOPPING: &str = "evertoken is stopping";

/// The parts that serve requests at the moment, and the means to replace them. A request keeps the proxy that it began
/// with to its end.
pub struct Current {
    proxy: RwLock<Arc<Proxy>>,
    /// Held for the whole of a reload, so that reloads run one after another.
    reloading: Mutex<()>,
    parts: Mutex<Parts>,
    bookkeeper: Mutex<Bookkeeper>,
    /// Set by a stop: the result of a reload comes too late from now on.
    is_stopping: AtomicBool,
    metrics: Arc<Metrics>,
    listeners: Arc<Listeners>,
    load: Load,
    started_at: Timestamp,
    uptime: Stopwatch,
    itself: Weak<Self>,
}

impl Current {
    /// Starts the parts that `config` asks for.
    pub fn start(
        config: Config,
        listeners: Arc<Listeners>,
        environment: Environment,
        load: Load,
    ) -> Result<Arc<Self>, StartError> {
        let started_at = environment.clock.wall();
        let bookkeeper = Bookkeeper::start(environment.timer, config.settings.save_interval)
            .map_err(StartError::Thread)?;
        let registrar = bookkeeper.registrar().clone();
        let mut parts = Parts::new(environment, &config.settings, registrar);
        let providers = parts.providers(&config, None)?;
        let uptime = Stopwatch::start();
        Ok(Arc::new_cyclic(|itself: &Weak<Self>| {
            let providers = (providers, Vec::new());
            let proxy =
                new_proxy(config, providers, &mut parts, &listeners, (started_at, uptime), itself);
            Self {
                proxy: RwLock::new(Arc::new(proxy)),
                metrics: parts.metrics.clone(),
                reloading: Mutex::new(()),
                parts: Mutex::new(parts),
                bookkeeper: Mutex::new(bookkeeper),
                is_stopping: AtomicBool::new(false),
                listeners,
                load,
                started_at,
                uptime,
                itself: itself.clone(),
            }
        }))
    }

    /// The proxy that serves requests now.
    pub fn proxy(&self) -> Arc<Proxy> {
        self.proxy.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        // Each change of it is complete in itself.
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the configuration again and uses it. Unchanged providers keep their token, their thread and their
    /// connections; requests in flight go on with the configuration that they began with. Returns the notes about the
    /// reload, or every problem, with nothing changed.
    pub fn reload(&self) -> Result<Vec<String>, Vec<String>> {
        let outcome = self.replace();
        match &outcome {
            Ok(notes) => {
                for note in notes {
                    warn!("{note}");
                }
            }
            Err(problems) => {
                for problem in problems {
                    error!("{problem}");
                }
                let since = self.proxy().configured_at;
                error!("The configuration was not reloaded; the one from {since} stays in use");
            }
        }
        outcome
    }

    fn replace(&self) -> Result<Vec<String>, Vec<String>> {
        let _reloading = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let supervisor = self.parts().environment.supervisor.clone();
        supervisor.tell(&Stage::Reloading);
        // A file may be on a disk that hangs, so a stop needs none of the locks held here.
        let outcome = (self.load)().and_then(|(config, notes)| self.replace_with(config, notes));
        let proxy = self.proxy();
        proxy.last_reload.note(outcome.as_ref().err(), proxy.clock.wall(), proxy.configured_at);
        if !self.is_stopping.load(Ordering::SeqCst) {
            supervisor.tell(&Stage::Ready(self.status_line()));
        }
        outcome
    }

    fn replace_with(
        &self,
        config: Config,
        mut notes: Vec<String>,
    ) -> Result<Vec<String>, Vec<String>> {
        let parts = &mut *self.parts();
        if self.is_stopping.load(Ordering::SeqCst) {
            return Err(vec![STOPPING.to_owned()]);
        }
        let old = self.proxy();
        let providers =
            parts.providers(&config, Some(&old)).map_err(|error| vec![error.to_string()])?;
        notes.extend(parts.listening.needs_restart(&old.settings, &config.settings));
        parts.registrar.save_every(config.settings.save_interval);
        info!("{}", what_changed(&old.configured(), &config.providers));
        let departed = departed(&old, &providers);
        let (times, providers) = ((self.started_at, self.uptime), (providers, departed));
        let proxy = new_proxy(config, providers, parts, &self.listeners, times, &self.itself);
        let mut in_use: Vec<PostingKey> = proxy.providers.iter().map(|one| one.key).collect();
        in_use.extend(parts.chains.in_use());
        *self.proxy.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(proxy);
        // Watchers connect again, and see the new configuration.
        old.watchers.dismiss();
        if let Some(keeper) = &parts.keeper {
            keeper.retain(|key| in_use.contains(&key));
        }
        parts.chains.end_unused(&parts.store);
        parts.used.forget_unused();
        Ok(notes)
    }

    /// `Listening on http://127.0.0.1:8080; 2 of 3 providers have a credential to send`
    pub fn status_line(&self) -> String {
        let proxy = self.proxy();
        proxy.look_at_files();
        let now = proxy.clock.now();
        let enabled = || proxy.providers.iter().filter(|one| one.config.enabled);
        let ready = enabled().filter(|one| one.source.has_one(&one.source.posting(), now)).count();
        let bound: Vec<_> = self.listeners.bound().iter().map(ToString::to_string).collect();
        format!(
            "Listening on {}; {ready} of {} providers have a credential to send",
            bound.join(", "),
            enabled().count()
        )
    }

    /// Refreshes every provider now, without waiting.
    pub fn refresh_all(&self) {
        match self.parts_before(Deadline::after(RELOAD_END_MAX)) {
            Some(parts) => parts.chains.refresh_all(),
            None => error!("A reload hangs; nothing is refreshed before it ends"),
        }
    }

    /// Ends all refreshers once their tokens are on disk; leaves a refresher behind that is still refreshing at the
    /// `deadline`. Then saves what was counted.
    ///
    /// A reload that hangs, for example on a disk, is left behind with all it holds.
    pub fn stop(&self, deadline: Deadline) {
        self.is_stopping.store(true, Ordering::SeqCst);
        self.stop_refreshers(deadline);
        let mut bookkeeper = self.bookkeeper.lock().unwrap_or_else(PoisonError::into_inner);
        bookkeeper.stop(Deadline::after(deadline.left().max(SAVE_MIN)));
    }

    fn stop_refreshers(&self, deadline: Deadline) {
        let Some(mut parts) = self.parts_before(Deadline::after(RELOAD_END_MAX)) else {
            return error!("A reload hangs; stopping without waiting for it");
        };
        let chains = std::mem::take(&mut parts.chains);
        drop(parts);
        chains.stop(deadline);
    }

    fn parts_before(&self, deadline: Deadline) -> Option<MutexGuard<'_, Parts>> {
        loop {
            match self.parts.try_lock() {
                Ok(parts) => return Some(parts),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if deadline.has_passed() => return None,
                // Only the end of the timer matters.
                Err(TryLockError::WouldBlock) => drop(after(RELOAD_LOOK_EVERY).recv()),
            }
        }
    }
}

impl Service for Current {
    fn serve(&self, request: Request<'_>, out: &mut dyn Write) -> After {
        self.proxy().serve(request, out)
    }

    fn refuse(&self, refusal: &Refusal, head: Option<&RequestHead>, out: &mut dyn Write) {
        self.proxy().refuse(refusal, head, out);
    }

    fn connections_changed(&self, by: i64) {
        let open = self.metrics.connections_changed(by);
        if by < 0 {
            self.proxy().clients_left(open);
        }
    }
}

fn new_proxy(
    config: Config,
    (providers, departed): (Vec<Arc<Provider>>, Vec<Weak<Counts>>),
    parts: &mut Parts,
    listeners: &Arc<Listeners>,
    (started_at, uptime): (Timestamp, Stopwatch),
    current: &Weak<Current>,
) -> Proxy {
    let Config { settings, model_routes, .. } = config;
    let access = access_rules(&settings, &listeners.bound(), &parts.metrics, &mut parts.used);
    let current = current.clone();
    let watchers = Watchers::new(settings.limits.max_connections);
    Proxy {
        access,
        watchers,
        store_health: parts.keeper.as_ref().map(|keeper| keeper.health.clone()),
        usage: parts.usage(&settings),
        settings,
        model_routes,
        providers,
        departed,
        metrics: parts.metrics.clone(),
        clock: parts.environment.clock.clone(),
        started_at,
        configured_at: parts.environment.clock.wall(),
        last_reload: parts.last_reload.clone(),
        listeners: listeners.clone(),
        uptime,
        turns: AtomicU64::new(parts.environment.rng.u64(..)),
        reload: Box::new(move || match current.upgrade() {
            Some(current) => current.reload(),
            None => Err(vec![STOPPING.to_owned()]),
        }),
    }
}
