//! Tables of request heads, both sides of every limit, and every way to cut them into pieces.

use super::*;

/// Feeds `bytes` in two pieces cut at `cut`.
fn feed(bytes: &[u8], cut: usize) -> Result<Option<(RequestHead, usize)>, Refusal> {
    let mut reader = HeadReader::new();
    if let Some(found) = reader.read(&bytes[..cut])? {
        return Ok(Some(found));
    }
    reader.read(bytes)
}

/// The head of `text`, the same whatever way it is cut.
#[track_caller]
fn read(text: impl AsRef<[u8]>) -> Result<Option<RequestHead>, Code> {
    let bytes = text.as_ref();
    let whole = feed(bytes, bytes.len());
    for cut in 0..bytes.len() {
        assert_eq!(feed(bytes, cut).is_ok(), whole.is_ok(), "cut at {cut}");
        if let (Ok(cut_up), Ok(whole)) = (feed(bytes, cut), &whole) {
            assert_eq!(&cut_up, whole, "cut at {cut}");
        }
    }
    whole.map(|found| found.map(|(head, _)| head)).map_err(|refusal| refusal.code)
}

#[track_caller]
fn accepts(text: impl AsRef<[u8]>) -> RequestHead {
    read(text).expect("accepted").expect("whole")
}

#[track_caller]
fn refuses(text: impl AsRef<[u8]> + std::fmt::Debug) {
    assert_eq!(read(&text), Err(Code::BadRequest), "{text:?}");
}

fn with(fields: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n")
}

#[test]
fn a_plain_head() {
    let head = accepts("GET /a?b=c%20d HTTP/1.1\r\nHost: x:1\r\nX-Y:  z \r\nx-y: \t2\r\n\r\n");
    assert_eq!((head.method.as_str(), head.target.as_str()), ("GET", "/a?b=c%20d"));
    assert_eq!(head.version, Version::Http11);
    assert_eq!(head.host.as_deref(), Some("x:1"));
    assert_eq!(head.headers.all("X-Y").collect::<Vec<_>>(), [b"z".as_slice(), b"2"]);
    assert_eq!(head.body, BodyLength::Absent);
}

#[test]
fn what_follows_the_head_is_left_alone() {
    let bytes = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n\x00\n\r";
    let (head, length) = feed(bytes, bytes.len()).unwrap().unwrap();
    assert_eq!(head.body, BodyLength::Sized(3));
    assert_eq!(length, bytes.len() - 3);
}

#[test]
fn an_unfinished_head_asks_for_more() {
    for text in
        ["", "\r", "\r\n", "G", "GET / HTTP/1.1\r\nHost: a\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r"]
    {
        assert_eq!(read(text), Ok(None), "{text:?}");
    }
}

#[test]
fn line_ends_and_control_bytes() {
    refuses("GET / HTTP/1.1\nHost: a\n\n");
    refuses("GET / HTTP/1.1\r\nHost: a\n\r\n");
    refuses("GET / HTTP/1.1\r\nHost: a\r\n\n");
    refuses("GET / HTTP/1.1\rHost: a\r\n\r\n");
    refuses(with("X: a\rb"));
    refuses(with("X: a\0b"));
    refuses(with("X: a\x0bb"));
    refuses(with("X: a\x7fb"));
    refuses("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n");
    refuses(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    assert!(accepts(with("X: a\tb")).headers.contains("x"));
    let mut high = with("X: ").into_bytes();
    high.splice(high.len() - 4..high.len() - 4, [0xc3, 0xa4]);
    assert_eq!(accepts(high).headers.first("x"), Some([0xc3, 0xa4].as_slice()));
}

#[test]
fn request_lines() {
    refuses("GET /\r\n");
    refuses("GET / HTTP/2.0\r\n");
    refuses("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    refuses("GET / HTTP/1.2\r\n");
    refuses("GET / HTTP/1.1 \r\n");
    refuses("GET  / HTTP/1.1\r\n");
    refuses("GET / x HTTP/1.1\r\n");
    refuses(" GET / HTTP/1.1\r\n");
    refuses("G(T / HTTP/1.1\r\n");
    refuses("GET / http/1.1\r\n");
    refuses("HTTP/1.1 200 OK\r\n");
    assert_eq!(accepts("get-it / HTTP/1.1\r\nHost: a\r\n\r\n").method, "get-it");
}

#[test]
fn empty_lines_before_the_request_line() {
    accepts("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    accepts(format!("{}GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n".repeat(4)));
    refuses("\r\n".repeat(5));
    refuses("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
}

#[test]
fn fields() {
    refuses(with("X : a"));
    refuses(with("X\t: a"));
    refuses(with(" X: a"));
    refuses(with("X: a\r\n b"));
    refuses(with("X: a\r\n\tb"));
    refuses(with(": a"));
    refuses(with("X"));
    refuses(with("X(: a"));
    refuses(with("X\u{e4}: a"));
    assert_eq!(accepts(with("X:")).headers.first("x"), Some(b"".as_slice()));
}

#[test]
fn targets() {
    let target = |target: &str| read(format!("GET {target} HTTP/1.1\r\nHost: own\r\n\r\n"));
    let cases = [
        ("http://a/b?c", "a", "/b?c"),
        ("HTTPS://a:1", "a:1", "/"),
        ("http://a?c", "a", "/?c"),
        ("//a/b", "own", "//a/b"),
        ("/http://a", "own", "/http://a"),
    ];
    for (sent, host, expected) in cases {
        let head = target(sent).unwrap().unwrap();
        assert_eq!((head.host.as_deref(), head.target.as_str()), (Some(host), expected), "{sent}");
    }
    for sent in [
        "*",
        "a",
        "@evil/x",
        "a:443",
        "ftp://a/",
        "http://",
        "http:///x",
        "http://u@a/",
        "http://a:x/",
        "/a#b",
        "/a\u{e4}",
        "http://[::1/",
        "://a/",
        "?a",
    ] {
        assert_eq!(target(sent), Err(Code::BadRequest), "{sent}");
    }
    refuses("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n");
    refuses("CONNECT /a HTTP/1.1\r\nHost: a\r\n\r\n");
    refuses("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
}

#[test]
fn hosts() {
    let host = |fields: &str| read(format!("GET / HTTP/1.1\r\n{fields}\r\n"));
    for fine in ["a", "a.b-c:80", "127.0.0.1", "[::1]", "[::1]:80", "a:"] {
        let head = host(&format!("Host: {fine}\r\n")).unwrap().unwrap();
        assert_eq!(head.host.as_deref(), Some(fine));
    }
    for wrong in
        ["", "a b", "a/b", "u@a", "a:b", "a:99999", "[::1", "[x]", "[::1]x", "a\u{e4}", "a:1:2"]
    {
        assert_eq!(host(&format!("Host: {wrong}\r\n")), Err(Code::BadRequest), "{wrong}");
    }
    assert_eq!(host(""), Err(Code::BadRequest));
    assert_eq!(host("Host: a\r\nHost: a\r\n"), Err(Code::BadRequest));
    assert_eq!(accepts("GET / HTTP/1.0\r\n\r\n").host, None);
}

#[test]
fn framing() {
    let body = |fields: &str| read(with(fields)).map(|head| head.unwrap().body);
    assert_eq!(body("Content-Length: 0"), Ok(BodyLength::Sized(0)));
    assert_eq!(body("Content-Length: 007"), Ok(BodyLength::Sized(7)));
    assert_eq!(body("Content-Length: 18446744073709551615"), Ok(BodyLength::Sized(u64::MAX)));
    assert_eq!(body("Transfer-Encoding: Chunked"), Ok(BodyLength::Chunked));
    for wrong in [
        "Content-Length: 18446744073709551616",
        "Content-Length: ",
        "Content-Length: -1",
        "Content-Length: +1",
        "Content-Length: 1, 1",
        "Content-Length: 0x10",
        "Content-Length: 1 1",
        "Content-Length: 1\r\nContent-Length: 1",
        "Content-Length: 1\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 1",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding:",
        "Transfer-Encoding : chunked",
        "Expect: 200-ok",
    ] {
        assert_eq!(body(wrong), Err(Code::BadRequest), "{wrong}");
    }
    refuses("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
}

#[test]
fn field_count_on_both_sides() {
    let fields = |count: usize| "X: y\r\n".repeat(count - 1);
    let head = |count| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", fields(count));
    assert!(feed(head(HEAD_MAX_FIELDS).as_bytes(), 0).is_ok());
    let refusal = feed(head(HEAD_MAX_FIELDS + 1).as_bytes(), 0).unwrap_err();
    assert_eq!(refusal.code, Code::HeadTooLarge);
}

#[test]
fn head_size_on_both_sides() {
    let head = |bytes: usize| {
        let frame = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(bytes - frame))
    };
    let largest = head(HEAD_MAX_BYTES);
    assert_eq!(largest.len(), HEAD_MAX_BYTES);
    assert!(feed(largest.as_bytes(), 10).unwrap().is_some());
    let refusal = feed(head(HEAD_MAX_BYTES + 1).as_bytes(), 10).unwrap_err();
    assert_eq!(refusal.code, Code::HeadTooLarge);
    let endless = vec![b'a'; HEAD_MAX_BYTES];
    assert_eq!(feed(&endless, 10).unwrap_err().code, Code::HeadTooLarge);
}

#[test]
fn a_head_that_comes_at_once_is_judged_no_other_way_than_one_that_does_not() {
    let head = b"POST /a HTTP/1.1\r\nHost: a\r\nX-Y: b\tc\r\nContent-Length: 1\r\n\r\nz".as_slice();
    assert!(at_once(head).is_some());
    let special = b"\r\n\t \0\x7f:/,\x80a";
    for at in 0..head.len() {
        for byte in special {
            let mut changed = head.to_vec();
            changed[at] = *byte;
            let mut longer = head.to_vec();
            longer.insert(at, *byte);
            let mut shorter = head.to_vec();
            shorter.remove(at);
            for bytes in [changed, longer, shorter] {
                let by_bytes = feed(&bytes, 1);
                assert_eq!(feed(&bytes, bytes.len()), by_bytes, "{:?}", bytes.escape_ascii());
                assert!(at_once(&bytes).is_none() || by_bytes.is_ok());
            }
        }
    }
}
