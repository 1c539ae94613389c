//! Inserts a provider into the text of a configuration file, whose comments, order and line ends stay. Pure.

use crate::config::raw::tree::Node;

/// The key of the list.
const PROVIDERS: &str = "providers";
const BYTE_ORDER_MARK: char = '\u{feff}';

/// `text` with a provider whose lines are `entry`: the first begins with `- `, at the left margin. The error says why
/// the text is not changed.
pub(crate) fn insert_provider(text: &str, entry: &[String]) -> Result<String, &'static str> {
    const UNCLEAR: &str = "the list of its providers is not clear enough to add to it";
    let changed = inserted(text, entry);
    let before = read(text).ok_or("it is not YAML")?;
    let expected = with_entry(before, read(&entry.join("\n")).ok_or(UNCLEAR)?);
    // The places in a text are guessed, so the result is read and compared.
    match (read(&changed), expected) {
        (Some(after), Some(expected)) if after == expected => Ok(changed),
        _ => Err(UNCLEAR),
    }
}

fn read(text: &str) -> Option<Node> {
    Node::read(text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)).ok()
}

/// The tree `before` with one more provider, the only one of the list `entry`.
fn with_entry(before: Node, entry: Node) -> Option<Node> {
    let Node::List(entry) = entry else { return None };
    let mut members = match before {
        Node::Map(members) => members,
        Node::Null => Vec::new(),
        _ => return None,
    };
    match members.iter_mut().find(|(key, _)| key == PROVIDERS) {
        Some((_, Node::List(list))) => list.extend(entry),
        Some((_, empty @ Node::Null)) => *empty = Node::List(entry),
        Some(_) => return None,
        None => members.push((PROVIDERS.to_owned(), Node::List(entry))),
    }
    Some(Node::Map(members))
}

/// `text` with the lines of `entry` at the likely place.
fn inserted(text: &str, entry: &[String]) -> String {
    let line_end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let of_key = lines.iter().position(|line| is_key(line));
    let (at, indent, before) = match of_key {
        Some(key) => {
            let (end, indent) = end_of_list(&lines, key);
            let own = without_empty_value(lines[key]);
            (end, indent.unwrap_or("  "), own.map(|line| (key, line)))
        }
        None => (lines.len(), "  ", None),
    };
    let mut out = String::new();
    for (index, line) in lines[..at].iter().enumerate() {
        match &before {
            Some((key, own)) if *key == index => out.push_str(&without_blank_end(own)),
            _ => out.push_str(line),
        }
    }
    if !out.is_empty() && !out.ends_with('\n') {
        out.push_str(line_end);
    }
    if of_key.is_none() {
        out.extend([PROVIDERS, ":", line_end]);
    }
    for line in entry {
        out.extend([indent, line, line_end]);
    }
    out.extend(lines[at..].iter().copied());
    out
}

/// `line` without blanks before its end or its comment.
fn without_blank_end(line: &str) -> String {
    let content = line.trim_end_matches(['\r', '\n']);
    let end = &line[content.len()..];
    format!("{}{end}", content.trim_end())
}

/// True for the line of the key of the list.
fn is_key(line: &str) -> bool {
    let line = line.trim_start_matches(BYTE_ORDER_MARK);
    let names = [PROVIDERS, "\"providers\"", "'providers'"];
    names
        .iter()
        .any(|name| line.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with(':')))
}

/// The line of the key without its value, if that is an empty list or none.
fn without_empty_value(line: &str) -> Option<String> {
    let (key, rest) = line.split_once(':')?;
    let value = rest.trim_start_matches(' ');
    let blanks = &rest[..rest.len() - value.len()];
    let list = || value.strip_prefix('[')?.trim_start_matches(' ').strip_prefix(']');
    let after = ["null", "Null", "NULL", "~"].iter().find_map(|none| value.strip_prefix(none));
    let after = after.or_else(list)?;
    (after.is_empty() || after.starts_with([' ', '\t', '\r', '\n']))
        .then(|| format!("{key}:{blanks}{after}"))
}

/// The index of the line after the list that begins below the line `key`, and the indentation of its entries, if there
/// are any.
fn end_of_list<'a>(lines: &[&'a str], key: usize) -> (usize, Option<&'a str>) {
    let (mut end, mut indent) = (key + 1, None);
    for (index, line) in lines.iter().enumerate().skip(key + 1) {
        let content = line.trim_start_matches(' ');
        let own = &line[..line.len() - content.len()];
        let content = content.trim_end();
        let is_comment = content.starts_with('#');
        if content.is_empty() {
            continue;
        }
        if own.is_empty() && !is_comment && !(content == "-" || content.starts_with("- ")) {
            // Another key, or the end of the document.
            break;
        }
        if is_comment {
            // A comment right below an entry, and indented like it, belongs to that entry.
            if end == index && !own.is_empty() && indent.is_some() {
                end = index + 1;
            }
            continue;
        }
        if indent.is_none() && content.starts_with('-') {
            indent = Some(own);
        }
        end = index + 1;
    }
    (end, indent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Vec<String> {
        [
            "- name: \"new\"",
            "  type: generic",
            "  auto_refresh_config:",
            "    issuer: \"https://i\"",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    #[track_caller]
    fn check(before: &str, after: &str) {
        assert_eq!(insert_provider(before, &entry()).as_deref(), Ok(after), "{before}");
    }

    const NEW: &str = "  - name: \"new\"\n    type: generic\n    auto_refresh_config:\n      issuer: \"https://i\"\n";

    #[test]
    fn comments_order_and_indentation_stay() {
        let old = "# mine\nsettings:\n  port: 1   # here\n\nproviders:   # all\n  # the first\n  - name: a\n    type: x # y\n";
        check(old, &format!("{old}{NEW}"));
        let rest = "\n# about routes\nmodel_routes: {}\n";
        check(&format!("{old}{rest}"), &format!("{old}{NEW}{rest}"));
        // A comment that is indented belongs to the entry above it.
        let old = format!("{old}    # auth_value: k\n");
        check(&format!("{old}{rest}"), &format!("{old}{NEW}{rest}"));
    }

    #[test]
    fn each_way_to_write_the_list() {
        let left = NEW.lines().map(|line| format!("{}\n", &line[2..])).collect::<String>();
        check(
            "providers:\n- name: a\nsettings: {}\n",
            &format!("providers:\n- name: a\n{left}settings: {{}}\n"),
        );
        let wide = NEW.lines().map(|line| format!("   {line}\n")).collect::<String>();
        check("providers:\n     - name: a\n", &format!("providers:\n     - name: a\n{wide}"));
        check("providers: []\n", &format!("providers:\n{NEW}"));
        check(
            "providers: [] # none\nsettings: {}\n",
            &format!("providers:  # none\n{NEW}settings: {{}}\n"),
        );
        for empty in ["[ ]", "null", "~", "Null  ", "NULL"] {
            check(&format!("providers: {empty}\n"), &format!("providers:\n{NEW}"));
            let with_comment = format!("providers: {empty} # none\n");
            let changed = insert_provider(&with_comment, &entry()).unwrap();
            assert!(changed.contains("# none\n  - name"), "{changed}");
        }
        check("providers:\n", &format!("providers:\n{NEW}"));
        check("'providers' :\n  - name: a", &format!("'providers' :\n  - name: a\n{NEW}"));
        check("settings: {}\n", &format!("settings: {{}}\nproviders:\n{NEW}"));
        check("settings: {}", &format!("settings: {{}}\nproviders:\n{NEW}"));
        check("", &format!("providers:\n{NEW}"));
        check("\u{feff}providers:\n  - a\n", &format!("\u{feff}providers:\n  - a\n{NEW}"));
        check(
            "providers:\n  - a: |\n      text\n\n      more\n",
            &format!("providers:\n  - a: |\n      text\n\n      more\n{NEW}"),
        );
        check(
            "providers: &all\n  - a\nx: *all\n".replace("x: *all\n", "").as_str(),
            &format!("providers: &all\n  - a\n{NEW}"),
        );
    }

    #[test]
    fn line_ends_stay() {
        let with_crlf = |text: &str| text.replace('\n', "\r\n");
        for old in ["providers:\n  - name: a\n# end\n", "settings: {}\nproviders: []\n"] {
            let changed = insert_provider(&with_crlf(old), &entry()).unwrap();
            assert_eq!(changed, with_crlf(&insert_provider(old, &entry()).unwrap()));
            assert_eq!(changed.matches('\n').count(), changed.matches("\r\n").count());
        }
    }

    #[test]
    fn a_text_whose_result_would_mean_something_else_is_refused() {
        for text in [
            "providers: [{name: a}]\n",
            "{providers: [], settings: {}}\n",
            "providers: &a\n  - name: a\nmodel_routes:\n  x: *a\n",
            "settings: {}\n---\nproviders: []\n",
            "settings: {}\n...\n",
            "providers: x\n",
            "providers: nullable\n",
            "providers: [\n]\n",
            "providers:\n  a: b\n",
            "settings: |\n  text\n  providers:\nproviders: {a: b}\n",
            "- a\n",
            "providers:\n  - a: \"x\nproviders:\n  - y\"\n",
            "x: [\n",
        ] {
            assert!(insert_provider(text, &entry()).is_err(), "{text}");
        }
    }
}
