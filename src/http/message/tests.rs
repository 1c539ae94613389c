//! Fields and lengths as values.

use super::*;

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
        found.push(name, value);
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
fn plain_bytes_are_counted_up_to_the_first_that_is_not() {
    for length in [0, 1, 15, 16, 17, 32, 100] {
        let mut bytes = vec![b'x'; length];
        assert_eq!(plain_prefix(&bytes), length);
        for bad in [0, b'\r', b'\n', 0x1f, 0x7f] {
            for at in 0..length {
                bytes[at] = bad;
                assert_eq!(plain_prefix(&bytes), at, "{bad} of {length}");
                bytes[at] = b'\t';
            }
        }
        assert_eq!(plain_prefix(&[0x80, 0xff, b' ', b'~', b'\n']), 4);
    }
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
            host: None,
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
