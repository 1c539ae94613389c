//! Bodies that are inflated for their model, and those that can't be.

use super::*;
use crate::http::inflate::tests::gzip;
use crate::http::message::{BodyLength, Headers, Version};
use crate::proxy::held::HeldBytes;

const PLAIN: &[u8] = br#"{"model":"old","x":1}"#;

fn head(codings: &[&str]) -> RequestHead {
    let mut headers = Headers::new();
    for coding in codings {
        headers.push("Content-Encoding", *coding);
    }
    RequestHead {
        method: "POST".into(),
        target: "/v1/messages".into(),
        version: Version::Http11,
        authority: None,
        headers,
        body: BodyLength::Sized(1),
    }
}

fn limits(replay_body_bytes: u64, max_body_bytes: u64) -> Limits {
    Limits {
        max_connections: 1,
        max_connections_per_address: 1,
        max_body_bytes,
        replay_body_bytes,
        connect: Duration::ZERO,
        response: Duration::ZERO,
        idle: Duration::ZERO,
        client_head: Duration::ZERO,
        client_idle: Duration::ZERO,
    }
}

fn held(bytes: &[u8]) -> TakenBody {
    TakenBody::Held(HeldBytes::joined(&[bytes]).unwrap())
}

fn looked(codings: &[&str], body: TakenBody, mut rest: &[u8], limits: &Limits) -> TakenBody {
    let head = head(codings);
    BodyReader { head: &head, rest: &mut rest, limits }.look_into(body).unwrap()
}

/// The same, also prepared for a rename.
fn readied(codings: &[&str], body: TakenBody, mut rest: &[u8], limits: &Limits) -> TakenBody {
    let head = head(codings);
    let mut reader = BodyReader { head: &head, rest: &mut rest, limits };
    let body = reader.look_into(body).unwrap();
    reader.for_renaming(body).unwrap()
}

fn name(body: &TakenBody) -> Option<String> {
    body.model().map(|one| one.name)
}

#[test]
fn what_is_looked_into_and_what_is_not() {
    let packed = gzip(PLAIN);
    let zstd = include_bytes!("../../../tests/data/zstd/level-3.zst").as_slice();
    let cases: [(&[&str], &[u8], Option<&str>); 12] = [
        (&["gzip"], &packed, Some("old")),
        (&["X-GZIP"], &packed, Some("old")),
        (&["zstd"], zstd, Some("claude-x")),
        // The bytes decide, as long as the coding is one of the two.
        (&["gzip"], zstd, Some("claude-x")),
        (&["zstd"], &packed, Some("old")),
        (&["gzip"], PLAIN, Some("old")),
        (&["identity"], PLAIN, Some("old")),
        (&["gzip, gzip"], &packed, None),
        (&["gzip", "gzip"], &packed, None),
        (&["br"], b"\x0b\x02\x80abc\x03", None),
        (&["gzip"], &packed[..15], None),
        (&[], &packed, None),
    ];
    for (codings, bytes, expected) in cases {
        let body = looked(codings, held(bytes), b"", &limits(10_000, 10_000));
        assert_eq!(name(&body).as_deref(), expected, "{codings:?}");
        assert!(body.is_held());
    }
}

#[test]
fn a_renamed_body_is_plain() {
    let body = readied(&["gzip"], held(&gzip(PLAIN)), b"", &limits(10_000, 10_000));
    let field = body.model().unwrap();
    let Some(TakenBody::Recoded(bytes)) = body.renamed(&field, "new") else { panic!() };
    assert_eq!(&*bytes, br#"{"model":"new","x":1}"#);
}

#[test]
fn a_body_over_the_bound_is_routed_by_what_stands_within_it_and_renamed_up_to_the_largest() {
    let packed = gzip(PLAIN);
    let length = PLAIN.len() as u64;
    let whole = looked(&["gzip"], held(&packed), b"", &limits(length, length));
    assert!(matches!(whole, TakenBody::Coded { .. }));
    let over = looked(&["gzip"], held(&packed), b"", &limits(length - 1, length));
    assert!(matches!(over, TakenBody::Glimpsed { .. }) && over.is_held());
    assert_eq!(name(&over).as_deref(), Some("old"));
    for (most, is_renamed) in [(length, true), (length - 1, false)] {
        let body = readied(&["gzip"], held(&packed), b"", &limits(length - 1, most));
        let field = body.model().unwrap();
        let renamed = body.renamed(&field, "new");
        assert_eq!(renamed.is_some(), is_renamed, "{most}");
        assert!(
            matches!(body.sent(), TakenBody::Held(sent)
            if **sent == *packed)
                || matches!(body, TakenBody::Coded { .. })
        );
    }
}

#[test]
fn a_model_that_stands_beyond_the_bound_is_found_up_to_the_largest_body() {
    let plain = format!(r#"{{"x":"{}","model":"last"}}"#, "x".repeat(5000));
    let packed = gzip(plain.as_bytes());
    let length = plain.len() as u64;
    for (most, expected) in [(length, Some("last")), (length - 1, None)] {
        let body = looked(&["gzip"], held(&packed), b"", &limits(1000, most));
        assert_eq!(name(&body).as_deref(), expected, "{most}");
    }
    // A body that is not a JSON object is neither held nor inflated further.
    let file = gzip("x".repeat(5000).as_bytes());
    let (start, rest) = file.split_at(file.len() - 12);
    let streamed = TakenBody::Streamed(None, start.to_vec());
    assert!(!looked(&["gzip"], streamed, rest, &limits(1000, 10_000)).is_held());
}

#[test]
fn a_streamed_body_is_routed_by_its_first_part_or_held() {
    let zstd = include_bytes!("../../../tests/data/zstd/level-3.zst").as_slice();
    let plain = include_bytes!("../../../tests/data/zstd/plain.json").as_slice();
    // A decoder gives nothing of a zstd frame that is cut within its first window; gzip gives everything.
    let cases = [("gzip", gzip(plain), true), ("zstd", zstd.to_vec(), false)];
    for (coding, packed, shows_start) in cases {
        for at in [0, 2, 200] {
            for length in [Some(packed.len() as u64), None] {
                let (start, rest) = packed.split_at(at);
                let streamed = || TakenBody::Streamed(length, start.to_vec());
                let limits = limits(200, 100_000);
                let body = looked(&[coding], streamed(), rest, &limits);
                assert_eq!(name(&body).as_deref(), Some("claude-x"), "{coding} {at}");
                assert_eq!(body.is_held(), at < 200 || !shows_start, "{coding} {at}");
                let body = readied(&[coding], streamed(), rest, &limits);
                let field = body.model().unwrap();
                let renamed = body.renamed(&field, "new");
                let Some(TakenBody::Recoded(bytes)) = renamed else { panic!("{coding} {at}") };
                let expected = String::from_utf8_lossy(plain).replace("claude-x", "new");
                assert_eq!(String::from_utf8_lossy(&bytes), expected);
            }
        }
    }
    // A body that only claims to be compressed passes unchanged.
    let streamed = TakenBody::Streamed(None, b"no such thing".to_vec());
    assert!(!looked(&["zstd"], streamed, b"", &limits(5, 100)).is_held());
    let streamed = TakenBody::Streamed(None, b"{\"model\":\"plain\",".to_vec());
    let body = looked(&["zstd"], streamed, b"", &limits(5, 100));
    assert_eq!(name(&body).as_deref(), Some("plain"));
}

#[test]
fn each_reason_says_what_to_do_and_shows_no_more_than_a_part_of_a_client_s_text() {
    let limits = limits(5, 7);
    for why in [Unread::Coding, Unread::Broken, Unread::Inflated, Unread::Crowded] {
        let text = explain(why, "x".repeat(99).as_bytes(), &limits);
        assert!(text.contains(&format!("'{}'", "x".repeat(SHOWN_MAX_CHARS))), "{text}");
    }
    for (why, setting) in [
        (Unread::Inflated, "settings.max_body_bytes (7)"),
        (Unread::Crowded, "settings.replay_body_bytes (5)"),
        (Unread::Late, "settings.replay_body_bytes (5)"),
    ] {
        assert!(explain(why, b"", &limits).contains(setting));
    }
}
