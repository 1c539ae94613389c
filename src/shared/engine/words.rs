//! An error of the server in its own words, made fit for a log line. Pure.

/// The most characters of the server's words that are shown.
const WORDS_MAX_CHARS: usize = 200;
/// The rest of an answer to an unknown command: it quotes the command, which may contain a password.
const QUOTED_COMMAND: &str = ", with args beginning with";
/// The place at which Redis 7 and Valkey name the script and its line.
const SCRIPT_NAME: &str = " script: ";
/// The place at which Redis 6 puts a command's error into the script's: `… @user_script: 9: -READONLY …`.
const NESTED_ERROR: &str = ": -";

/// The server's words, from its code (`READONLY`, `OOM`, `ERR`, …) and the text after it: the first line, at most
/// [`WORDS_MAX_CHARS`] characters, without quoted commands.
pub(super) fn server_words(code: &str, text: &str) -> String {
    let all = format!("{code} {text}");
    let line = all.lines().next().unwrap_or_default();
    let line = if line.contains("user_script") { nested_error(line) } else { line };
    let line = [QUOTED_COMMAND, SCRIPT_NAME].iter().fold(line, |line, mark| before(line, mark));
    let shown = line.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
    let words: String = shown.clone().take(WORDS_MAX_CHARS).collect();
    if shown.count() > WORDS_MAX_CHARS { words + "…" } else { words }
}

fn nested_error(line: &str) -> &str {
    line.rsplit_once(NESTED_ERROR).map_or(line, |(_, nested)| nested)
}

fn before<'a>(line: &'a str, mark: &str) -> &'a str {
    line.split_once(mark).map_or(line, |(start, _)| start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_own_words_are_shown() {
        let cases = [
            (
                "OOM",
                "command not allowed when used memory > 'maxmemory'.",
                "OOM command not allowed when used memory > 'maxmemory'.",
            ),
            (
                "NOPERM",
                "User evertoken has no permissions to run the 'eval' command",
                "NOPERM User evertoken has no permissions to run the 'eval' command",
            ),
            (
                "READONLY",
                "You can't write against a read only replica. script: 5f3c, on @user_script:9.",
                "READONLY You can't write against a read only replica.",
            ),
            (
                "ERR",
                "Error running script (call to f_5f3c): @user_script:9: @user_script: 9: -OOM command not allowed",
                "OOM command not allowed",
            ),
            (
                "ERR",
                "unknown command 'AUTH', with args beginning with: 'user' 'the-password'",
                "ERR unknown command 'AUTH'",
            ),
            ("LOADING", "Redis is loading\r\nmore", "LOADING Redis is loading"),
            ("X", "a\tb\u{1b}[31m", "X a b [31m"),
            ("MASTERDOWN", "", "MASTERDOWN"),
        ];
        for (code, text, words) in cases {
            assert_eq!(server_words(code, text), words);
        }
    }

    #[test]
    fn long_words_are_cut_at_their_limit() {
        let text = "é".repeat(WORDS_MAX_CHARS - 2);
        assert_eq!(server_words("X", &text), format!("X {text}"));
        assert_eq!(server_words("X", &format!("{text}é")), format!("X {text}…"));
    }
}
