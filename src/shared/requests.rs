//! Counts the requests of keys on all hosts: a thread that asks the shared store, so that a request waits for a moment at
//! most, and only one with a limit.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, select};
use log::{info, warn};

use crate::clock::{Clock, Moment};
use crate::config::SharedStore;
use crate::shared::engine::{Engine, Line, Names, StoreError};
use crate::thread::{self, Thread};

/// A TLS handshake needs more stack than a forwarding worker has.
const STACK_BYTES: usize = 256 * 1024;
/// The longest time that a request waits for the store.
const WAIT_MAX: Duration = Duration::from_millis(250);
/// The most questions that wait for the thread.
const QUESTIONS_MAX: usize = 1024;
/// The time between two tries to connect.
const RETRY_MS: u64 = 500;
/// The time after which the server's clock is looked at again.
const CLOCK_KEPT_MS: u64 = 60_000;

/// A request's question, or a request that no provider got.
enum Question {
    Take { name: String, most: u64, answer: Sender<Shared> },
    GiveBack { name: String, second: u64 },
}

/// The store's decision about one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shared {
    /// It is counted, in this second of the server's clock.
    Counted(u64),
    /// It is one too many; there is room again after so many milliseconds.
    TooMany(u64),
    /// The store does not answer, so this host decides alone.
    Unknown,
}

/// Asks for decisions. Cloning shares the thread.
#[derive(Clone, Debug)]
pub(crate) struct RequestCounter {
    questions: Sender<Question>,
    /// The store does not answer: nobody waits for it.
    is_away: Arc<AtomicBool>,
}

impl RequestCounter {
    /// Counts one more request of the key called `name`, of which `most` may pass in a minute. While the store is away,
    /// the question is only left for it.
    pub(crate) fn take(&self, name: &str, most: u64) -> Shared {
        let waits = !self.is_away.load(Ordering::Relaxed);
        let (answer, answered) = bounded(1);
        let question = Question::Take { name: name.to_owned(), most, answer };
        if self.questions.try_send(question).is_err() || !waits {
            return Shared::Unknown;
        }
        answered.recv_timeout(WAIT_MAX).unwrap_or_else(|_| {
            self.is_away.store(true, Ordering::Relaxed);
            Shared::Unknown
        })
    }

    /// Takes a request back that was counted in this second of the server's clock.
    pub(crate) fn give_back(&self, name: &str, second: u64) {
        let _ = self.questions.try_send(Question::GiveBack { name: name.to_owned(), second });
    }
}

/// The running thread. Dropping it ends it.
pub(crate) struct RequestThread {
    counter: RequestCounter,
    // Closed before the thread is joined.
    stop: Option<Sender<()>>,
    _thread: Thread,
}

impl RequestThread {
    /// Starts the thread, which connects with the first question.
    pub(crate) fn start(store: &SharedStore, clock: Clock) -> io::Result<Self> {
        let (stop, stopped) = bounded(0);
        let (questions, asked) = bounded(QUESTIONS_MAX);
        let is_away = Arc::<AtomicBool>::default();
        let counter = RequestCounter { questions, is_away: is_away.clone() };
        let mut work = Work {
            store: store.clone(),
            clock,
            asked,
            stopped,
            is_away,
            open: None,
            failed_ms: None,
        };
        let thread = thread::spawn("key-limits", STACK_BYTES, move || work.run())?;
        Ok(Self { counter, stop: Some(stop), _thread: thread })
    }

    /// A handle for requests.
    pub(crate) fn counter(&self) -> RequestCounter {
        self.counter.clone()
    }
}

impl Drop for RequestThread {
    fn drop(&mut self) {
        self.stop = None;
    }
}

/// A connection, and the server's clock beside ours.
struct Open {
    line: Line,
    server_ms: u64,
    at: Moment,
}

/// The questions of one key: their number, and where each answer goes.
struct Asked {
    name: String,
    most: u64,
    answers: Vec<Sender<Shared>>,
}

/// The thread's inputs and state.
struct Work {
    store: SharedStore,
    clock: Clock,
    asked: Receiver<Question>,
    stopped: Receiver<()>,
    is_away: Arc<AtomicBool>,
    open: Option<Open>,
    /// When the last try failed, on the steady clock.
    failed_ms: Option<u64>,
}

impl Work {
    fn run(&mut self) {
        loop {
            let first = select! {
                recv(self.stopped) -> _ => return,
                recv(self.asked) -> question => question,
            };
            let Ok(first) = first else {
                // Nobody can ask any more; only the stop is left.
                let _ = self.stopped.recv();
                return;
            };
            let waiting: Vec<_> = std::iter::once(first).chain(self.asked.try_iter()).collect();
            self.serve(waiting);
        }
    }

    /// Answers all `waiting` questions, with one look at the store for each key.
    fn serve(&mut self, waiting: Vec<Question>) {
        let (mut keys, mut given_back): (Vec<Asked>, Vec<_>) = (Vec::new(), Vec::new());
        for question in waiting {
            match question {
                Question::GiveBack { name, second } => given_back.push((name, second)),
                Question::Take { name, most, answer } => {
                    match keys.iter_mut().find(|one| one.name == name && one.most == most) {
                        Some(one) => one.answers.push(answer),
                        None => keys.push(Asked { name, most, answers: vec![answer] }),
                    }
                }
            }
        }
        for key in keys {
            self.answer(&key);
        }
        for (name, second) in given_back {
            let names = Names::new(&self.store.prefix, &name);
            let given = self.open().and_then(|open| open.line.give_request_back(&names, second));
            self.note(given.err());
        }
    }

    fn answer(&mut self, key: &Asked) {
        let names = Names::new(&self.store.prefix, &key.name);
        let (most, now) = (key.most, self.clock.now());
        let counted = self.open().and_then(|open| {
            let second = open.second(now);
            let found = open.line.count_requests(&names, second, most, key.answers.len() as u64)?;
            Ok((second, found))
        });
        match counted {
            Ok((second, (granted, wait_secs))) => {
                for (index, answer) in key.answers.iter().enumerate() {
                    let is_counted = (index as u64) < granted;
                    let told = if is_counted {
                        Shared::Counted(second)
                    } else {
                        Shared::TooMany(wait_secs * 1000)
                    };
                    let _ = answer.try_send(told);
                }
                self.note(None);
            }
            Err(trouble) => {
                for answer in &key.answers {
                    let _ = answer.try_send(Shared::Unknown);
                }
                self.note(Some(trouble));
            }
        }
    }

    /// The connection; a new one at most every [`RETRY_MS`].
    fn open(&mut self) -> Result<&mut Open, StoreError> {
        let now = self.clock.now();
        let is_old = |open: &Open| now.steady_ms.saturating_sub(open.at.steady_ms) >= CLOCK_KEPT_MS;
        let known = match self.open.take() {
            Some(open) if !is_old(&open) => open,
            Some(open) => Open::of(open.line, &self.clock)?,
            None => {
                if self.failed_ms.is_some_and(|then| now.steady_ms.saturating_sub(then) < RETRY_MS)
                {
                    return Err(StoreError::NoAnswer);
                }
                Open::of(Line::open(&self.store)?, &self.clock)?
            }
        };
        Ok(self.open.insert(known))
    }

    /// Notes how the store did, and says it if that changed.
    fn note(&mut self, trouble: Option<StoreError>) {
        let Some(trouble) = trouble else {
            if self.failed_ms.take().is_some() {
                info!("The limits of keys are held across hosts again");
            }
            return self.is_away.store(false, Ordering::Relaxed);
        };
        self.open = None;
        self.is_away.store(true, Ordering::Relaxed);
        let now_ms = self.clock.now().steady_ms;
        match &mut self.failed_ms {
            Some(then) if now_ms.saturating_sub(*then) < RETRY_MS => {}
            Some(then) => *then = now_ms,
            none => {
                *none = Some(now_ms);
                warn!(
                    "Each host holds the limits of keys alone: the token store {} can't be used: {trouble}",
                    self.store.place
                );
            }
        }
    }
}

impl Open {
    fn of(mut line: Line, clock: &Clock) -> Result<Self, StoreError> {
        let shown = line.time()?;
        let at = clock.now();
        // A user without the right to ask: then our clock counts.
        let shown = shown.unwrap_or(at.wall);
        Ok(Self { line, server_ms: u64::try_from(shown.as_millis()).unwrap_or(0), at })
    }

    /// The second on the server's clock.
    fn second(&self, now: Moment) -> u64 {
        (self.server_ms + now.steady_ms.saturating_sub(self.at.steady_ms)) / 1000
    }
}
