//! Tests of the words about a text that is not YAML.

use crate::config::problem::Position;
use crate::config::raw::Document;

const GOOD: &str = "\
settings:
  port: 8080
providers:
  - name: \"One\"
    type: \"generic\"
    base_url: \"http://127.0.0.1:9\"
  - name: \"Two\"
    type: \"generic\"
";

fn told(text: &str) -> (Option<Position>, String) {
    Document::parse(text).err().unwrap_or_else(|| panic!("this is fine: {text}"))
}

/// The valid text with one replacement, and the expected explanation.
#[track_caller]
fn expect(from: &str, to: &str, position: Position, part: &str) {
    assert!(GOOD.contains(from), "{from}");
    let (at, message) = told(&GOOD.replacen(from, to, 1));
    assert_eq!(at, Some(position), "{to}: {message}");
    assert!(message.contains(part), "{to}: {message}");
}

#[test]
fn tabs_and_other_blanks() {
    expect("    type", "\ttype", (5, 1), "a tab; YAML wants spaces");
    expect("    type", "  \ttype", (5, 3), "a tab; YAML wants spaces");
    expect("  - name", "  -\tname", (4, 4), "a tab; YAML wants spaces");
    expect("  port", "\tport", (2, 1), "a tab; YAML wants spaces");
    expect("    type", "\t\n    type", (5, 1), "a tab; YAML wants spaces");
    expect("    type", "  \t \n    type", (5, 3), "a tab; YAML wants spaces");
    expect("    type", "    \u{a0}type", (5, 5), "a space of another kind (U+00A0)");
    expect("    type", "    \u{3000}type", (5, 5), "a space of another kind (U+3000)");
    expect("One", "O\u{1}ne", (4, 13), "a control character (U+0001)");
    let other = "a space of another kind (U+00A0)";
    expect("type: ", "type:\u{a0}", (5, 10), other);
    expect("type: \"generic\"", "type:\u{a0}", (5, 10), other);
    expect("settings:", "settings:\u{a0}", (1, 10), other);
    expect("\"One\"", "\"One\"\u{a0}", (4, 16), other);
    expect("\"One\"", "\"One\" \u{3000}# it", (4, 17), "(U+3000)");
    expect("- name: \"Two\"", "-\u{a0}name: \"Two\"", (7, 4), other);
}

#[test]
fn a_key_that_stands_at_the_level_of_a_parent_is_told_where_it_stands() {
    const DEEP: &str = "\
settings:
  timeouts:
    idle: 1
    connect: 2
    response: 3
  port: 4
providers:
  - name: \"One\"
    auto_refresh_config:
      token_url: \"u\"
      scope: \"s\"
      issuer: \"i\"
    type: \"generic\"
";
    // The line that loses so many blanks, the place of the mistake, and the indentation of the other lines.
    for (line, fewer, place, others) in [
        (4, 2, (4, 3), "the lines above and below it by 4"),
        (4, 4, (4, 1), "the lines above and below it by 4"),
        (11, 2, (11, 5), "the lines above and below it by 6"),
        (11, 6, (11, 1), "the lines above and below it by 6"),
        (3, 2, (3, 3), "the line below it by 4"),
        (10, 2, (10, 5), "the line below it by 6"),
    ] {
        let lines = DEEP.lines().enumerate();
        let changed = lines
            .map(|(index, text)| if index + 1 == line { &text[fewer..] } else { text })
            .collect::<Vec<_>>()
            .join("\n");
        let (at, message) = told(&changed);
        assert_eq!(at, Some(place), "line {line} by {fewer}: {message}");
        assert!(message.contains(others), "line {line} by {fewer}: {message}");
    }
    // The two lines in the middle.
    let two = DEEP.replace("      scope", "    scope").replace("    connect", "  connect");
    assert_eq!(told(&two).0, Some((4, 3)));
    // Nothing above shows that the line above is the wrong one.
    let (at, message) = told("a: 1\n  b: 2\n");
    assert_eq!(at, Some((2, 3)), "{message}");
}

#[test]
fn a_text_that_is_not_indented_below_its_mark() {
    for mark in ['|', '>'] {
        let words = format!("the text that the '{mark}' at 4:11 begins must be indented further");
        expect("\"One\"", &format!("{mark}\nOne and more"), (5, 1), &words);
        expect("\"One\"", &format!("{mark}\n\n    One"), (6, 5), &words);
    }
    expect("\"One\"", "|\n      One\n    Two", (6, 5), "there is no colon and space after 'Two'");
}

#[test]
fn quotes_that_are_not_closed() {
    expect("\"One\"", "\"One", (4, 11), "the quote opened at 4:11 is not closed");
    expect("\"One\"", "'One", (4, 11), "the quote opened at 4:11 is not closed");
    expect(
        "http://127.0.0.1:9\"",
        "http://127.0.0.1:9",
        (6, 15),
        "the quote opened at 6:15 is not closed",
    );
    expect("\"One\"", "\"One\"\"", (4, 16), "the quote opened at 4:11 is closed before this");
    expect("\"One\"", "\"C:\\Users\"", (4, 14), "a backslash begins an escape");
    expect("\"One\"", "\"C:\\me\"", (4, 14), "a backslash begins an escape");
    let last = GOOD.trim_end().strip_suffix('"').unwrap();
    assert_eq!(told(last), (Some((8, 11)), "the quote opened at 8:11 is not closed".to_owned()));
}

#[test]
fn brackets() {
    expect("8080", "[8080", (2, 9), "the '[' opened at 2:9 is not closed");
    expect("\n  port: 8080", " {port: 8080", (1, 11), "the '{' opened at 1:11 is not closed");
    expect(
        "\n  port: 8080",
        " {port: 8080}}",
        (1, 23),
        "nothing is open that this '}' could close",
    );
    expect("8080", "[8080}", (2, 14), "nothing is open that this '}' could close");
}

#[test]
fn lines_that_are_indented_wrongly() {
    expect(
        "    type",
        "   type",
        (5, 4),
        "'type:' is indented by 3, where the lines above are indented by 2 or 4",
    );
    expect(
        "    type",
        "      type",
        (5, 7),
        "indented deeper than the one above, which has a value",
    );
    expect("providers", " providers", (3, 2), "'providers:' is indented by 1");
    expect(
        "8080",
        "8080\n    host: x",
        (3, 5),
        "indented deeper than the one above, which has a value",
    );
}

#[test]
fn dashes() {
    expect(
        "  - name: \"One\"",
        "    name: \"One\"",
        (4, 5),
        "a dash is missing before the first key",
    );
    expect("  - name: \"Two\"", "    name: \"Two\"", (7, 5), "or put the dash before it");
    expect("  - name: \"One\"", "  -name: \"One\"", (4, 3), "the dash needs a blank behind it");
    expect(
        "    type",
        "    - type",
        (5, 5),
        "a dash begins an entry of a list, but the lines above it are keys",
    );
}

#[test]
fn colons_and_texts_that_need_quotes() {
    expect(
        "type: \"generic\"",
        "type \"generic\"",
        (5, 5),
        "there is no colon and space after 'type'",
    );
    expect(
        "\"One\"",
        "One: the first",
        (4, 11),
        "a text with a colon and a space in it needs quotes",
    );
    for first in ['@', '`', '%', '*'] {
        let words = format!("a text that begins with '{first}' needs quotes");
        expect("\"One\"", &format!("{first}one"), (4, 11), &words);
    }
    expect(
        "settings",
        "model_routes:\n  *sonnet*: []\nsettings",
        (2, 3),
        "that begins with '*' needs quotes",
    );
    expect("providers", "---\nproviders", (3, 1), "'---' begins a second document");
}

#[test]
fn what_is_right_is_no_mistake() {
    for text in [
        GOOD,
        "a: \"two\n  lines\"\nb: |\n  any: thing\n  \t\"in here\nc: 1\n",
        "a: &x {b: [1, 2], c: \"}\"} # a comment: with \"quotes\nd: *x\n",
        "- 'it''s'\n- \"\\u00e9\\\"\"\n- -1\n-\n  - deep\n",
        "\"a b\": c\n? d\n: e\n",
        "---\na: 1\n",
        "a:\n- b\n- c\nd: e f\n  g\n",
        "\u{feff}a: b\r\nc: d\r\n",
    ] {
        assert!(Document::parse(text).is_ok(), "{text}: {:?}", Document::parse(text).err());
    }
}

#[test]
fn whatever_is_left_out_or_put_in_is_told_with_a_place() {
    let text = include_str!("../../../../providers.yaml.example");
    let places: Vec<usize> = text.char_indices().map(|(at, _)| at).step_by(41).collect();
    let mut refused = 0;
    for at in places {
        let (before, after) = text.split_at(at);
        let rest = after.chars().next().map_or("", |first| &after[first.len_utf8()..]);
        for put_in in ["", "\"", "'", "[", "}", "\t", ": ", "\n", "- ", "*", "\u{0}"] {
            let changed = format!("{before}{put_in}{rest}");
            if let Err((position, message)) = Document::parse(&changed) {
                refused += 1;
                let line = position.map_or(0, |(line, _)| line);
                assert!(
                    (1..=changed.lines().count() + 1).contains(&line),
                    "{message}: {put_in:?} at {at}"
                );
                assert!(!message.contains("this can't be read as YAML: \n"), "{message}");
            }
        }
    }
    assert!(refused > 50, "{refused}");
}
