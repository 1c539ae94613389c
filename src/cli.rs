//! The command line as a value: which command, with which options, or what to say instead.

use std::path::PathBuf;

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Run the proxy.
    Run {
        /// The configuration file.
        config: PathBuf,
        /// `HOST:PORT` in the place of the configured one.
        listen: Option<(String, u16)>,
    },
    /// Validate the configuration, the environment and the state folder.
    Check {
        /// The configuration file.
        config: PathBuf,
        /// Also connect to every endpoint.
        online: bool,
    },
    /// Refresh now, without the server.
    Refresh {
        /// The configuration file.
        config: PathBuf,
        /// The name or slug of one provider; None for all.
        provider: Option<String>,
    },
    /// Print this text.
    Print(String),
}

const HELP: &str = "\
evertoken - a small forwarding proxy that always has a valid token

Usage: evertoken [run] [--config FILE] [--listen HOST:PORT]
       evertoken check [--config FILE] [--online]
       evertoken refresh [--config FILE] [--provider NAME]

Commands:
  run       run the proxy in the foreground (what happens without a command too)
  check     validate the file, the environment and the state folder
  refresh   refresh now, without the server, and store the result

Options:
  -c, --config FILE    the configuration [default: ./providers.yaml]
  -h, --help           print help, for a command where one is given
  -V, --version        print the version

Exit codes: 0 done, 1 failed at run time, 2 usage, 69 the address can't be bound,
78 the configuration is wrong.
";

const RUN_HELP: &str = "\
Runs the proxy in the foreground.

Usage: evertoken [run] [--config FILE] [--listen HOST:PORT]

Options:
  -c, --config FILE         the configuration [default: ./providers.yaml]
  -l, --listen HOST:PORT    listen there instead of settings.host and settings.port
  -h, --help                print this

SIGTERM and SIGINT finish what is in flight and end; a second one ends at once.
SIGHUP reads the configuration again. SIGUSR1 refreshes every provider now.
";

const CHECK_HELP: &str = "\
Validates the file, the environment and the state folder, and prints every problem.

Usage: evertoken check [--config FILE] [--online]

Options:
  -c, --config FILE    the configuration [default: ./providers.yaml]
      --online         also connect to every endpoint and compare clocks; spends no token
  -h, --help           print this
";

const REFRESH_HELP: &str = "\
Refreshes now, without the server, and stores the result in the state folder.

Usage: evertoken refresh [--config FILE] [--provider NAME]

Options:
  -c, --config FILE      the configuration [default: ./providers.yaml]
  -p, --provider NAME    this provider alone, by name or slug
  -h, --help             print this
";

/// Reads the arguments, the program's own name left out. The error says what is wrong with them.
pub fn parse(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Command, String> {
    Options::read(arguments).map_err(|error| error.to_string())?.into_command()
}

#[derive(Default)]
struct Options {
    command: Option<String>,
    config: Option<PathBuf>,
    listen: Option<String>,
    provider: Option<String>,
    online: bool,
    help: bool,
    version: bool,
}

impl Options {
    fn read(
        arguments: impl IntoIterator<Item = std::ffi::OsString>,
    ) -> Result<Self, lexopt::Error> {
        use lexopt::prelude::{Long, Short, Value, ValueExt};
        let mut options = Self::default();
        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser.next()? {
            match argument {
                Short('h') | Long("help") => options.help = true,
                Short('V') | Long("version") => options.version = true,
                Short('c') | Long("config") => options.config = Some(parser.value()?.into()),
                Short('l') | Long("listen") => options.listen = Some(parser.value()?.string()?),
                Short('p') | Long("provider") => options.provider = Some(parser.value()?.string()?),
                Long("online") => options.online = true,
                Value(word) if options.command.is_none() => options.command = Some(word.string()?),
                other => return Err(other.unexpected()),
            }
        }
        Ok(options)
    }

    fn into_command(self) -> Result<Command, String> {
        if self.version {
            return Ok(Command::Print(format!("evertoken {}\n", env!("CARGO_PKG_VERSION"))));
        }
        let command = self.command.as_deref().unwrap_or("run");
        let help = match command {
            "run" if self.command.is_none() => HELP,
            "run" => RUN_HELP,
            "check" => CHECK_HELP,
            "refresh" => REFRESH_HELP,
            other => return Err(format!("there is no command '{other}': run, check or refresh")),
        };
        if self.help {
            return Ok(Command::Print(help.to_owned()));
        }
        self.refuse_foreign(command)?;
        let config = self.config.unwrap_or_else(|| PathBuf::from("providers.yaml"));
        Ok(match command {
            "check" => Command::Check { config, online: self.online },
            "refresh" => Command::Refresh { config, provider: self.provider },
            _ => Command::Run { config, listen: self.listen.as_deref().map(listen).transpose()? },
        })
    }

    /// An option of another command is a mistake, not something to be ignored.
    fn refuse_foreign(&self, command: &str) -> Result<(), String> {
        let given = [
            ("--listen", self.listen.is_some(), "run"),
            ("--online", self.online, "check"),
            ("--provider", self.provider.is_some(), "refresh"),
        ];
        match given.into_iter().find(|(_, given, owner)| *given && *owner != command) {
            Some((option, _, owner)) => Err(format!("{option} belongs to 'evertoken {owner}'")),
            None => Ok(()),
        }
    }
}

/// `HOST:PORT`, an IPv6 address in brackets.
fn listen(text: &str) -> Result<(String, u16), String> {
    let wrong = || format!("--listen wants HOST:PORT, such as 127.0.0.1:8080, not '{text}'");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().map_err(|_| wrong())?;
    if host.is_empty() {
        return Err(wrong());
    }
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(Into::into))
    }

    #[test]
    fn command_lines() {
        let run = |config: &str, listen: Option<(&str, u16)>| Command::Run {
            config: config.into(),
            listen: listen.map(|(host, port)| (host.into(), port)),
        };
        let cases = [
            ("", run("providers.yaml", None)),
            ("run", run("providers.yaml", None)),
            ("--config a.yaml", run("a.yaml", None)),
            ("run -c a.yaml --listen=[::1]:0", run("a.yaml", Some(("::1", 0)))),
            ("--listen localhost:80", run("providers.yaml", Some(("localhost", 80)))),
            ("check --online", Command::Check { config: "providers.yaml".into(), online: true }),
            (
                "refresh --provider P -c x",
                Command::Refresh { config: "x".into(), provider: Some("P".into()) },
            ),
        ];
        for (line, expected) in cases {
            assert_eq!(parsed(line), Ok(expected), "{line}");
        }
    }

    #[test]
    fn help_and_version_on_every_level() {
        for (line, start) in [
            ("--help", "evertoken - "),
            ("-h", "evertoken - "),
            ("run --help", "Runs the proxy"),
            ("check --help", "Validates"),
            ("refresh -h", "Refreshes now"),
            ("check --version", "evertoken 0."),
            ("-V", "evertoken 0."),
        ] {
            let Ok(Command::Print(text)) = parsed(line) else { panic!("{line}") };
            assert!(text.starts_with(start), "{line}: {text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (line, part) in [
            ("serve", "no command 'serve'"),
            ("run now", "now"),
            ("--tokn x", "--tokn"),
            ("check --listen 127.0.0.1:1", "--listen belongs to 'evertoken run'"),
            ("run --online", "--online belongs to"),
            ("--provider x", "--provider belongs to"),
            ("--listen 8080", "HOST:PORT"),
            ("--listen :8080", "HOST:PORT"),
            ("--listen a:99999", "HOST:PORT"),
            ("--config", "--config"),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
