//! Hostile and broken clients' bytes, as data: each case in `tests/data/hostile` as a whole.

use crate::properties::holds;
use crate::support::cases::{self, play};
use crate::support::client::get;
use crate::support::peer::{Peer, answer};
use crate::support::proxy::TestProxy;

#[test]
fn every_case_is_answered_as_it_must_be_and_nothing_is_smuggled() {
    let peer = Peer::answering(|_| answer(200, "fine"));
    let proxy = TestProxy::before(&peer.url());
    let mut wrong = Vec::new();
    for case in cases::all() {
        let before = peer.seen().len();
        let came = play(proxy.address, &case, &[], || ());
        let seen: Vec<_> = peer.seen()[before..].iter().map(|one| one.line.clone()).collect();
        if came != case.expected || seen != case.upstream {
            wrong.push(format!("{}: {came:?}, upstream {seen:?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(proxy.ask(get("/normal")).body, "fine");
}

#[test]
fn every_case_comes_to_the_same_however_it_is_cut() {
    for case in cases::all() {
        holds::head(&case.input);
        if let Some(end) = case.input.windows(4).position(|window| window == b"\r\n\r\n") {
            holds::body(&[b"\0", &case.input[end + 4..]].concat());
        }
    }
}
