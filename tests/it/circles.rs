//! The uses between the program's files, which must not point upwards.

use std::collections::{BTreeMap, BTreeSet};

use crate::tidy::{code, program};

/// The modules that each module uses.
type Uses = BTreeMap<String, BTreeSet<String>>;

/// `token::grant` for `src/token/grant.rs`.
fn module(name: &str) -> String {
    name.trim_start_matches("src/").trim_end_matches(".rs").replace('/', "::")
}

fn is_in_name(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The paths that `rest` of a path begins with, after `before`: `a::{b, c::d}` are `a::b` and `a::c::d`.
fn paths(before: &str, rest: &str, found: &mut Vec<String>) {
    let end = rest.find(|character: char| !is_in_name(character)).unwrap_or(rest.len());
    let (name, after) = rest.split_at(end);
    let path = if before.is_empty() { name.to_owned() } else { format!("{before}::{name}") };
    match after.strip_prefix("::") {
        Some(after) if !name.is_empty() => paths(&path, after, found),
        _ if rest.starts_with('{') => {
            for one in members(rest).into_iter().filter(|one| !one.trim().is_empty()) {
                paths(before, one.trim(), found);
            }
        }
        _ => found.push(path),
    }
}

/// The parts between commas in the braces at the beginning of `text`.
fn members(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut all) = (0, 1, Vec::new());
    for (at, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 1 => {
                all.push(&text[start..at]);
                return all;
            }
            '}' => depth -= 1,
            ',' if depth == 1 => {
                all.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    all
}

/// The submodules that a file declares and uses by their names.
fn used_children(text: &str) -> impl Iterator<Item = &str> {
    let declared = text.lines().filter_map(|line| {
        let (_, name) = line.strip_suffix(';')?.split_once("mod ")?;
        name.chars().all(is_in_name).then_some(name)
    });
    let is_used = |name: &str| {
        text.match_indices(&format!("{name}::")).any(|(at, _)| {
            let before = text[..at].chars().next_back();
            before.is_none_or(|before| !is_in_name(before) && before != ':')
        })
    };
    declared.filter(move |name| is_used(name))
}

fn uses() -> Uses {
    let mut all = program();
    all.retain(|(name, _)| {
        !["src/main.rs", "src/lib.rs", "src/testing.rs"].contains(&name.as_str())
    });
    let modules: BTreeSet<String> = all.iter().map(|(name, _)| module(name)).collect();
    let mut graph = Uses::new();
    for (name, text) in &all {
        let own = module(name);
        let text = code(text).replace("(in crate", "(in");
        let mut found = Vec::new();
        for rest in text.split("crate::").skip(1) {
            paths("", rest, &mut found);
        }
        found.extend(used_children(&text).map(|child| format!("{own}::{child}")));
        let used = found.iter().filter_map(|path| {
            let ends = path.match_indices("::").map(|(at, _)| at).chain([path.len()]);
            let known = ends.map(|end| &path[..end]).filter(|path| modules.contains(*path));
            known.last().map(str::to_owned)
        });
        let used: BTreeSet<String> = used.filter(|used| *used != own).collect();
        graph.insert(own, used);
    }
    graph
}

/// All that `from` leads to.
fn reached<'a>(uses: &'a Uses, from: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut left: Vec<&str> = uses[from].iter().map(String::as_str).collect();
    while let Some(one) = left.pop() {
        if reached.insert(one) {
            left.extend(uses[one].iter().map(String::as_str));
        }
    }
    reached
}

#[test]
fn files_form_no_circle() {
    let uses = uses();
    let count: usize = uses.values().map(BTreeSet::len).sum();
    assert!(count > 700, "the search found only {count} uses");
    let in_circle = uses.keys().filter(|one| reached(&uses, one).contains(one.as_str()));
    let in_circle: Vec<&String> = in_circle.collect();
    assert_eq!(in_circle, [""; 0], "each of these leads to itself");
}
