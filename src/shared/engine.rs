//! The Valkey or Redis server: the only place that knows its client library and its commands.
//!
//! For each key of clients with a limit there is a hash `<prefix>requests:<name>`: the requests of the last 60 seconds.
//!
//! For each provider there is a hash `<prefix>token:<slug>` (`fence`: the highest fencing number given out; `by`,
//! `generation`, `record`: the newest record), a lease `<prefix>lease:<slug>` that names its holder, a key
//! `<prefix>cooldown:<slug>` that lasts as long as the cooldown, `<prefix>cooldown:<slug>:<number>` with the name of a
//! model, for as long as it rests (both with the number of the cooldown), and `<prefix>quota:<slug>` with what is left of its quota. A hash
//! `<prefix>tally:<name>` has what each host counted. Changes are published on `<prefix>news`. Each atomic
//! step is one script.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::config::SharedStore;
use crate::record::Mark;
use crate::secret::Secret;
use crate::shared::lease::GRACE_MS;
use crate::shared::seal;

#[cfg(feature = "redis")]
mod client;
#[cfg(not(feature = "redis"))]
#[path = "engine/absent.rs"]
mod client;
mod news;
mod reply;
mod rests;
mod scripts;
mod tallies;
#[cfg_attr(
    not(any(feature = "redis", test)),
    expect(dead_code, reason = "without a client nothing answers")
)]
mod words;

use client::{Hearing, Link};
pub use news::News;
use reply::EngineReply;
pub use reply::StoreError;
use scripts::{COUNT_REQUESTS, EXCHANGE, GIVE_REQUEST_BACK, PROBE, RELEASE, RENEW, TAKE, WRITE};
pub(crate) use tallies::Tallies;
pub use tallies::Tally;

/// The time for which an unwritten record is kept: 90 days. Every host has its own copy.
const RECORD_KEPT_MS: u64 = 90 * 24 * 3_600_000;

/// The time for which a told quota is kept: the longest until a reset, 40 days.
const QUOTA_KEPT_MS: u64 = 40 * 24 * 3_600_000;

/// The server's knowledge of a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreEntry {
    /// The mark of its record.
    pub mark: Mark,
    /// The record's text, opened; None without a record.
    pub record: Option<Secret>,
    /// The highest fencing number given out.
    pub fence: u64,
    /// True if somebody holds the lease.
    pub is_held: bool,
}

/// The outcome of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is the newest record now; true if the lease is (still) the writer's.
    Done(bool),
    /// There is a newer one.
    Refused(StoreEntry),
}

/// The names of one provider's keys.
#[derive(Clone, Debug)]
pub struct Names {
    prefix: String,
    slug: String,
}

impl Names {
    /// The names of the provider called `slug`.
    pub fn new(prefix: &str, slug: &str) -> Self {
        Self { prefix: prefix.to_owned(), slug: slug.to_owned() }
    }

    /// The key of its `token`, `lease`, `cooldown` or `quota`.
    fn key(&self, kind: &str) -> String {
        format!("{}{kind}:{}", self.prefix, self.slug)
    }

    /// The key of the resting model with this number.
    fn rest_key(&self, number: u64) -> String {
        format!("{}:{number}", self.key("cooldown"))
    }

    fn news(&self) -> String {
        news_channel(&self.prefix)
    }

    /// The context to which a sealed record is bound.
    fn context(&self, mark: Mark) -> String {
        format!("{} {} {}", self.slug, mark.fence, mark.generation)
    }
}

fn news_channel(prefix: &str) -> String {
    format!("{prefix}news")
}

/// The lifetime of the probe's key.
const PROBE_KEPT_MS: u64 = 1_000;

/// A connection.
pub struct Line {
    link: Link,
    key: Option<Secret>,
}

impl Line {
    /// Connects.
    pub fn open(store: &SharedStore) -> Result<Self, StoreError> {
        Ok(Self { link: Link::open(store)?, key: store.key.clone() })
    }

    /// Checks that the server answers and may run a script; returns its kind and version.
    pub fn ping(&mut self) -> Result<String, StoreError> {
        self.link.ask(&["PING"])?;
        self.link.ask(&["EVAL", "return 1", "0"])?;
        // The user's rights may not include the version.
        let about = self.link.ask(&["INFO", "server"]).unwrap_or(EngineReply::Nothing);
        let valkey = info(&about, "valkey_version:").map(|version| format!("Valkey {version}"));
        let redis = || info(&about, "redis_version:").map(|version| format!("Redis {version}"));
        Ok(valkey.or_else(redis).unwrap_or_else(|| "a server".to_owned()))
    }

    /// Makes it write something, as a refresh would: a replica, a full server and one that can't save refuse writes,
    /// and answer all reads.
    pub fn probe(&mut self, prefix: &str) -> Result<(), StoreError> {
        let (key, length) = (format!("{prefix}probe"), PROBE_KEPT_MS.to_string());
        self.link.ask(&["EVAL", PROBE, "1", &key, &length]).map(drop)
    }

    /// Listens on this connection from now on.
    pub fn listen(&mut self, prefix: &str) -> Result<Subscription<'_>, StoreError> {
        self.link.listen(&news_channel(prefix)).map(Subscription)
    }

    /// Renews the lease; returns true if it was still the holder's.
    pub fn renew(&mut self, names: &Names, holder: &str, length: u64) -> Result<bool, StoreError> {
        let length = length.to_string();
        let reply = self.link.ask(&["EVAL", RENEW, "1", &names.key("lease"), holder, &length])?;
        Ok(reply.number() == 1)
    }

    /// The mark of a provider's record.
    pub fn mark(&mut self, names: &Names) -> Result<Mark, StoreError> {
        let reply = self.link.ask(&["HMGET", &names.key("token"), "by", "generation"])?;
        match reply.list() {
            [by, generation] => Ok(Mark { fence: by.number(), generation: generation.number() }),
            _ => Err(StoreError::Unexpected),
        }
    }

    /// Writes the tally `own` of `host`, and reads those of all hosts under its name if the sum of their versions is
    /// not `known_sum`.
    pub fn exchange(
        &mut self,
        prefix: &str,
        host: &str,
        own: &Tally,
        known_sum: u64,
    ) -> Result<Tallies, StoreError> {
        let key = format!("{prefix}tally:{}", own.name);
        let numbers = [own.version, own.kept_ms, known_sum];
        let [version, kept, known] = numbers.map(|number| number.to_string());
        let arguments = [&key, host, &version, &own.text, &kept, &known];
        let reply = self.link.ask(&[&["EVAL", EXCHANGE, "1"], &arguments[..]].concat())?;
        Tallies::of(&reply)
    }

    /// Publishes what is left of a provider's quota.
    pub fn tell_quota(&mut self, names: &Names, text: &str, from: &str) -> Result<(), StoreError> {
        let (key, length) = (names.key("quota"), QUOTA_KEPT_MS.to_string());
        self.link.ask(&["SET", &key, text, "PX", &length])?;
        let news = news::quota_news(&names.slug, text, from);
        self.link.ask(&["PUBLISH", &names.news(), &news]).map(drop)
    }

    /// What is left of a provider's quota, as a host told it last.
    pub fn quota(&mut self, names: &Names) -> Result<Option<String>, StoreError> {
        self.link.ask(&["GET", &names.key("quota")]).map(|reply| reply.text().map(str::to_owned))
    }

    /// Counts up to `wanted` more requests of a key in this `second`, of which `most` may pass in a minute: the number of
    /// those that may, and the seconds until there is room for another one.
    pub(crate) fn count_requests(
        &mut self,
        names: &Names,
        second: u64,
        most: u64,
        wanted: u64,
    ) -> Result<(u64, u64), StoreError> {
        let [second, most, wanted] = &[second, most, wanted].map(|n| n.to_string());
        let key = names.key("requests");
        let reply = self.link.ask(&["EVAL", COUNT_REQUESTS, "1", &key, second, most, wanted])?;
        match reply.list() {
            [counted, wait] => Ok((counted.number(), wait.number())),
            _ => Err(StoreError::Unexpected),
        }
    }

    /// Takes one request back that was counted in this `second`.
    pub(crate) fn give_request_back(
        &mut self,
        names: &Names,
        second: u64,
    ) -> Result<(), StoreError> {
        let (key, second) = (names.key("requests"), second.to_string());
        self.link.ask(&["EVAL", GIVE_REQUEST_BACK, "1", &key, &second]).map(drop)
    }

    /// Reads `fence`, `by`, `generation` and `record`.
    fn seen(
        &self,
        names: &Names,
        list: &[EngineReply],
        is_held: bool,
    ) -> Result<StoreEntry, StoreError> {
        let [fence, by, generation, record, ..] = list else { return Err(StoreError::Unexpected) };
        let mark = Mark { fence: by.number(), generation: generation.number() };
        let opened = record
            .text()
            .map(|text| seal::open(self.key.as_ref(), &names.context(mark), text))
            .transpose()
            .map_err(StoreError::Seal)?;
        Ok(StoreEntry { mark, record: opened, fence: fence.number(), is_held })
    }
}

/// A field in the answer to INFO.
fn info<'a>(about: &'a EngineReply, name: &str) -> Option<&'a str> {
    let mut lines = about.text()?.lines();
    lines.find_map(|line| line.strip_prefix(name)).map(str::trim)
}

fn at_micros(micros: u64) -> Option<Timestamp> {
    i64::try_from(micros / 1000).ok().map(Timestamp::from_millis)
}

/// A chain's questions to the server, over its own connection.
pub trait Engine: Send {
    /// The server's knowledge of a provider.
    fn look(&mut self, names: &Names) -> Result<StoreEntry, StoreError>;
    /// Takes the lease for so many milliseconds, with a fencing number above `fence_above`; None if it is not free.
    fn take(
        &mut self,
        names: &Names,
        holder: &str,
        length_ms: u64,
        fence_above: u64,
    ) -> Result<Option<StoreEntry>, StoreError>;
    /// Replaces the provider's record by `record`, unless there is a newer one; with the lease's new length, and the
    /// time for which no lease is given out if there was no record.
    fn write(
        &mut self,
        names: &Names,
        mark: Mark,
        record: &Secret,
        holder: &str,
        lengths_ms: (u64, u64),
    ) -> Result<Written, StoreError>;
    /// Gives the lease back.
    fn release(&mut self, names: &Names, holder: &str) -> Result<(), StoreError>;
    /// The server's clock; None if the user may not ask for it.
    fn time(&mut self) -> Result<Option<Timestamp>, StoreError>;
}

impl Engine for Line {
    fn look(&mut self, names: &Names) -> Result<StoreEntry, StoreError> {
        let token = names.key("token");
        let now = self.link.ask(&["HMGET", &token, "fence", "by", "generation", "record"])?;
        let held = self.link.ask(&["EXISTS", &names.key("lease")])?;
        self.seen(names, now.list(), held.number() > 0)
    }

    fn take(
        &mut self,
        names: &Names,
        holder: &str,
        length_ms: u64,
        fence_above: u64,
    ) -> Result<Option<StoreEntry>, StoreError> {
        let numbers = [length_ms, fence_above, GRACE_MS, RECORD_KEPT_MS].map(|n| n.to_string());
        let [length, above, grace, kept] = &numbers;
        let (token, lease) = (names.key("token"), names.key("lease"));
        let reply = self
            .link
            .ask(&["EVAL", TAKE, "2", &token, &lease, holder, length, above, grace, kept])?;
        let list = reply.list();
        if list.len() < 4 {
            return Ok(None);
        }
        self.seen(names, list, true).map(Some)
    }

    fn write(
        &mut self,
        names: &Names,
        mark: Mark,
        record: &Secret,
        holder: &str,
        (length_ms, grace_ms): (u64, u64),
    ) -> Result<Written, StoreError> {
        let sealed = seal::seal(self.key.as_ref(), &names.context(mark), record);
        let sealed = sealed.map_err(StoreError::Seal)?;
        let record = sealed.expose();
        let numbers = [mark.fence, mark.generation, length_ms, grace_ms, RECORD_KEPT_MS];
        let [fence, generation, length, grace, kept] = &numbers.map(|n| n.to_string());
        let (token, lease) = (names.key("token"), names.key("lease"));
        let (channel, news) = (names.news(), format!("t {}", names.slug));
        let command = [
            "EVAL", WRITE, "2", &token, &lease, fence, generation, record, holder, length, grace,
            kept, &channel, &news,
        ];
        let reply = self.link.ask(&command)?;
        match reply.list() {
            [done, ours, ..] if done.number() == 1 => Ok(Written::Done(ours.number() == 1)),
            [_, now @ .., held] => {
                Ok(Written::Refused(self.seen(names, now, held.number() > 0)?))
            }
            _ => Err(StoreError::Unexpected),
        }
    }

    fn release(&mut self, names: &Names, holder: &str) -> Result<(), StoreError> {
        self.link.ask(&["EVAL", RELEASE, "1", &names.key("lease"), holder]).map(drop)
    }

    fn time(&mut self) -> Result<Option<Timestamp>, StoreError> {
        match self.link.ask(&["TIME"]) {
            Ok(reply) => Ok(match reply.list() {
                [secs, micros, ..] => at_micros(secs.number() * 1_000_000 + micros.number()),
                _ => None,
            }),
            // A user with the rights that older versions needed; newer servers tell the time in INFO too.
            Err(StoreError::Refused(words)) if words.starts_with("NOPERM") => {
                let about = self.link.ask(&["INFO", "server"]).unwrap_or(EngineReply::Nothing);
                Ok(info(&about, "server_time_usec:").and_then(|usec| at_micros(usec.parse().ok()?)))
            }
            Err(trouble) => Err(trouble),
        }
    }
}

/// A connection that receives published messages.
pub struct Subscription<'a>(Hearing<'a>);

impl Subscription<'_> {
    /// The next message, waiting at most `allowed`.
    pub fn hear(&mut self, allowed: Duration) -> Result<Option<News>, StoreError> {
        let said = self.0.next(allowed)?;
        Ok(said.as_deref().and_then(news::read))
    }

    /// Checks that the connection still works.
    pub fn ping(&mut self) -> Result<(), StoreError> {
        self.0.ping()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_the_prefix_and_the_slug() {
        let names = Names::new("e:", "p");
        assert_eq!(names.key("token"), "e:token:p");
        assert_eq!(names.key("lease"), "e:lease:p");
        assert_eq!(names.key("cooldown"), "e:cooldown:p");
        assert_eq!(names.rest_key(3), "e:cooldown:p:3");
        assert_eq!(names.news(), "e:news");
    }
}
