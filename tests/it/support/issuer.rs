//! An issuer that judges: a refresh token that comes twice ends its whole family (RFC 9700 §4.14).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::peer::{Peer, answer};

/// The treatment of one token request.
enum Manner {
    /// The answer comes once the other end is dropped.
    Hold(Receiver<()>),
    /// Nothing is rotated; this is the answer, which comes once the other end is dropped.
    Refuse(u16, String, Receiver<()>),
}

/// The state of one family of refresh tokens.
#[derive(Default)]
struct Family {
    name: String,
    issued: u64,
    is_revoked: bool,
}

#[derive(Default)]
struct Book {
    lifetime_secs: u64,
    families: Vec<Family>,
    /// The family of each refresh token, and true for the next one to use.
    tokens: HashMap<String, (usize, bool)>,
    manners: VecDeque<Manner>,
    presented: Vec<String>,
}

/// A running issuer. Seeds are made known by [`StrictIssuer::knows`]; `the-seed` is from the start.
pub(crate) struct StrictIssuer {
    peer: Peer,
    book: Arc<Mutex<Book>>,
}

impl Book {
    fn refresh(&mut self, presented: &str) -> (u16, String) {
        self.presented.push(presented.to_owned());
        let refused = (400, r#"{"error":"invalid_grant"}"#.to_owned());
        let Some((family, is_next)) = self.tokens.get_mut(presented) else { return refused };
        let family = &mut self.families[*family];
        family.is_revoked |= !*is_next;
        if family.is_revoked {
            return refused;
        }
        *is_next = false;
        family.issued += 1;
        let (name, number, lifetime) = (family.name.clone(), family.issued, self.lifetime_secs);
        let next = format!("refresh-{name}-{number}");
        let of = self.tokens[presented].0;
        self.tokens.insert(next.clone(), (of, true));
        let body = format!(
            r#"{{"access_token":"access-{name}-{number}","refresh_token":"{next}","expires_in":{lifetime}}}"#
        );
        (200, body)
    }
}

impl StrictIssuer {
    /// Starts it; access tokens live for so many seconds. They are `access-<seed>-<number>`.
    pub(crate) fn start(lifetime_secs: u64) -> Self {
        let book = Arc::new(Mutex::new(Book { lifetime_secs, ..Book::default() }));
        let of_peer = book.clone();
        let peer = Peer::answering(move |seen| {
            let body = String::from_utf8(seen.body.clone()).expect("a form");
            let presented = body.split('&').find_map(|pair| pair.strip_prefix("refresh_token="));
            let presented = presented.expect("a refresh token").to_owned();
            let manner = of_peer.lock().unwrap().manners.pop_front();
            match manner {
                Some(Manner::Refuse(status, body, released)) => {
                    of_peer.lock().unwrap().presented.push(presented);
                    let _ = released.recv();
                    answer(status, &body)
                }
                Some(Manner::Hold(released)) => {
                    let (status, body) = of_peer.lock().unwrap().refresh(&presented);
                    // Released by being dropped.
                    let _ = released.recv();
                    answer(status, &body)
                }
                None => {
                    let (status, body) = of_peer.lock().unwrap().refresh(&presented);
                    answer(status, &body)
                }
            }
        });
        let issuer = Self { peer, book };
        issuer.knows("the-seed");
        issuer
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    /// Begins a family with this refresh token.
    pub(crate) fn knows(&self, seed: &str) {
        let mut book = self.book();
        let family = book.families.len();
        book.families.push(Family { name: seed.to_owned(), ..Family::default() });
        book.tokens.insert(seed.to_owned(), (family, true));
    }

    /// Its token endpoint.
    pub(crate) fn url(&self) -> String {
        self.peer.url()
    }

    /// The refresh tokens that were presented so far.
    pub(crate) fn presented(&self) -> Vec<String> {
        self.book().presented.clone()
    }

    /// The families that were revoked, by their seeds.
    pub(crate) fn revoked(&self) -> Vec<String> {
        let book = self.book();
        let revoked = book.families.iter().filter(|family| family.is_revoked);
        revoked.map(|family| family.name.clone()).collect()
    }

    /// Revokes every family, as an account's owner can.
    #[cfg(feature = "slow-tests")]
    pub(crate) fn revoke_all(&self) {
        self.book().families.iter_mut().for_each(|family| family.is_revoked = true);
    }

    /// Makes it rotate at the next request, and answer once the sender is dropped.
    pub(crate) fn hold_next(&self) -> Sender<()> {
        let (release, released) = bounded(0);
        self.book().manners.push_back(Manner::Hold(released));
        release
    }

    /// Makes it answer the next request like this, and rotate nothing.
    pub(crate) fn refuse_next(&self, status: u16, body: &str) {
        drop(self.hold_and_refuse_next(status, body));
    }

    /// The same, once the sender is dropped.
    pub(crate) fn hold_and_refuse_next(&self, status: u16, body: &str) -> Sender<()> {
        let (release, released) = bounded(0);
        self.book().manners.push_back(Manner::Refuse(status, body.to_owned(), released));
        release
    }
}
