//! Fields and lengths as values.

use super::*;
use crate::clock::Timestamp;

#[test]
fn lists_are_split_over_fields_and_commas() {
    let mut headers = Headers::new();
    headers.push("Connection", "keep-alive, , X-One");
    headers.push("connection", "x-two");
    let members: Vec<_> = headers.list("CONNECTION").collect();
    assert_eq!(members, [b"keep-alive".as_slice(), b"X-One", b"x-two"]);
    assert!(headers.list_contains("connection", "x-one"));
    assert!(!headers.list_contains("connection", "x"));
}

#[test]
fn fields_by_their_places_are_those_that_were_pushed() {
    let text = b"A: b\r\nC:\r\na:d";
    let mut found = FoundFields::with_room(1);
    for (name, value) in [(0..1, 3..4), (6..7, 0..0), (10..11, 12..13)] {
        found.push(text, name, value);
    }
    assert_eq!(found.count(), 3);
    let mut headers = found.of(text);
    let mut pushed = Headers::new();
    for (name, value) in [("A", "b"), ("C", ""), ("a", "d")] {
        pushed.push(name, value);
    }
    assert_eq!(headers, pushed);
    assert_eq!((headers.first("c"), headers.first("d")), (Some(b"".as_slice()), None));
    assert_eq!(headers.all("a").collect::<Vec<_>>(), [b"b", b"d"]);
    headers.remove("A");
    headers.push("X", "y");
    assert_eq!(format!("{headers:?}"), r#"{"C": "", "X": "y"}"#);
}

#[test]
fn keep_alive_by_version() {
    let head = |version, connection: &str| {
        let mut headers = Headers::new();
        if !connection.is_empty() {
            headers.push("Connection", connection);
        }
        RequestHead {
            method: "GET".into(),
            target: "/a?b".into(),
            version,
            authority: None,
            headers,
            body: BodyLength::Absent,
        }
    };
    let cases = [
        (Version::Http11, "", true),
        (Version::Http11, "close", false),
        (Version::Http11, "Upgrade, Close", false),
        (Version::Http10, "", false),
        (Version::Http10, "Keep-Alive", true),
        (Version::Http10, "keep-alive, close", false),
    ];
    for (version, connection, keeps) in cases {
        assert_eq!(head(version, connection).wants_keep_alive(), keeps, "{version:?} {connection}");
    }
    assert_eq!(head(Version::Http11, "").path(), "/a");
}

#[test]
fn waits_in_seconds_milliseconds_and_dates() {
    type Fields = &'static [(&'static str, &'static str)];
    let now = Timestamp::from_secs(1_800_000_000); // Fri, 15 Jan 2027 08:00:00 GMT
    let cases: [(Fields, Option<u64>); 21] = [
        (&[], None),
        (&[("Retry-After", "20")], Some(20_000)),
        (&[("Retry-After", "0")], Some(0)),
        (&[("Retry-After", " 1.5 ")], Some(1_500)),
        (&[("Retry-After", "0.0001")], Some(1)),
        (&[("Retry-After", "99999999999999999999")], Some(u64::MAX)),
        (&[("Retry-After", "-1")], None),
        (&[("Retry-After", "+1")], None),
        (&[("Retry-After", "1e3")], None),
        (&[("Retry-After", "inf")], None),
        (&[("Retry-After", "Fri, 15 Jan 2027 08:00:30 GMT")], Some(30_000)),
        (&[("Retry-After", "Fri, 15 Jan 2027 07:59:59 GMT")], None),
        // A time since 1970, which counted as a week and more.
        (&[("Retry-After", "1800000030")], Some(30_000)),
        (&[("Retry-After", "1799999999")], None),
        (&[("Retry-After", "1499999999")], Some(1_499_999_999_000)),
        (&[("Retry-After", "100000000000")], Some(100_000_000_000_000)),
        (&[("retry-after-ms", "1500")], Some(1_500)),
        (&[("x-ms-retry-after-ms", "0.5")], Some(1)),
        (&[("retry-after-ms", "1500"), ("Retry-After", "2")], Some(2_000)),
        (&[("retry-after-ms", "2500"), ("Retry-After", "2")], Some(2_500)),
        (&[("Retry-After", "2"), ("Retry-After", "3")], Some(3_000)),
    ];
    for (fields, expected) in cases {
        let mut headers = Headers::new();
        for (name, value) in fields {
            headers.push(name, value);
        }
        assert_eq!(headers.retry_after_ms(now), expected, "{fields:?}");
    }
}

#[test]
fn lines_are_written_in_one_form_however_they_came() {
    let came = [
        ("a: 1", "\r\n"),
        ("B:2", "\r\n"),
        ("C :  3", "\r\n"),
        ("d: 4 ", "\r\n"),
        ("e: 5", "\n"),
        ("f:\tx", "\r\n"),
        ("g: ", "\r\n"),
        ("h:", "\r\n"),
        ("i: 9", "\r\n"),
    ];
    let (mut text, mut found) = (Vec::new(), FoundFields::with_room(0));
    for (line, end) in came {
        let (at, colon) = (text.len(), line.find(':').unwrap());
        let name = line[..colon].trim_end().len();
        let value = line[colon + 1..].trim();
        let start = line.len() - line[colon + 1..].trim_start().len();
        text.extend_from_slice(line.as_bytes());
        text.extend_from_slice(end.as_bytes());
        found.push(&text, at..at + name, at + start..at + start + value.len());
    }
    let mut headers = found.of(&text[..text.len() - 1]);
    headers.push("J", "10");
    headers.push_parts(b"k", &[b"1", b"1"]);
    let mut written = Vec::new();
    headers.append_to(&mut written, |_| true);
    let expected =
        "a: 1\r\nB: 2\r\nC: 3\r\nd: 4\r\ne: 5\r\nf: x\r\ng: \r\nh: \r\ni: 9\r\nJ: 10\r\nk: 11\r\n";
    assert_eq!(String::from_utf8(written).unwrap(), expected);
    let mut written = Vec::new();
    headers.append_to(&mut written, |line| !matches!(line.name(), b"a" | b"e" | b"i" | b"J"));
    let expected = "B: 2\r\nC: 3\r\nd: 4\r\nf: x\r\ng: \r\nh: \r\nk: 11\r\n";
    assert_eq!(String::from_utf8(written).unwrap(), expected);
}
