//! The rules of the house: who knows which library, where the clock is asked, how files begin.

use std::path::{Path, PathBuf};

use evertoken::testing::RELEASED_AT;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn gather(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            gather(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            found.push((name, std::fs::read_to_string(path).unwrap()));
        }
    }
}

/// All source files below these folders: name and text.
fn files(folders: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for folder in folders {
        gather(&root().join(folder), &mut found);
    }
    assert!(found.len() > 20 || folders.len() == 1, "the search found only {} files", found.len());
    found
}

/// The part before the unit tests, without comments.
pub(crate) fn code(text: &str) -> String {
    let code = ["mod tests {", "pub(crate) mod tests {"].iter().fold(text, |code, tests| {
        code.split(&format!("#[cfg(test)]\n{tests}")).next().unwrap_or_default()
    });
    let kept = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    kept.collect::<Vec<_>>().join("\n")
}

/// The files of the program itself, without its tests.
pub(crate) fn program() -> Vec<(String, String)> {
    let mut all = files(&["src"]);
    all.retain(|(name, _)| !name.ends_with("/tests.rs"));
    all
}

/// The files of the program that hold `needle`.
fn holding(needle: &str) -> Vec<String> {
    let all = program();
    let found = all.into_iter().filter(|(_, text)| code(text).contains(needle));
    let mut names: Vec<_> = found.map(|(name, _)| name).collect();
    names.sort();
    names
}

#[test]
fn each_library_is_known_in_one_place() {
    assert!(holding("serde_yaml").iter().all(|name| name.starts_with("src/config/raw")));
    assert!(!holding("serde_yaml").is_empty());
    assert_eq!(holding("tiny_http::"), ["src/ingress/tiny.rs", "src/login/loopback.rs"]);
    assert_eq!(holding("redis::"), ["src/shared/engine/client.rs"]);
    assert_eq!(holding("ring::aead"), ["src/shared/seal.rs"]);
    assert_eq!(holding("ring::signature"), ["src/signing/key.rs"]);
    assert_eq!(holding("miniz_oxide"), ["src/http/inflate.rs", "src/http/inflate/passing.rs"]);
    assert_eq!(holding("use tz::"), ["src/expiry.rs"]);
    assert_eq!(holding("ruzstd"), ["src/http/inflate/zstd.rs"]);
    assert_eq!(holding("dns_lookup::"), ["src/upstream/resolver/system.rs"]);
    assert_eq!(
        holding("clap::"),
        [
            "src/cli.rs", "src/cli/check.rs", "src/cli/keys.rs", "src/cli/login.rs",
            "src/cli/tools.rs", "src/cli/usage.rs"
        ]
    );
    assert_eq!(holding("sd_listen_fds::"), ["src/ingress/handed.rs"]);
    assert_eq!(holding("sd_notify::"), ["src/supervisor.rs"]);
    assert_eq!(holding("env_logger::"), ["src/logger.rs"]);
    assert_eq!(holding("portable_atomic"), ["src/atomic.rs"]);
    assert!(holding("ureq::").iter().all(|name| name.starts_with("src/upstream")));
    assert!(!holding("ureq::").is_empty());
    // Its recursion is bounded there; elsewhere it reads texts and numbers, or has a large stack of its own.
    assert_eq!(
        holding("serde_json::from_s"),
        [
            "src/config/raw/tree.rs",
            "src/json.rs",
            "src/proxy/model.rs",
            "src/proxy/models/list.rs",
            "src/proxy/skim.rs",
            "src/token/grant/tolerant.rs"
        ]
    );
    let rooms = ["src/upstream/", "src/tls/", "src/ingress/tls/"];
    let is_theirs = |name: &String| rooms.iter().any(|room| name.starts_with(room));
    assert!(holding("rustls::").iter().all(is_theirs));
}

/// There would be no program for 32-bit MIPS, whose processors have none.
#[test]
fn atomics_of_64_bits_come_from_one_place() {
    for (name, text) in files(&["src"]) {
        let names = text.split("std::sync::atomic::").skip(1);
        let found =
            names.filter_map(|rest| rest.split(';').next()).find(|names| names.contains("64"));
        assert!(found.is_none() || name == "src/atomic.rs", "{name}: {found:?}");
    }
}

#[test]
fn the_clock_is_asked_in_one_place() {
    for call in ["Instant::now", "SystemTime::now", ".elapsed()"] {
        let found = holding(call);
        let expected =
            if call == ".elapsed()" { None } else { Some(vec!["src/clock.rs".to_owned()]) };
        assert!(expected.is_none_or(|expected| expected == found), "{call}: {found:?}");
    }
    assert_eq!(holding("thread::sleep"), [""; 0]);
    assert_eq!(holding("process::exit"), [""; 0]);
    assert_eq!(holding("env::var"), ["src/commands/common.rs"]);
    // Other systems have no such files.
    assert_eq!(holding("\"/proc"), ["src/platform/linux.rs"]);
}

#[test]
fn secrets_are_exposed_where_they_must_be_and_nowhere_else() {
    let expected = [
        "src/commands/exec.rs",
        "src/commands/key.rs",
        "src/commands/token_format.rs",
        "src/config/assertion.rs",
        "src/config/endpoint_request.rs",
        "src/config/key_file.rs",
        "src/config/resolve/auth.rs",
        "src/config/resolve/auto_refresh.rs",
        "src/config/resolve/provider.rs",
        "src/config/resolve/request_fields.rs",
        "src/config/resolve/token_store.rs",
        "src/config/token_command.rs",
        "src/credential/access_token.rs",
        "src/credential/claims.rs",
        "src/login/authorization.rs",
        "src/login/device.rs",
        "src/proxy/access.rs",
        "src/proxy/headers.rs",
        "src/record/saved.rs",
        "src/shared/chain.rs",
        "src/shared/engine.rs",
        "src/shared/engine/client.rs",
        "src/shared/seal.rs",
        "src/status.rs",
        "src/tls/certificate.rs",
        "src/token/assertion.rs",
        "src/token/command.rs",
        "src/token/command/program.rs",
        "src/token/grant/request.rs",
        "src/token/lifecycle/policy.rs",
        "src/token/reread.rs",
        "src/token/state_file/whole.rs",
        "src/token/state_file/write.rs",
        "src/token/watched/content.rs",
        "src/upstream/connect.rs",
        "src/upstream/identity.rs",
        "src/upstream/post.rs",
        "src/upstream/tunnel.rs",
    ];
    let mut found = [holding("expose()"), holding("Secret::expose)")].concat();
    found.sort();
    found.dedup();
    assert_eq!(found, expected);
}

#[test]
fn each_log_line_of_a_refresher_has_its_provider_as_a_field() {
    let mut count = 0;
    for (name, text) in files(&["src/token/refresher"]) {
        let text = code(&text);
        for call in ["info!(", "warn!(", "error!(", "log!("] {
            for after in text.split(call).skip(1) {
                let fields = after.split('"').next().unwrap_or_default();
                assert!(fields.contains("provider = "), "{name}: {call}{after:.80}");
                assert!(name.ends_with("/desk.rs"), "{name}: the desk writes the log");
                count += 1;
            }
        }
    }
    assert_eq!(count, 1, "the desk has one line that all go through");
}

#[test]
fn every_file_begins_with_what_it_is_for() {
    for (name, text) in files(&["src", "tests", "sandbox"]) {
        if name.contains("target/") {
            continue;
        }
        assert!(text.starts_with("//! "), "{name}");
        assert!(text.lines().next().is_some_and(|line| line.len() > 20), "{name}");
    }
}

/// The rooms of the library, the highest first: each may use those below it alone. `testing` is the door to them.
const LAYERS: [&str; 44] = [
    "commands", "cli", "check", "login", "status", "reload", "app", "current", "assemble", "proxy",
    "credential", "report", "usage", "quota", "upstream", "ingress", "supervisor", "tls", "token",
    "shared", "record", "http", "config", "jwt", "signing", "expiry", "bound", "logger",
    "liveness", "listener_owner", "peer", "environment_file", "regular_file", "bookkeeper",
    "thread", "shortage", "platform", "spare", "json", "secret", "visible", "clock", "swar",
    "atomic",
];

/// The room of a file below `src`: `token` for `src/token/grant.rs`.
fn room(name: &str) -> &str {
    let name = name.trim_start_matches("src/").trim_end_matches(".rs");
    name.split('/').next().unwrap()
}

/// The rooms that a text uses by `crate::`.
fn used_rooms(text: &str) -> impl Iterator<Item = &str> {
    let is_name = |character: char| character.is_alphanumeric() || character == '_';
    text.split("crate::")
        .skip(1)
        .map(move |rest| rest.split(|character| !is_name(character)).next().unwrap())
}

#[test]
fn rooms_use_only_those_below_them() {
    let height = |room: &str| LAYERS.iter().rev().position(|layer| *layer == room);
    let (mut uses, mut upward) = (0, Vec::new());
    for (name, text) in program() {
        let own = room(&name);
        if ["main", "lib", "testing"].contains(&own) {
            continue;
        }
        let Some(height_of_own) = height(own) else { panic!("{name}: {own} is in no layer") };
        for used in used_rooms(&code(&text)) {
            let below = height(used).is_some_and(|height| height < height_of_own);
            if used != own && !below {
                upward.push(format!("{name} uses {used}, which is not below {own}"));
            }
            uses += 1;
        }
    }
    assert_eq!(upward, [""; 0]);
    assert!(uses > 500, "the search found only {uses} uses");
}

#[test]
fn nothing_is_left_for_later() {
    for (name, text) in files(&["src", "tests", "sandbox"]) {
        for word in ["TODO", "FIXME", "XXX", "unimplemented!", "todo!"] {
            let own = name.ends_with("tidy.rs");
            assert!(own || !text.contains(word), "{word} in {name}");
        }
        assert!(!name.ends_with("/mod.rs"), "{name}: foo.rs and foo/, not mod.rs");
        assert!(name.ends_with("tidy.rs") || !text.contains("#[ignore"), "{name}");
    }
}

#[test]
fn files_are_short() {
    const LINES_MAX: usize = 450;
    for (name, text) in files(&["src", "sandbox/src", "bench/src", "manual/src"]) {
        let lines = text.lines().count();
        assert!(name.ends_with("tests.rs") || lines <= LINES_MAX, "{name} has {lines} lines");
    }
}

#[test]
fn every_test_file_is_listed() {
    let main = std::fs::read_to_string(root().join("tests/it/main.rs")).unwrap();
    let mut count = 0;
    for entry in std::fs::read_dir(root().join("tests/it")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(module) = name.strip_suffix(".rs").filter(|module| *module != "main") {
            assert!(main.contains(&format!("mod {module};")), "{name}");
            count += 1;
        }
    }
    assert!(count > 5);
}

#[test]
fn every_dependency_is_explained() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let contributing = std::fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    let section = manifest.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    let mut count = 0;
    for line in section.lines().filter(|line| line.contains('=')) {
        let name = line.split([' ', '=']).next().unwrap();
        assert!(contributing.contains(&format!("`{name}`")), "{name} is not in CONTRIBUTING.md");
        count += 1;
    }
    assert!(count > 10);
}

#[test]
fn dashboard_and_alerts_parse_and_name_metrics_that_there_are() {
    let read = |name: &str| std::fs::read_to_string(root().join("contrib").join(name)).unwrap();
    let (dashboard, alerts) = (read("grafana-dashboard.json"), read("alerts.yaml"));
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut used: Vec<String> = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap())
        .map(|one| one["expr"].to_string())
        .collect();
    let alerts: serde_json::Value = serde_yaml::from_str(&alerts).unwrap();
    let rules = alerts["groups"][0]["rules"].as_array().unwrap();
    used.extend(rules.iter().map(|rule| rule["expr"].to_string()));
    let known = ["metrics.rs", "metrics/listeners.rs", "metrics/providers.rs"]
        .map(|name| std::fs::read_to_string(root().join("src/proxy").join(name)).unwrap())
        .concat();
    let mut count = 0;
    for expression in used {
        for part in expression.split("evertoken_").skip(1) {
            let end =
                part.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(part.len());
            let name = part[..end].trim_end_matches("_bucket");
            assert!(known.contains(&format!("\"evertoken_{name}\"")), "{name}");
            count += 1;
        }
    }
    assert!(count > 10, "{count}");
}

#[test]
fn the_example_of_variables_has_those_of_the_example_configuration() {
    let read = |name: &str| std::fs::read_to_string(root().join(name)).unwrap();
    let (example, variables) =
        (read("providers.yaml.example"), read("contrib/environment.example"));
    let mut count = 0;
    for line in example.lines() {
        let Some((_, value)) = line.split_once("_env: \"") else { continue };
        let name = value.split('"').next().unwrap();
        if name != "NAME" {
            assert!(variables.contains(&format!("\n# {name}=…\n")), "{name}");
            count += 1;
        }
    }
    assert!(count > 3, "{count}");
}

/// All files of the repository that are texts: name and content. Without what programs wrote: builds and inputs of fuzzers.
fn texts(folder: &Path, found: &mut Vec<(String, String)>) {
    const WRITTEN: [&str; 6] =
        ["target", "fuzz/target", "fuzz/corpus", "fuzz/artifacts", ".git", "fuzz/Cargo.lock"];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        if WRITTEN.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            texts(&path, found);
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            found.push((name, text));
        }
    }
}

#[test]
fn the_version_is_stated_in_one_place() {
    // The manifest of the workspace; what cargo writes; what was released when; what was measured.
    const PLACES: [&str; 4] = ["Cargo.toml", "Cargo.lock", "CHANGELOG.md", "docs/performance.md"];
    let version = env!("CARGO_PKG_VERSION");
    let mut all = Vec::new();
    texts(&root(), &mut all);
    assert!(all.len() > 500, "the search found only {} files", all.len());
    let forms =
        ["evertoken VERSION", "evertoken-VERSION", "vVERSION", "\"VERSION\"", "before VERSION"];
    let stated =
        |text: &String| forms.iter().any(|form| text.contains(&form.replace("VERSION", version)));
    let found: Vec<_> = all
        .iter()
        .filter(|(name, text)| !PLACES.contains(&name.as_str()) && stated(text))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(found, [""; 0]);
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    // A dependency may have the same one.
    let lines = manifest.lines().filter(|line| line.starts_with("version = "));
    assert_eq!(lines.collect::<Vec<_>>(), [format!("version = \"{version}\"")]);
    for member in ["bench", "manual", "sandbox"] {
        let manifest = std::fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap();
        assert!(manifest.contains("\nversion.workspace = true\n"), "{member}");
        assert!(manifest.contains("\npublish = false\n"), "{member}");
    }
}

#[test]
fn the_version_of_rust_is_the_same_everywhere() {
    let version = env!("CARGO_PKG_RUST_VERSION");
    for (name, form) in [
        ("rust-toolchain.toml", "channel = \"VERSION.0\""),
        ("Dockerfile", "FROM rust:VERSION-"),
        ("README.md", "Rust VERSION or later"),
        ("docs/installing.md", "Rust VERSION or later"),
    ] {
        let text = std::fs::read_to_string(root().join(name)).unwrap();
        assert!(text.contains(&form.replace("VERSION", version)), "{name}");
    }
}

/// A clock that shows an earlier time is taken for wrong, so a forgotten date would take a router's old clock for right.
#[test]
fn the_program_knows_the_day_of_its_release() {
    let released_at = RELEASED_AT.to_string();
    let (day, time) = released_at.split_once('T').unwrap();
    assert_eq!(time, "00:00:00.000Z");
    let changelog = std::fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    let release = format!("\n## [{}] - {day}\n", env!("CARGO_PKG_VERSION"));
    assert!(changelog.contains(&release), "CHANGELOG.md has no line '{}'", release.trim());
    let clock = std::fs::read_to_string(root().join("src/clock.rs")).unwrap();
    assert!(clock.contains(&format!("// {day}T00:00:00Z\n")), "the comment names another day");
}

/// The form of <https://keepachangelog.com/en/1.1.0/>; the newest release is the version in Cargo.toml.
#[test]
fn the_changelog_has_the_form_of_keepachangelog() {
    const SECTIONS: [&str; 6] = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"];
    let text = std::fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    let (mut releases, mut section, mut entries) = (Vec::new(), None, Vec::new());
    for line in text.lines() {
        if let Some(release) = line.strip_prefix("## ") {
            releases.push(release);
            section = None;
        } else if let Some(name) = line.strip_prefix("### ") {
            let place = SECTIONS.iter().position(|known| *known == name);
            assert!(place.is_some(), "'{line}' is none of {SECTIONS:?}");
            assert!(section < place, "'{line}' stands in the wrong order, or twice in one release");
            section = place;
        } else if line.starts_with("- ") {
            assert!(section.is_some(), "an entry outside a section (### Added, …): {line}");
            assert!(!entries.contains(&line), "an entry that is there twice: {line}");
            entries.push(line);
        }
    }
    assert!(entries.len() > 20);
    assert_eq!(releases[0], "[Unreleased]");
    let version = concat!("[", env!("CARGO_PKG_VERSION"), "] - ");
    assert!(releases[1].starts_with(version), "{} is not the release of {version}", releases[1]);
}
