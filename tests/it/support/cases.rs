//! The cases of `tests/data/hostile`, whose README describes the format, and how one is played.

use std::net::SocketAddr;
use std::path::Path;

use super::client::{Client, get};

/// A client's bytes, and the expected outcome.
pub(crate) struct Case {
    /// File and name.
    pub(crate) name: String,
    /// The bytes that are sent.
    pub(crate) input: Vec<u8>,
    /// True if the client's side ends then.
    pub(crate) ends: bool,
    /// The answers, one line each.
    pub(crate) expected: Vec<String>,
    /// The request lines that the provider must see.
    pub(crate) upstream: Vec<String>,
}

/// All cases.
pub(crate) fn all() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hostile");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "cases"));
    paths.sort();
    let mut cases = Vec::new();
    for path in paths {
        let file = path.file_stem().expect("a name").to_string_lossy().into_owned();
        read(&file, &std::fs::read_to_string(path).expect("text"), &mut cases);
    }
    assert!(cases.len() >= 100, "there are {} cases", cases.len());
    cases
}

/// The cases of handshakes, for a port that takes TLS.
pub(crate) fn of_handshakes() -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hostile/handshakes.tls");
    let mut cases = Vec::new();
    read("handshakes", &std::fs::read_to_string(path).expect("text"), &mut cases);
    cases
}

fn read(file: &str, text: &str, cases: &mut Vec<Case>) {
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (kind, rest) = line.split_once(' ').expect("a kind and something");
        if kind == "==" {
            cases.push(Case {
                name: format!("{file}: {rest}"),
                input: Vec::new(),
                ends: false,
                expected: Vec::new(),
                upstream: Vec::new(),
            });
            continue;
        }
        let case = cases.last_mut().expect("a case has begun");
        match kind {
            ">" if rest == "EOF" => case.ends = true,
            ">" => case.input.extend(bytes(rest)),
            "<" => case.expected.push(rest.to_owned()),
            "^" => case.upstream.push(rest.to_owned()),
            _ => panic!("{file}: {line}"),
        }
    }
}

/// The bytes that a text with escapes and repetitions stands for.
fn bytes(mut text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !text.is_empty() {
        if let Some((count, repeated, rest)) = repetition(text) {
            bytes.extend(self::bytes(repeated).repeat(count));
            text = rest;
        } else if let Some(escape) = text.strip_prefix('\\') {
            let (byte, length) = unescape(escape);
            bytes.push(byte);
            text = &escape[length..];
        } else {
            let length = text.chars().next().map_or(0, char::len_utf8);
            bytes.extend_from_slice(&text.as_bytes()[..length]);
            text = &text[length..];
        }
    }
    bytes
}

fn repetition(text: &str) -> Option<(usize, &str, &str)> {
    let (count, rest) = text.strip_prefix('{')?.split_once('*')?;
    let count = count.parse().ok()?;
    let (repeated, rest) = rest.split_once('}')?;
    Some((count, repeated, rest))
}

fn unescape(escape: &str) -> (u8, usize) {
    match escape.as_bytes()[0] {
        b'r' => (b'\r', 1),
        b'n' => (b'\n', 1),
        b't' => (b'\t', 1),
        b'0' => (0, 1),
        b'\\' => (b'\\', 1),
        b'x' => (u8::from_str_radix(&escape[1..3], 16).expect("two digits"), 3),
        other => panic!("no such escape: {other}"),
    }
}

/// Plays `case`, its input cut at each of `cuts`; `between` is called at each cut. Returns what came
/// back in the words of the cases.
pub(crate) fn play(
    address: SocketAddr,
    case: &Case,
    cuts: &[usize],
    between: impl Fn(),
) -> Vec<String> {
    let mut client = Client::connect(address);
    let mut start = 0;
    for cut in cuts {
        client.send(&case.input[start..*cut]);
        start = *cut;
        between();
    }
    client.send(&case.input[start..]);
    if case.ends {
        client.half_close();
    }
    let mut outcomes = Vec::new();
    for expected in &case.expected {
        if expected == "none" {
            outcomes.push(if client.is_closed() { "none" } else { "something" }.to_owned());
            return outcomes;
        }
        outcomes.push(answer(&mut client, expected));
        if outcomes.last() != Some(expected) {
            return outcomes;
        }
    }
    if !case.expected.last().is_some_and(|last| last.ends_with("close")) {
        // The connection is in step still: what comes next is answered as what it is.
        client.send(get("/-/healthy"));
        let probe = client.answer();
        assert_eq!((probe.status, probe.body.as_str()), (200, "ok\n"), "{}", case.name);
    }
    outcomes
}

fn answer(client: &mut Client, expected: &str) -> String {
    let answer = loop {
        let answer = if expected.ends_with("head") { client.head() } else { client.answer() };
        if answer.status != 100 {
            break answer;
        }
    };
    let mut came = answer.status.to_string();
    if !answer.code().is_empty() {
        came = format!("{came} {}", answer.code());
    }
    if expected.ends_with("head") {
        came.push_str(" head");
    }
    if answer.field("connection").is_some_and(|options| options.starts_with("close"))
        && client.is_closed()
    {
        came.push_str(" close");
    }
    came
}
