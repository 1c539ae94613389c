//! `token_command` and `token_command_env`.

use std::path::{Path, PathBuf};

use crate::config::raw::Section;
use crate::config::resolve::sources::Sources;
use crate::config::token_command::TokenCommand;
use crate::secret::Secret;

/// The variables of evertoken's own environment that every command gets, besides `LC_…`.
const PASSED_ON: [&str; 5] = ["PATH", "HOME", "LANG", "LANGUAGE", "TZ"];
/// The categories of a locale (locale(7)).
const LOCALE_CATEGORIES: [&str; 13] = [
    "LC_ALL", "LC_ADDRESS", "LC_COLLATE", "LC_CTYPE", "LC_IDENTIFICATION", "LC_MEASUREMENT",
    "LC_MESSAGES", "LC_MONETARY", "LC_NAME", "LC_NUMERIC", "LC_PAPER", "LC_TELEPHONE", "LC_TIME",
];
/// The search path if evertoken has none.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Programs for whose arguments the characters of a shell are right.
const SHELLS: [&str; 6] = ["sh", "bash", "dash", "zsh", "ksh", "busybox"];
/// Words that only a shell understands.
const SHELL_WORDS: [&str; 8] = ["|", "||", "&&", "&", ";", ">", ">>", "<"];
/// Parts of the names of variables that hold secrets.
const SECRET_NAMES: [&str; 4] = ["TOKEN", "SECRET", "PASS", "KEY"];

/// Reads the command; None if there is none, or no usable one, which is reported.
pub(super) fn read(section: &Section<'_>, sources: &Sources<'_>) -> Option<TokenCommand> {
    if !section.has("token_command") {
        if section.has("token_command_env") {
            section.error("token_command_env", "this needs a 'token_command'");
        }
        return None;
    }
    let variables = read_variables(section, sources);
    let (program, arguments) = read_words(section, sources)?;
    Some(TokenCommand { program, arguments, variables, folder: PathBuf::from("/") })
}

/// The program and its arguments.
fn read_words(section: &Section<'_>, sources: &Sources<'_>) -> Option<(String, Vec<String>)> {
    const KEY: &str = "token_command";
    if !section.is_filled_list(KEY) {
        let message = "'token_command' must be a list, the program and each of its arguments, such as \
                       [gcloud, auth, print-access-token]: there is no shell that would split a text";
        section.error(KEY, message);
        return None;
    }
    let words = section.texts(KEY);
    let (program, arguments) = words.split_first()?;
    for (index, word) in words.iter().enumerate() {
        if word.contains('\0') {
            section.error_at(KEY, index, "a program's argument can't hold a NUL character");
        }
    }
    if program.is_empty() {
        section.error_at(KEY, 0, "the first element of 'token_command' must be a program");
    }
    warn_of_shell_words(section, program, arguments);
    Some((whole_program(program, sources), arguments.to_vec()))
}

/// The program, in which `~/` is the home folder.
fn whole_program(program: &str, sources: &Sources<'_>) -> String {
    let in_home = program.strip_prefix("~/").zip(sources.variable("HOME"));
    in_home.map_or_else(
        || program.to_owned(),
        |(rest, home)| Path::new(&home).join(rest).display().to_string(),
    )
}

fn warn_of_shell_words(section: &Section<'_>, program: &str, arguments: &[String]) {
    let name = Path::new(program).file_name().and_then(|name| name.to_str());
    if name.is_some_and(|name| SHELLS.contains(&name)) {
        return;
    }
    let is_for_shell = |word: &&String| {
        SHELL_WORDS.contains(&word.as_str())
            || ["~/", "$"].iter().any(|start| word.starts_with(start))
            || ["$(", "${"].iter().any(|part| word.contains(part))
    };
    if let Some(word) = arguments.iter().find(is_for_shell) {
        let message = format!(
            "there is no shell, so the program gets '{word}' as it is written; [sh, -c, \"…\"] runs a shell"
        );
        section.warn("token_command", message);
    }
}

/// The whole environment of the command: evertoken's search path, home and locale, and the configured variables.
fn read_variables(section: &Section<'_>, sources: &Sources<'_>) -> Vec<(String, Secret)> {
    const KEY: &str = "token_command_env";
    let inherited = PASSED_ON.iter().chain(&LOCALE_CATEGORIES);
    let own = |name: &&str| Some(((*name).to_owned(), (sources.environment)(name)?));
    let mut all: Vec<(String, String)> = inherited.filter_map(own).collect();
    if !all.iter().any(|(name, _)| name == "PATH") {
        all.push(("PATH".to_owned(), PATH_DEFAULT.to_owned()));
    }
    let mut is_exposed = false;
    for (name, written) in section.optional_text_map(KEY) {
        if name.is_empty() || name.contains(['=', '\0']) {
            section.error_in(KEY, &name, format!("'{name}' can't be the name of a variable"));
        }
        is_exposed |= written.is_some() && SECRET_NAMES.iter().any(|part| name.contains(part));
        let value = written.or_else(|| (sources.environment)(&name));
        let Some(value) = value else {
            let message = format!(
                "the variable '{name}' is not set where evertoken is started, so the command does not get it"
            );
            section.warn_in(KEY, &name, message);
            continue;
        };
        if value.contains('\0') {
            section.error_in(KEY, &name, format!("the value of '{name}' holds a NUL character"));
        }
        all.retain(|(own, _)| *own != name);
        all.push((name, value));
    }
    if is_exposed {
        sources.warn_if_exposed(section, KEY, "null, which passes evertoken's own variable on");
    }
    all.into_iter().map(|(name, value)| (name, Secret::new(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolve::resolve;
    use crate::config::resolve::tests::{document, fine, refresh, refused, sources, told};

    /// A provider whose `auto_refresh_config` has these lines.
    fn with(lines: &str) -> String {
        let lines: String = lines.lines().map(|line| format!("  {line}\n")).collect();
        document("", &format!("auto_refresh_config:\n{lines}"))
    }

    fn variables(command: &TokenCommand) -> Vec<(&str, &str)> {
        let all = command.variables.iter();
        all.map(|(name, value)| (name.as_str(), value.expose())).collect()
    }

    #[test]
    fn a_command_is_a_list_and_needs_no_issuer() {
        let config = fine(&with(
            "token_command: [gcloud, auth, print-access-token, 1, true]\nrefresh_before_expiry: 60\ntoken_fields: {access_token: a.b}",
        ));
        let refresh = refresh(&config);
        let command = refresh.command().unwrap();
        assert_eq!(command.program, "gcloud");
        assert_eq!(command.arguments, ["auth", "print-access-token", "1", "true"]);
        assert_eq!(command.folder, Path::new("/"));
        assert_eq!(variables(command), [("HOME", "/home/u"), ("PATH", PATH_DEFAULT)]);
        assert_eq!(refresh.refresh_before_expiry.as_secs(), 60);
        assert_eq!(refresh.retry_interval.as_secs(), 3600);
        assert_eq!(refresh.token_fields.path("access_token").as_deref(), Some("a.b"));
        let home = fine(&with("token_command: ['~/bin/tool', '-x']"));
        assert_eq!(
            super::super::tests::refresh(&home).command().unwrap().program,
            "/home/u/bin/tool"
        );
        let off = with("enabled: false\ntoken_command: [x]");
        assert!(resolve(&off, "f", &sources()).is_ok());
    }

    #[test]
    fn it_runs_in_the_folder_of_the_configuration() {
        let folder = |file: &str, working: Option<&Path>| {
            let sources = Sources { working_folder: working, ..sources() };
            let (config, _) = resolve(&with("token_command: [x]"), file, &sources).unwrap();
            refresh(&config).command().unwrap().folder.clone()
        };
        assert_eq!(folder("/etc/evertoken/providers.yaml", None), Path::new("/etc/evertoken"));
        assert_eq!(folder("conf/p.yaml", Some(Path::new("/srv"))), Path::new("/srv/conf"));
        assert_eq!(folder("p.yaml", Some(Path::new("/srv"))), Path::new("/srv"));
        assert_eq!(folder("p.yaml", None), Path::new("/"));
    }

    #[test]
    fn its_environment_is_home_path_locale_and_what_is_configured() {
        let environment = |name: &str| {
            let set = ["PATH", "HOME", "LANG", "LC_ALL", "LC_TIME", "TZ", "MINE", "SECRET"];
            set.contains(&name).then(|| format!("of-{name}"))
        };
        let sources = Sources { environment: &environment, ..sources() };
        let text = with(
            "token_command: [x]\ntoken_command_env: {A: b, N: 1, MINE: null, LANG: C, GONE: null}",
        );
        let (config, warnings) = resolve(&text, "f", &sources).unwrap();
        let expected = [
            ("PATH", "of-PATH"),
            ("HOME", "of-HOME"),
            ("TZ", "of-TZ"),
            ("LC_ALL", "of-LC_ALL"),
            ("LC_TIME", "of-LC_TIME"),
            ("A", "b"),
            ("N", "1"),
            ("MINE", "of-MINE"),
            ("LANG", "C"),
        ];
        assert_eq!(variables(refresh(&config).command().unwrap()), expected);
        let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            warnings,
            [
                "f:8:60: warning: the variable 'GONE' is not set where evertoken is started, so the command does not get it"
            ]
        );
        let readable = Sources { file_mode: Some(0o100_644), ..super::super::tests::sources() };
        let secret = with("token_command: [x]\ntoken_command_env: {GH_TOKEN: abc}");
        let (_, warnings) = resolve(&secret, "f", &readable).unwrap();
        assert!(warnings[0].to_string().contains("chmod 600 it, or use null"), "{warnings:?}");
    }

    #[test]
    fn mistakes_are_shown_at_their_places() {
        let cases = [
            (
                "token_command: gcloud auth print-access-token",
                "f:7:22: 'token_command' must be a list, the program and each of its arguments, such as [gcloud, auth, \
                 print-access-token]: there is no shell that would split a text",
            ),
            (
                "token_command: []",
                "f:7:22: 'token_command' must be a list, the program and each of its arguments, such as [gcloud, auth, \
                 print-access-token]: there is no shell that would split a text",
            ),
            (
                "token_command: ['']",
                "f:7:23: the first element of 'token_command' must be a program",
            ),
            ("token_command: [a, {b: c}]", "f:7:22: 'token_command' must be a list of texts"),
            ("token_command: [a, null]", "f:7:22: 'token_command' must be a list of texts"),
            (
                "token_command: [a, \"b\\0\"]",
                "f:7:26: a program's argument can't hold a NUL character",
            ),
            (
                "token_command: [a]\ngrant_type: client_credentials",
                "f:8:19: a 'token_command' takes the place of a 'grant_type'",
            ),
            (
                "token_command: [a]\ntoken_command_env: {'a=b': c}",
                "f:8:27: 'a=b' can't be the name of a variable",
            ),
            (
                "token_command: [a]\ntoken_comand_env: {a: b}",
                "f:8:7: unknown key 'token_comand_env' in auto_refresh_config, did you mean 'token_command_env'?",
            ),
        ];
        for (lines, message) in cases {
            refused(&with(lines), message);
        }
        let lone = told(&with(
            "token_url: https://i/t\nclient_id_env: ID\nrefresh_token_env: TOKEN\ntoken_command_env: {A: b}",
        ));
        assert_eq!(lone, ["f:10:26: this needs a 'token_command'"]);
        let unused = told(&with("token_command: [a]\ntoken_url: https://i/t\nscope: s"));
        assert_eq!(unused.len(), 2, "{unused:?}");
        assert!(unused[0].contains("'token_url' in auto_refresh_config is not used"), "{unused:?}");
    }

    #[test]
    fn what_only_a_shell_understands_is_a_warning() {
        for (words, is_odd) in [
            ("[tool, '~/key.json']", true),
            ("[tool, '$HOME/key.json']", true),
            ("[tool, 'x', '|', 'jq']", true),
            ("[tool, '--key=$(cat /k)']", true),
            ("[tool, 'a|b', 'it~', 'c$d']", false),
            ("[sh, -c, 'tool | jq -r \"$X\"']", false),
            ("[/bin/bash, -c, '$X', '>']", false),
        ] {
            let told = told(&with(&format!("token_command: {words}")));
            assert_eq!(told.len(), usize::from(is_odd), "{words}: {told:?}");
            assert!(told.iter().all(|one| one.contains("there is no shell")), "{told:?}");
        }
    }
}
