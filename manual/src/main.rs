//! Writes evertoken's manual pages and shell completions from the definition of its command line.
//!
//! `manual FOLDER` makes `FOLDER/man1`, `FOLDER/man5` and `FOLDER/completions`.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap_mangen::Man;
use evertoken::testing::command_line;
use roff::{Roff, bold, roman};

mod completions;
mod examples;

use examples::EXAMPLES;

/// Every key of the configuration with its unit and default.
const EXAMPLE: &str = include_str!("../../providers.yaml.example");

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        return fail("usage: manual FOLDER");
    };
    match write_all(Path::new(&folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("{}: {error}", folder.display())),
    }
}

fn fail(why: &str) -> ExitCode {
    // If this fails too, nobody is left to tell.
    let _ = writeln!(io::stderr(), "{why}");
    ExitCode::FAILURE
}

fn write_all(folder: &Path) -> io::Result<()> {
    let [commands, files, completions] =
        ["man1", "man5", "completions"].map(|name| folder.join(name));
    for folder in [&commands, &files, &completions] {
        fs::create_dir_all(folder)?;
    }
    let mut definition = command_line();
    for (shell, name) in completions::SHELLS {
        fs::write(completions.join(name), completions::of(shell))?;
    }
    definition.build();
    for command in definition.get_subcommands().filter(|command| !command.is_hide_set()) {
        let page = Page::of(command.clone());
        fs::write(commands.join(page.man.get_filename()), page.of_subcommand()?)?;
    }
    let page = Page::of(definition);
    fs::write(commands.join(page.man.get_filename()), page.of_command()?)?;
    fs::write(files.join("providers.yaml.5"), configuration()?)
}

/// The manual page of one command.
struct Page {
    man: Man,
    name: String,
    after_help: String,
    has_options: bool,
}

impl Page {
    fn of(command: clap::Command) -> Self {
        let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
        let after_help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let has_options = command.get_arguments().next().is_some();
        let man = Man::new(command).manual("evertoken").title(name.to_uppercase());
        Self { man, name, after_help, has_options }
    }

    fn start(&self, out: &mut Vec<u8>) -> io::Result<()> {
        self.man.render_title(out)?;
        self.man.render_name_section(out)?;
        self.man.render_synopsis_section(out)?;
        self.man.render_description_section(out)?;
        if self.has_options {
            self.man.render_options_section(out)?;
        }
        Ok(())
    }

    fn of_subcommand(&self) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        self.start(&mut out)?;
        let mut more = Roff::new();
        if !self.after_help.is_empty() {
            more.control("SH", ["NOTES"]).text([roman(self.after_help.as_str())]);
        }
        self.examples(&mut more);
        see_also(&mut more, &["evertoken(1)", "providers.yaml(5)"]);
        more.to_writer(&mut out)?;
        Ok(out)
    }

    fn examples(&self, page: &mut Roff) {
        let name = self.name.strip_prefix("evertoken-").unwrap_or(&self.name);
        let Some((_, examples)) = EXAMPLES.iter().find(|(own, _)| *own == name) else { return };
        page.control("SH", ["EXAMPLES"]);
        for (line, what) in *examples {
            page.control("TP", []).text([bold(*line)]).text([roman(*what)]);
        }
    }

    fn of_command(&self) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        self.start(&mut out)?;
        self.man.render_subcommands_section(&mut out)?;
        let mut more = Roff::new();
        more.control("SH", ["EXIT STATUS"]).text([roman(self.after_help.as_str())]);
        more.control("SH", ["ENVIRONMENT"]);
        for (name, what) in ENVIRONMENT {
            more.control("TP", []).text([bold(*name)]).text([roman(*what)]);
        }
        more.control("SH", ["FILES"]);
        for (name, what) in FILES {
            more.control("TP", []).text([bold(*name)]).text([roman(*what)]);
        }
        self.examples(&mut more);
        let definition = command_line();
        let names = definition.get_subcommands().map(clap::Command::get_name);
        let mut pages: Vec<String> = names.map(|one| format!("{}-{one}(1)", self.name)).collect();
        pages.push("providers.yaml(5)".to_owned());
        see_also(&mut more, &pages.iter().map(String::as_str).collect::<Vec<_>>());
        more.to_writer(&mut out)?;
        Ok(out)
    }
}

const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "RUST_LOG",
        "The log filter, such as debug or evertoken::token=trace; overrides settings.log_level and --quiet.",
    ),
    (
        "STATE_DIRECTORY",
        "The folder for tokens, unless settings.state_dir names one; systemd sets it.",
    ),
    (
        "NOTIFY_SOCKET, WATCHDOG_USEC, JOURNAL_STREAM",
        "Set by systemd, see sd_notify(3) and systemd.exec(5).",
    ),
    ("others", "The variables that the *_env keys of providers.yaml(5) name."),
];

const FILES: &[(&str, &str)] = &[
    (
        "providers.yaml",
        "The configuration, unless --config names another file; see providers.yaml(5).",
    ),
    (
        "/var/lib/evertoken",
        "Root's folder for tokens, unless settings.state_dir or $STATE_DIRECTORY names one.",
    ),
    (
        "~/.local/state/evertoken",
        "The same for other users; $XDG_STATE_HOME/evertoken if that variable is set.",
    ),
];

fn see_also(page: &mut Roff, names: &[&str]) {
    page.control("SH", ["SEE ALSO"]).text([roman(names.join(", "))]);
}

/// providers.yaml(5): the example, which names every key.
fn configuration() -> io::Result<Vec<u8>> {
    let mut page = Roff::new();
    page.control("TH", ["PROVIDERS.YAML", "5", "", "", "evertoken"]);
    page.control("SH", ["NAME"]).text([roman("providers.yaml - the configuration of evertoken")]);
    page.control("SH", ["DESCRIPTION"]).text([roman(
        "The file names the providers, says how to refresh their tokens, and sets how evertoken listens. Unknown keys \
         are errors, and evertoken check prints every problem with its place in the file. Below is every key with \
         its unit and default.",
    )]);
    page.control("SH", ["KEYS"]).control("nf", []);
    for line in EXAMPLE.lines() {
        page.text([roman(line)]);
    }
    page.control("fi", []);
    see_also(&mut page, &["evertoken(1)", "evertoken-check(1)"]);
    let mut out = Vec::new();
    page.to_writer(&mut out)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> (tempfile::TempDir, impl Fn(&str) -> String) {
        let folder = tempfile::tempdir().unwrap();
        write_all(folder.path()).unwrap();
        let path = folder.path().to_owned();
        (folder, move |name| fs::read_to_string(path.join(name)).unwrap().replace("\\-", "-"))
    }

    #[test]
    fn every_command_and_option_is_in_the_pages_and_the_completions() {
        let (_folder, read) = written();
        let main = read("man1/evertoken.1");
        let completions = ["evertoken.bash", "_evertoken", "evertoken.fish"]
            .map(|name| read(&format!("completions/{name}")));
        let mut count = 0;
        for command in command_line().get_subcommands() {
            let name = command.get_name();
            let page = read(&format!("man1/evertoken-{name}.1"));
            assert!(main.contains(&format!("evertoken-{name}(1)")), "{name}");
            assert!(completions.iter().all(|one| one.contains(name)), "{name}");
            assert!(page.contains("EXAMPLES"), "{page}");
            let shown = command.get_arguments().filter(|argument| !argument.is_hide_set());
            for option in shown.filter_map(clap::Arg::get_long) {
                assert!(page.contains(&format!("--{option}")), "{option} of {name}: {page}");
                let [bash, zsh, fish] = &completions;
                assert!(bash.contains(&format!("--{option}")), "{option} of {name}");
                assert!(zsh.contains(&format!("--{option}")), "{option} of {name}");
                assert!(fish.contains(&format!("-l {option}")), "{option} of {name}");
                count += 1;
            }
        }
        assert!(count > 5);
        for part in
            ["EXIT STATUS", "78 the configuration is wrong", "RUST_LOG", "providers.yaml(5)"]
        {
            assert!(main.contains(part), "{part} in {main}");
        }
        assert!(read("man1/evertoken-run.1").contains("SIGHUP"));
    }

    #[test]
    fn providers_are_completed_by_what_the_configuration_names() {
        let (_folder, read) = written();
        let definition = command_line();
        let has_provider = |command: &&clap::Command| {
            command.get_arguments().any(|argument| argument.get_id() == "provider")
        };
        let commands = definition.get_subcommands().filter(has_provider).count();
        assert!(commands > 1);
        // The option has a short form too.
        for (name, call, times) in [
            ("evertoken.bash", "\"$(_evertoken_providers)\" -- \"${cur}\"", 2 * commands),
            ("_evertoken", ":NAME:_evertoken_providers", 2 * commands),
            ("evertoken.fish", "-f -a '(__evertoken_providers)'", commands),
        ] {
            let text = read(&format!("completions/{name}"));
            assert_eq!(text.matches(call).count(), times, "{name}: {text}");
            assert_eq!(text.matches("--names").count(), 1, "it is called and not offered: {text}");
            assert!(!text.contains("-l names"), "{name}");
        }
    }

    #[test]
    fn the_page_of_the_configuration_holds_the_example() {
        let (_folder, read) = written();
        let page = read("man5/providers.yaml.5");
        for key in ["selection_strategy", "auto_refresh_config", "credentials_file"] {
            assert!(page.contains(key), "{key}");
        }
    }
}
