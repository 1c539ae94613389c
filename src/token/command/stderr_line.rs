//! The first line of a command's standard error, without anything that looks like a secret. Pure.

/// The longest line that is shown, in characters.
const SHOWN_MAX_CHARS: usize = 200;
/// Stands in place of a secret.
const CUT: &str = "***";
/// A known secret that is shorter is no secret: it would be cut out of ordinary words.
const KNOWN_MIN_BYTES: usize = 4;
/// A run of letters and digits of a token's alphabet that is as long looks like a secret if it has a digit.
const MIXED_MIN_BYTES: usize = 16;
/// The same for letters alone: longer than a word.
const LETTERS_MIN_BYTES: usize = 32;
/// Beginnings of well-known secrets.
const STARTS: [&str; 12] = [
    "eyJ", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "sk-", "ya29.", "xox", "AKIA",
    "hvs.",
];
/// Parts of names whose value is a secret.
const NAMES: [&str; 14] = [
    "token", "secret", "passw", "passphrase", "pwd", "key", "credential", "auth", "bearer",
    "cookie", "session", "assertion", "code", "pin",
];

/// The first line with any text in it, with secrets cut out: the `known` ones, and what looks like one.
pub(super) fn first_line(stderr: &[u8], known: &[String]) -> Option<String> {
    let text = String::from_utf8_lossy(stderr);
    let line = text.split(['\n', '\r']).map(plain).find(|line| !line.trim().is_empty())?;
    let mut line = line.trim().to_owned();
    for secret in known.iter().flat_map(|text| text.lines()) {
        if secret.len() >= KNOWN_MIN_BYTES {
            line = line.replace(secret, CUT);
        }
    }
    let line = without_secrets(&line);
    let mut shown: String = line.chars().take(SHOWN_MAX_CHARS).collect();
    if shown.len() < line.len() {
        shown.push('…');
    }
    Some(shown)
}

/// The line without control characters and a terminal's colours.
fn plain(line: &str) -> String {
    let mut shown = String::new();
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => {
                // ECMA-48 §5.4: a control sequence ends with a byte from @ to ~.
                if characters.as_str().starts_with('[') {
                    characters.next();
                    characters.by_ref().find(|one| ('@'..='~').contains(one));
                }
            }
            '\t' => shown.push(' '),
            character if character.is_control() => {}
            character => shown.push(character),
        }
    }
    shown
}

/// Cuts the values of secrets' names, what follows a scheme, and long runs of a token's alphabet.
fn without_secrets(line: &str) -> String {
    let (mut shown, mut rest) = (String::new(), line);
    // True if the next word is a secret because of the words before it.
    let mut is_next_secret = false;
    while let Some(piece) = first_piece(rest) {
        rest = &rest[piece.len()..];
        if piece.starts_with(is_between) || is_next_secret && is_scheme(piece) {
            shown.push_str(piece);
        } else if is_next_secret || looks_like_one(piece) {
            shown.push_str(CUT);
            is_next_secret = false;
        } else {
            shown.push_str(piece);
            is_next_secret = is_plain_scheme(piece) || names_a_secret(piece, rest);
        }
    }
    shown
}

/// The word at the start of `text`, or the characters before its first word.
fn first_piece(text: &str) -> Option<&str> {
    let is_word = !is_between(text.chars().next()?);
    let end = text.find(|one: char| is_between(one) == is_word).unwrap_or(text.len());
    Some(&text[..end])
}

/// True for a character that belongs to no token.
fn is_between(character: char) -> bool {
    character.is_whitespace() || "\"'`,;:=<>()[]{}|&?#!".contains(character)
}

/// True for a scheme (RFC 9110 §11.4) that a credential follows.
fn is_plain_scheme(word: &str) -> bool {
    word.eq_ignore_ascii_case("bearer") || word.eq_ignore_ascii_case("basic")
}

/// The same after `authorization:`, where GitHub's own scheme may stand.
fn is_scheme(word: &str) -> bool {
    is_plain_scheme(word) || word.eq_ignore_ascii_case("token")
}

/// True if `word` is the name of a secret whose value follows after `=` or `:`.
fn names_a_secret(word: &str, rest: &str) -> bool {
    if word.contains('/') {
        return false;
    }
    let word = word.to_ascii_lowercase();
    let after = rest.trim_start_matches([' ', '"', '\'', '`']);
    after.starts_with(['=', ':']) && NAMES.iter().any(|name| word.contains(name))
}

fn looks_like_one(word: &str) -> bool {
    if STARTS.iter().any(|start| word.starts_with(start) && word.len() >= start.len() + 4) {
        return true;
    }
    // A path or a host is several short runs.
    word.split(['/', '.', '\\', '@']).any(|run| {
        let has_digit = run.bytes().any(|byte| byte.is_ascii_digit());
        let has_break = run.contains(['-', '_']);
        run.is_ascii()
            && (has_digit && run.len() >= MIXED_MIN_BYTES
                || !has_break && run.len() >= LETTERS_MIN_BYTES)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(stderr: &str) -> String {
        first_line(stderr.as_bytes(), &[]).unwrap()
    }

    #[test]
    fn ordinary_messages_are_shown_as_they_are() {
        for line in [
            "ERROR: (gcloud.auth.print-access-token) Your current active account does not have any valid credentials",
            "ERROR: Please run 'az login' to setup account.",
            "sh: 1: gcloud: not found",
            "/home/user/.config/gcloud/application_default_credentials.json: No such file or directory",
            "Traceback (most recent call last):",
            "dial tcp: lookup login.microsoftonline.com on 127.0.0.53:53: no such host",
        ] {
            assert_eq!(shown(line), line);
        }
    }

    #[test]
    fn what_looks_like_a_secret_is_cut_out() {
        let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjE4MDAwMDAwMDB9.c2lnbmF0dXJl";
        let cases = [
            (format!("got {jwt} back"), "got *** back"),
            ("refresh_token=hunter2 is dead".to_owned(), "refresh_token=*** is dead"),
            ("password: hunter2".to_owned(), "password: ***"),
            (
                r#"{"access_token": "short", "x": 1}"#.to_owned(),
                r#"{"access_token": "***", "x": 1}"#,
            ),
            ("Authorization: Bearer abc".to_owned(), "Authorization: Bearer ***"),
            ("Authorization: token abc".to_owned(), "Authorization: token ***"),
            ("authorization: basic dTpw".to_owned(), "authorization: basic ***"),
            ("using ghp_abcd now".to_owned(), "using *** now"),
            ("id 0123456789abcdef0123".to_owned(), "id ***"),
            ("at https://h/cb?code=abc&state=x".to_owned(), "at https://h/cb?code=***&state=x"),
            ("key AKIAIOSFODNN7EXAMPLE".to_owned(), "key ***"),
            ("s wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEYxxxx1".to_owned(), "s ***"),
            ("abcdefghijklmnopqrstuvwxyzabcdef".to_owned(), "***"),
        ];
        for (line, expected) in cases {
            assert_eq!(shown(&line), expected, "{line}");
        }
        let known = ["plain words".to_owned(), "two\nlines!".to_owned(), "abc".to_owned()];
        let line = first_line(b"said plain words, lines! and abc", &known).unwrap();
        assert_eq!(line, "said ***, *** and abc");
    }

    #[test]
    fn only_the_first_line_with_a_text_is_shown_up_to_a_limit_and_without_colours() {
        assert_eq!(shown("\n \r\n\u{1b}[31mred\u{1b}[0m\u{7} line\nsecond"), "red line");
        assert_eq!(first_line(b"", &[]), None);
        assert_eq!(first_line(b"\n\n \x1b[0m", &[]), None);
        assert_eq!(shown("a\u{1b}[31"), "a", "an unfinished sequence");
        let line = |length: usize| "ab ".repeat(length)[..length].to_owned();
        let longest = line(SHOWN_MAX_CHARS);
        assert_eq!(shown(&longest), longest.trim_end());
        let over = line(SHOWN_MAX_CHARS + 2);
        assert_eq!(shown(&over), format!("{}…", &over[..SHOWN_MAX_CHARS]));
        assert_eq!(first_line(b"\xff\xfe bad", &[]).unwrap(), "\u{fffd}\u{fffd} bad");
    }
}
