//! Finds an instance's address in a configuration that is no longer YAML. Pure.

/// The address in `settings` of `text`, as (host, port), with None for a missing part.
///
/// It reads line by line, because the parser gave up; a guess is enough, because a person judges the outcome.
pub(crate) fn listening(text: &str) -> (Option<String>, Option<u16>) {
    let section = section(text);
    let host = value(&section, "host").filter(|host| !host.is_empty());
    (host, value(&section, "port").and_then(|port| port.parse().ok()))
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

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(listening(text), (host.map(str::to_owned), port), "{text:?}");
        }
    }
}
