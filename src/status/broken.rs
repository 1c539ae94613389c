//! Finds an instance's address in a configuration that is no longer YAML. Pure.

use std::path::PathBuf;

/// The address in `settings`, with None for missing parts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct BrokenAddress {
    pub host: Option<String>,
    pub port: Option<u16>,
    /// The addresses in `listen`, as they are written.
    pub listen: Vec<String>,
    /// The file with the certificate, if clients speak TLS.
    pub certificate: Option<PathBuf>,
}

/// The address in `settings` of `text`.
///
/// It reads line by line, because the parser gave up; a guess is enough, because a person judges the outcome.
pub(crate) fn listening(text: &str) -> BrokenAddress {
    let section = section(text);
    let named = |key| value(&section, key).filter(|value| !value.is_empty());
    BrokenAddress {
        host: named("host"),
        port: named("port").and_then(|port| port.parse().ok()),
        listen: list(&section, "listen"),
        certificate: named("cert_file").map(PathBuf::from),
    }
}

/// The content of `settings`, without comments.
fn section(text: &str) -> String {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().map(|line| match line.find('#') {
        Some(0) => "",
        Some(at) if line[..at].ends_with([' ', '\t']) => &line[..at],
        _ => line,
    });
    let mut lines = lines.skip_while(|line| !line.starts_with("settings:"));
    let first = lines.next().and_then(|line| line.strip_prefix("settings:"));
    let rest = lines.take_while(|line| line.is_empty() || line.starts_with([' ', '\t', '}']));
    first.into_iter().chain(rest).collect::<Vec<_>>().join("\n")
}

/// The value of `key`, in block or in flow style.
fn value(section: &str, key: &str) -> Option<String> {
    section.split(['\n', ',', '{', '}']).find_map(|pair| {
        let value = pair.trim().strip_prefix(key)?.trim_start().strip_prefix(':')?;
        Some(value.trim().trim_matches(['"', '\'']).to_owned())
    })
}

/// The items of the list `key`, in block or in flow style.
fn list(section: &str, key: &str) -> Vec<String> {
    let starts = |pair: &str| {
        pair.trim().strip_prefix(key)?.trim_start().strip_prefix(':').map(str::to_owned)
    };
    let mut pairs = section.split(['\n', ',', '{', '}']);
    let Some(first) = pairs.find_map(starts) else { return Vec::new() };
    let is_flow = first.trim_start().starts_with('[');
    let mut items = Vec::new();
    for item in std::iter::once(first.as_str()).chain(pairs) {
        let is_last = is_flow && item.trim_end().ends_with(']');
        let item = item.trim().trim_matches(['[', ']', ' ', '-']).trim_matches(['"', '\'']);
        // An address is all that such a list holds, and it has a colon without a space.
        if item.contains(": ") || item.ends_with(':') {
            break;
        }
        if !item.is_empty() {
            items.push(item.to_owned());
        }
        if is_last {
            break;
        }
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_certificates_of_a_broken_file() {
        for (text, expected) in [
            (
                "settings:\n  listen: ['127.0.0.1:1', \"[::1]:2\"]\n  tls: {cert_file: c}\n",
                &["127.0.0.1:1", "[::1]:2"][..],
            ),
            (
                "settings:\n  listen:\n    - \"unix:/run/s?mode=0660\" # x\n    - localhost:2\n  tls:\n    cert_file: \"c\"\n",
                &["unix:/run/s?mode=0660", "localhost:2"],
            ),
            (
                "settings: {listen: ['unix:/s'], tls: {cert_file: 'c', key_file: k}, port: x}\n[",
                &["unix:/s"],
            ),
            ("settings: {tls: {cert_file: c}}\n", &[]),
        ] {
            let found = listening(text);
            assert_eq!(found.listen, expected, "{text}");
            assert_eq!(found.certificate, Some(PathBuf::from("c")), "{text}");
        }
        assert_eq!(listening("settings: {tls: null, listen: []}"), BrokenAddress::default());
    }

    #[test]
    fn what_a_broken_file_still_tells() {
        let cases = [
            ("settings:\n  port: 81\n\tx: [\n", None, Some(81)),
            ("settings:\n  host: \"::1\"   # here\n  port : 81\n", Some("::1"), Some(81)),
            ("\u{feff}settings: {host: 'a.b', port: 82}\nproviders: [\n", Some("a.b"), Some(82)),
            ("settings: {\n  port: 83,\n}\nx: \"\n", None, Some(83)),
            ("# port: 1\nsettings:\n\n# x\n  # port: 2\n  port: 84\n", None, Some(84)),
            // Neither of another section, nor of a key that only ends or begins the same.
            ("settings:\n  x: 1\nproviders:\n  - port: 5\n", None, None),
            ("settings:\n  ports: 5\n  support: 6\n", None, None),
            ("settings:\n  port: 65536\n  host: ''\n", None, None),
            ("port: 5\n", None, None),
            ("", None, None),
        ];
        for (text, host, port) in cases {
            let host = host.map(str::to_owned);
            let expected = BrokenAddress { host, port, ..BrokenAddress::default() };
            assert_eq!(listening(text), expected, "{text:?}");
        }
    }
}
