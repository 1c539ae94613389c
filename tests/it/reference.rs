//! docs/reference.md and the JSON of docs/status.md, compared with the program: what there is has its row, and no row is of
//! something that there is not.

use std::collections::BTreeSet;
use std::process::Command;

use crate::support::binary::text;

const PAGE: &str = include_str!("../../docs/reference.md");

/// The part of the page below this heading, up to the next one.
fn part(heading: &str) -> &'static str {
    part_of(PAGE, heading)
}

fn part_of<'a>(page: &'a str, heading: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("\n{heading}\n")).unwrap();
    rest.split("\n#").next().unwrap()
}

/// The texts in backquotes in the column with that number in the tables of `part`, without their headings.
fn column(part: &str, number: usize) -> BTreeSet<String> {
    let rows = part.lines().filter_map(|line| line.strip_prefix("| "));
    let cells = rows.filter_map(|row| row.split(" | ").nth(number).map(str::to_owned));
    cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

/// The texts between `before` and a quotation mark.
fn quoted<'a>(source: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    source.split(before).skip(1).map(|rest| rest.split('"').next().unwrap())
}

fn set<T: Into<String>>(all: impl IntoIterator<Item = T>) -> BTreeSet<String> {
    let all: BTreeSet<String> = all.into_iter().map(Into::into).collect();
    assert!(all.len() > 3, "the search found only {all:?}");
    all
}

/// The keys that providers.yaml.example shows below the line `section:`, at so many blanks, commented out or not.
fn keys_of_example(section: &str, indent: usize) -> BTreeSet<String> {
    let example = include_str!("../../providers.yaml.example").lines();
    let plain = example.map(|line| match line.split_once('#') {
        Some((indent, rest)) if indent.trim().is_empty() => {
            format!("{indent}{}", rest.strip_prefix(' ').unwrap_or(rest))
        }
        _ => line.replacen("- ", "  ", 1),
    });
    let lines: Vec<String> = plain.collect();
    let depth = |line: &str| line.len() - line.trim_start().len();
    let is_begin = |line: &String| line.trim_start().starts_with(&format!("{section}:"));
    let begin = lines.iter().position(is_begin).unwrap();
    let own = lines[begin + 1..]
        .iter()
        .take_while(|line| line.trim().is_empty() || depth(line) >= indent);
    let keys = own.filter(|line| depth(line) == indent).filter_map(|line| {
        let (key, rest) = line.trim_start().split_once(':')?;
        let is_name = key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let is_key = is_name && !key.is_empty() && !rest.starts_with("//");
        is_key.then(|| key.to_owned())
    });
    keys.collect()
}

#[test]
fn every_key_has_its_row() {
    let named = |heading: &str| {
        let written = column(part(heading), 0);
        written.into_iter().filter(|key| !key.contains('"')).collect::<BTreeSet<_>>()
    };
    let mut settings = keys_of_example("settings", 2);
    assert!(settings.remove("timeouts") && settings.remove("auth"));
    settings
        .extend(keys_of_example("timeouts", 4).into_iter().map(|key| format!("timeouts.{key}")));
    settings.extend(keys_of_example("auth", 4).into_iter().map(|key| format!("auth.{key}")));
    for key in ["token_store_password_file", "token_store_key_file"] {
        assert!(settings.insert(key.to_owned()), "{key} is told in a comment");
    }
    assert_eq!(named("### settings"), set(settings));
    let mut provider = keys_of_example("providers", 4);
    assert!(provider.remove("auto_refresh_config"));
    provider.insert("name".to_owned());
    assert_eq!(named("### providers"), set(provider));
    assert_eq!(named("### auto_refresh_config"), set(keys_of_example("auto_refresh_config", 6)));
}

#[test]
fn every_code_metric_and_page_has_its_row() {
    let refusals = include_str!("../../src/http/refusal.rs");
    let codes = refusals.split("fn as_str").nth(1).unwrap().split("fn error_type").next().unwrap();
    let answers = part("## Answers of evertoken's own");
    assert_eq!(column(answers, 1), set(quoted(codes, "=> \"")));
    let metrics = [
        include_str!("../../src/proxy/metrics.rs"),
        include_str!("../../src/proxy/metrics/listeners.rs"),
        include_str!("../../src/proxy/metrics/providers.rs"),
    ];
    let metrics = metrics.concat();
    let metrics = quoted(&metrics, "\"evertoken_").map(|rest| format!("evertoken_{rest}"));
    assert_eq!(column(part("## Metrics"), 0), set(metrics));
    let pages = include_str!("../../src/proxy/pages.rs");
    let (_, told) = pages.split_once("There are ").unwrap();
    let told = told.split("\";").next().unwrap().replace('\\', " ");
    let told = told.replace("<provider>", "<slug>").replace(" and ", " ");
    let paths = column(part("## Paths"), 0).into_iter().filter(|path| path.starts_with("/-/"));
    assert_eq!(
        paths.collect::<BTreeSet<_>>(),
        set(told.split([' ', ',', '\n']).filter(|word| word.starts_with('/')))
    );
}

/// The failure of a reload, the obstacle that a refresher waited for, and one kind of trouble were in the JSON and
/// not on the page.
#[test]
fn every_key_of_the_status_and_every_trouble_is_on_its_page() {
    let page = part_of(include_str!("../../docs/status.md"), "## The JSON");
    let words = page.split('`').skip(1).step_by(2);
    let words: BTreeSet<_> = words.flat_map(|word| word.split(['.', '…', '[', ']'])).collect();
    let report = include_str!("../../src/report.rs").split("impl State").next().unwrap();
    let history = include_str!("../../src/token/history.rs");
    let (status, rest) = history.split_once("pub enum Trouble").unwrap();
    // Fields under another name, or not in the JSON.
    let others = ["kind", "is_permanent"];
    let fields = report.lines().chain(status.lines()).filter_map(|line| {
        let (name, _) = line.strip_prefix("    pub ")?.split_once(':')?;
        (!name.starts_with("const ") && !name.starts_with("fn ")).then(|| name.to_owned())
    });
    let mut all = set(fields.filter(|name| !others.contains(&name.as_str())));
    let kinds = rest.split("\n}").next().unwrap().lines().filter(|line| line.ends_with(','));
    all.extend(set(kinds.map(|line| in_snake_case(line.trim().trim_end_matches(',')))));
    let missing: Vec<_> = all.iter().filter(|name| !words.contains(name.as_str())).collect();
    assert_eq!(missing, [""; 0]);
}

/// `no_answer` for `NoAnswer`.
fn in_snake_case(name: &str) -> String {
    let mut out = String::new();
    for character in name.chars() {
        if character.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(character.to_ascii_lowercase());
    }
    out
}

#[test]
fn every_command_and_option_has_its_row() {
    let help = |arguments: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_evertoken")).args(arguments).output().unwrap();
        text(&output.stdout)
    };
    let listed = help(&["--help"]);
    let listed = listed.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let commands = listed.lines().map(|line| line.split_whitespace().next().unwrap().to_owned());
    let commands = set(commands);
    let written = column(part("## Commands"), 0);
    let written = written.iter().filter_map(|call| call.strip_prefix("evertoken "));
    assert_eq!(set(written), commands);
    for row in part("## Commands").lines().filter(|row| row.starts_with("| `evertoken")) {
        let name = row.rsplit_once("`evertoken ").unwrap().1.split('`').next().unwrap();
        let help = help(&[name, "--help"]);
        let options = help.split_whitespace().filter(|word| word.starts_with("--"));
        let options = options.map(|word| word.trim_end_matches([',', '.', ';']).to_owned());
        let mut options: BTreeSet<String> = options.collect();
        // "--" only ends the options.
        options.retain(|option| !["--help", "--version", "--"].contains(&&**option));
        let told = row.split('`').filter(|part| part.starts_with("--")).map(str::to_owned);
        assert_eq!(told.collect::<BTreeSet<_>>(), options, "{name}");
    }
}
