//! Tables of request heads, and every way to cut them into pieces. Lines and fields: see the tests of `head`.

use super::*;

/// Feeds `bytes` in two pieces cut at `cut`.
fn feed(bytes: &[u8], cut: usize) -> Result<Option<(RequestHead, usize)>, Refusal> {
    let mut reader = RequestReader::default();
    if let Some(found) = reader.read(&bytes[..cut])? {
        return Ok(Some(found));
    }
    reader.read(bytes)
}

/// The head in `text`, the same for every cut.
#[track_caller]
fn read(text: impl AsRef<[u8]>) -> Result<Option<RequestHead>, Code> {
    let bytes = text.as_ref();
    let whole = feed(bytes, bytes.len());
    for cut in 0..bytes.len() {
        assert_eq!(feed(bytes, cut), whole, "cut at {cut}");
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
fn empty_lines_alone_begin_no_head() {
    for idle in ["", "\r", "\r\n", "\r\n\r", "\r\n\r\n\r\n\r\n"] {
        assert!(!begins(idle.as_bytes()), "{idle:?}");
        assert_eq!(read(idle), Ok(None), "{idle:?}");
    }
    for begun in ["G", "\r\nG", "\r\n\r\n\r\n\r\nG", "\n", "\0", "\r\r", "\r\n\r\n\r\n\r\n\r"] {
        assert!(begins(begun.as_bytes()), "{begun:?}");
    }
}

#[test]
fn a_plain_head() {
    let head = accepts("GET /a?b=c%20d HTTP/1.1\r\nHost: x:1\r\nX-Y:  z \r\nx-y: \t2\r\n\r\n");
    assert_eq!((&*head.method, head.target.as_str()), ("GET", "/a?b=c%20d"));
    assert_eq!(head.version, Version::Http11);
    assert_eq!(head.host(), Some("x:1"));
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
fn a_head_is_refused_at_its_first_wrong_byte() {
    for text in
        ["\n", "GET / HTTP/1.1\r\nX: a\n", "GET /\0", "\x16\x03\x01", "GET /\ta HTTP/1.1\r\n"]
    {
        refuses(text);
    }
    for text in ["", "\r", "\r\n", "G", "GET / HTTP/1.1\r\nHost: a\r\n\r"] {
        assert_eq!(read(text), Ok(None), "{text:?}");
    }
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
        assert_eq!((head.host(), head.target.as_str()), (Some(host), expected), "{sent}");
    }
    for sent in [
        "*", "a", "@evil/x", "a:443", "ftp://a/", "http://", "http:///x", "http://u@a/",
        "http://a:x/", "/a#b", "/a\u{e4}", "http://[::1/", "://a/", "?a",
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
        assert_eq!(head.host(), Some(fine));
    }
    for wrong in
        ["", "a b", "a/b", "u@a", "a:b", "a:99999", "[::1", "[x]", "[::1]x", "a\u{e4}", "a:1:2"]
    {
        assert_eq!(host(&format!("Host: {wrong}\r\n")), Err(Code::BadRequest), "{wrong}");
    }
    assert_eq!(host(""), Err(Code::BadRequest));
    assert_eq!(host("Host: a\r\nHost: a\r\n"), Err(Code::BadRequest));
    assert_eq!(accepts("GET / HTTP/1.0\r\n\r\n").host(), None);
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
fn a_head_over_a_limit_is_told_so() {
    let fields = "X: y\r\n".repeat(Rules::STRICT.head_fields_max + 1);
    let line = "y".repeat(HEAD_MAX_BYTES);
    for (fields, told) in [(fields, "has more than 128 fields"), (line, "is over 65536 bytes")] {
        let head = format!("GET / HTTP/1.1\r\n{fields}\r\n");
        let refusal = feed(head.as_bytes(), 10).unwrap_err();
        assert_eq!(refusal.code, Code::HeadTooLarge);
        assert_eq!(refusal.message, format!("The request head {told}"));
    }
}

/// True if `httparse` accepts the head at the start of `bytes`, in which it allows bare line feeds.
fn is_taken_by_httparse(bytes: &[u8]) -> bool {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut fields);
    let Ok(httparse::Status::Complete(length)) = request.parse(bytes) else { return false };
    let is_strict = |at: usize| bytes[at] != b'\n' || (at > 0 && bytes[at - 1] == b'\r');
    let target = request.path.unwrap_or_default();
    (0..length).all(is_strict)
        && !bytes[..length].contains(&0x7f)
        && check(method(request.method.unwrap_or_default().as_bytes()), target, Version::Http11, {
            let mut headers = Headers::new();
            for field in request.headers.iter() {
                headers.push(field.name, field.value);
            }
            headers
        })
        .is_ok()
}

#[test]
fn httparse_takes_what_is_taken_and_no_more() {
    let head = b"POST /a HTTP/1.1\r\nHost: a\r\nX-Y: b\tc\r\nContent-Length: 1\r\n\r\nz".as_slice();
    assert!(is_taken_by_httparse(head));
    let mut taken = 0;
    for at in 0..head.len() {
        for byte in 0..=255 {
            let mut changed = head.to_vec();
            changed[at] = byte;
            let mut longer = head.to_vec();
            longer.insert(at, byte);
            let mut shorter = head.to_vec();
            shorter.remove(at);
            for bytes in [changed, longer, shorter] {
                let ours = feed(&bytes, 1);
                assert_eq!(ours, feed(&bytes, bytes.len()), "{}", bytes.escape_ascii());
                let is_taken = matches!(ours, Ok(Some(_)));
                assert_eq!(is_taken, is_taken_by_httparse(&bytes), "{}", bytes.escape_ascii());
                taken += usize::from(is_taken);
            }
        }
    }
    assert!(taken > 1000, "{taken}");
}
