//! The held bytes of a request's body: small ones on the heap, large ones in their own memory pages.
//!
//! Pages go back to the system when the body is freed. glibc's heap would keep them for the next body: after the
//! first large block is freed, glibc takes larger blocks from the heap too, and returns little.

use std::cell::Cell;
use std::io::{self, Read};
use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};

use memmap2::MmapMut;

/// From this size on, a body has its own pages.
const LARGE_MIN_BYTES: usize = 64 * 1024;

/// Bytes whose length is known from the start.
#[derive(Debug)]
pub(crate) enum HeldBytes {
    /// On the heap.
    Small(SmallBytes),
    /// In their own pages.
    Large(MmapMut),
    /// In their own pages, although over `replay_body_bytes`.
    Beyond(MmapMut, #[expect(dead_code, reason = "held until the body is sent")] Permit),
}

/// The most bodies over `replay_body_bytes` that are held at a time, each of `max_body_bytes` at most, compressed and
/// inflated: bodies whose model comes last and decides the route, or compressed ones whose model is renamed.
pub(crate) const BEYOND_MAX: usize = 8;
static BEYOND: AtomicUsize = AtomicUsize::new(0);

/// Counts one such body while it lives.
#[derive(Debug)]
pub(crate) struct Permit(&'static AtomicUsize);

impl Permit {
    /// A permit for a body over the limit; None if enough of them are held.
    pub(crate) fn beyond() -> Option<Self> {
        Self::of(&BEYOND, BEYOND_MAX)
    }

    /// One of at most `most` permits that `count` counts; None if all are taken.
    fn of(count: &'static AtomicUsize, most: usize) -> Option<Self> {
        let permit = Self(count);
        (count.fetch_add(1, Ordering::SeqCst) < most).then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl HeldBytes {
    /// This many bytes of any content, to be filled. Large ones take memory only when they are written. Fails if there is no
    /// room.
    fn to_fill(length: usize) -> io::Result<Self> {
        if length < LARGE_MIN_BYTES {
            return Ok(Self::Small(SmallBytes::to_fill(length)));
        }
        MmapMut::map_anon(length).map(Self::Large)
    }

    /// Reads exactly `length` bytes from `body`. Fewer are an error.
    pub(crate) fn read(length: usize, body: &mut dyn Read) -> io::Result<Self> {
        let mut held = Self::to_fill(length)?;
        body.read_exact(&mut held)?;
        Ok(held)
    }

    /// A body of `length` bytes over the limit, of which `start` was read. None if enough of them are held.
    pub(crate) fn beyond(
        start: &[u8],
        length: usize,
        body: &mut dyn Read,
    ) -> io::Result<Option<Self>> {
        let Some(permit) = Permit::beyond() else { return Ok(None) };
        let mut pages = MmapMut::map_anon(length)?;
        pages[..start.len()].copy_from_slice(start);
        body.read_exact(&mut pages[start.len()..])?;
        Ok(Some(Self::Beyond(pages, permit)))
    }

    /// The same for an unknown length; the reader itself ends at `max_body_bytes`.
    pub(crate) fn beyond_of_any_length(
        start: &mut Vec<u8>,
        body: &mut dyn Read,
    ) -> io::Result<Option<Self>> {
        let Some(permit) = Permit::beyond() else { return Ok(None) };
        body.read_to_end(start)?;
        let mut pages = MmapMut::map_anon(start.len())?;
        pages.copy_from_slice(start);
        Ok(Some(Self::Beyond(pages, permit)))
    }

    /// The bytes of `parts`, concatenated.
    pub(crate) fn joined(parts: &[&[u8]]) -> io::Result<Self> {
        let mut held = Self::to_fill(parts.iter().map(|part| part.len()).sum())?;
        let mut start = 0;
        for part in parts {
            held[start..start + part.len()].copy_from_slice(part);
            start += part.len();
        }
        Ok(held)
    }
}

/// Bytes on the heap. Each thread keeps the memory of a few for its next body, because an allocator takes long for a block
/// that is alone in its size.
#[derive(Debug)]
pub(crate) struct SmallBytes {
    /// They may be more.
    bytes: Vec<u8>,
    length: usize,
}

/// The most bytes whose memory is kept.
const KEPT_MAX_BYTES: usize = 2 * 1024;

static ZEROS: [u8; 512] = [0; 512];

thread_local! {
    static KEPT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl SmallBytes {
    fn to_fill(length: usize) -> Self {
        // A thread that ends keeps nothing.
        let mut bytes = KEPT.try_with(Cell::take).unwrap_or_default();
        // `vec![0; length]` would ask for cleared memory, for which glibc passes over what this thread has just let go: 1,800
        // instructions more. `resize` writes byte by byte in a program that is built for its size.
        bytes.reserve_exact(length.saturating_sub(bytes.len()));
        while bytes.len() < length {
            bytes.extend_from_slice(&ZEROS[..ZEROS.len().min(length - bytes.len())]);
        }
        Self { bytes, length }
    }
}

impl From<Vec<u8>> for SmallBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self { length: bytes.len(), bytes }
    }
}

impl Drop for SmallBytes {
    fn drop(&mut self) {
        let bytes = mem::take(&mut self.bytes);
        if (1..=KEPT_MAX_BYTES).contains(&bytes.capacity()) {
            let _ = KEPT.try_with(|kept| kept.set(bytes));
        }
    }
}

impl Deref for HeldBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Small(SmallBytes { bytes, length }) => &bytes[..*length],
            Self::Large(bytes) | Self::Beyond(bytes, _) => bytes,
        }
    }
}

impl DerefMut for HeldBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Small(SmallBytes { bytes, length }) => &mut bytes[..*length],
            Self::Large(bytes) | Self::Beyond(bytes, _) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_the_same_on_both_sides_of_the_limit() {
        for length in [0, 1, LARGE_MIN_BYTES - 1, LARGE_MIN_BYTES, LARGE_MIN_BYTES + 1] {
            let bytes: Vec<u8> = (0..length).map(|index| index.to_le_bytes()[0]).collect();
            let mut rest = [bytes.as_slice(), b"next"].concat();
            let held = HeldBytes::read(length, &mut rest.as_slice()).unwrap();
            assert_eq!(&*held, bytes);
            assert_eq!(matches!(held, HeldBytes::Large(_)), length >= LARGE_MIN_BYTES);
            assert_eq!(
                &*HeldBytes::joined(&[&bytes, b"", b"x"]).unwrap(),
                [&bytes[..], b"x"].concat()
            );
            rest.truncate(length.saturating_sub(1));
            let short = HeldBytes::read(length, &mut rest.as_slice());
            assert_eq!(short.is_err(), length > 0);
        }
        assert!(HeldBytes::to_fill(usize::MAX / 2).is_err(), "there is no such room");
    }

    #[test]
    fn the_memory_of_a_small_body_is_used_again_and_shows_nothing_of_it() {
        let read = |text: &str| HeldBytes::read(text.len(), &mut text.as_bytes()).unwrap();
        let place = |held: &HeldBytes| held.as_ptr();
        let first = read("a longer one");
        let at = place(&first);
        drop(first);
        for text in ["short", "", "as long as 1"] {
            let next = read(text);
            assert_eq!((&*next, place(&next)), (text.as_bytes(), at));
        }
        drop(read(&"x".repeat(KEPT_MAX_BYTES + 1)));
        assert_eq!(SmallBytes::to_fill(1).bytes.capacity(), 1, "a larger one is not kept");
    }

    #[test]
    fn bodies_over_the_limit_are_counted_while_they_are_held() {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let held: Vec<_> = (0..BEYOND_MAX).map(|_| Permit::of(&COUNT, BEYOND_MAX)).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(Permit::of(&COUNT, BEYOND_MAX).is_none());
        drop(held);
        assert!(Permit::of(&COUNT, BEYOND_MAX).is_some());
        assert_eq!(COUNT.load(Ordering::SeqCst), 0);
    }
}
