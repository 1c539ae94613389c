//! The rules of the shared store's scripts once more, in plain code and in a time of its own: what the
//! simulation of several hosts runs against, and what a real server is compared with.

use evertoken::testing::GRACE_MS;
use evertoken::testing::Mark;

/// The store's knowledge of one provider.
#[derive(Clone, Debug)]
pub(crate) struct ModelEngine<R> {
    /// The highest fencing number given out; None where it knows nothing.
    pub(crate) fence: Option<u64>,
    /// The record's mark.
    pub(crate) mark: Mark,
    /// The record.
    pub(crate) record: Option<R>,
    /// The holder of the lease, and its end; "" for no holder.
    lease: Option<(String, u64)>,
}

impl<R: Clone> ModelEngine<R> {
    /// A server that knows nothing.
    pub(crate) fn empty() -> Self {
        Self { fence: None, mark: Mark::default(), record: None, lease: None }
    }

    /// The holder of the lease at `now_ms`.
    pub(crate) fn holder(&self, now_ms: u64) -> Option<&str> {
        self.lease.as_ref().filter(|(_, until)| *until > now_ms).map(|(holder, _)| holder.as_str())
    }

    /// As the script TAKE: the fencing number, or None where the lease is not free.
    pub(crate) fn take(
        &mut self,
        holder: &str,
        length_ms: u64,
        least: u64,
        now_ms: u64,
    ) -> Option<u64> {
        let held = self.holder(now_ms).map(str::to_owned);
        let Some(known) = self.fence else {
            self.fence = Some(least);
            if held.is_none() {
                self.lease = Some((String::new(), now_ms + GRACE_MS));
            }
            return None;
        };
        if held.is_some_and(|held| held != holder) {
            return None;
        }
        let fence = known.max(least) + 1;
        self.fence = Some(fence);
        self.lease = Some((holder.to_owned(), now_ms + length_ms));
        Some(fence)
    }

    /// As the script WRITE: whether the lease is the writer's, or None where there is a newer record.
    pub(crate) fn write(
        &mut self,
        mark: Mark,
        record: R,
        holder: &str,
        (length_ms, grace_ms): (u64, u64),
        now_ms: u64,
    ) -> Option<bool> {
        let had_none = self.record.is_none();
        let given = self.fence.unwrap_or(0);
        let is_next = had_none || mark.generation > self.mark.generation;
        let may_write = mark.fence >= given || !had_none && mark.fence == self.mark.fence;
        if mark.fence < self.mark.fence || !is_next || !may_write {
            return None;
        }
        let held = self.holder(now_ms).map(str::to_owned);
        self.fence = Some(given.max(mark.fence));
        self.mark = mark;
        self.record = Some(record);
        let ours = held.as_deref() == Some(holder);
        if ours {
            self.lease = Some((holder.to_owned(), now_ms + length_ms));
        } else if had_none && held.is_none_or(|held| held.is_empty()) {
            self.lease = Some((String::new(), now_ms + grace_ms));
        }
        Some(ours)
    }

    /// As the script RENEW.
    pub(crate) fn renew(&mut self, holder: &str, length_ms: u64, now_ms: u64) -> bool {
        let ours = self.holder(now_ms) == Some(holder);
        if ours {
            self.lease = Some((holder.to_owned(), now_ms + length_ms));
        }
        ours
    }

    /// As the script RELEASE.
    pub(crate) fn release(&mut self, holder: &str, now_ms: u64) {
        if self.holder(now_ms) == Some(holder) {
            self.lease = None;
        }
    }
}
