//! `evertoken status`: asks a running instance, and draws on the terminal.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::cli::Files;
use crate::config::Config;
use crate::config::call::USUAL_FILE;
use crate::config::resolve::Problem;
use crate::status::{self, Instance, Place, PortUnknown};
use crate::thread;
use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::commands::common::{
    BAD_CONFIG, Done, FAILED, SIGNAL_STACK_BYTES, USAGE, Variables, inspect, is_printed, say,
    say_all, say_out, tell, text_of, variable,
};

/// The longest wait for the configuration and the files that it names: a health check must not hang with the disk of one.
const READ_MAX: Duration = Duration::from_secs(2);
/// The stack of the thread that reads them.
const READ_STACK_BYTES: usize = 512 * 1024;

/// Reads an unnamed configuration only if no URL was given. A named one that does not exist is a mistake. A broken one does not keep it from asking the instance, which
/// runs with an earlier one.
pub(crate) fn run(config: Option<&Path>, place: &Place, options: status::StatusOptions) -> Done {
    let usual = Path::new(USUAL_FILE);
    let found = (!matches!(place, Place::Url(_)) && usual.exists()).then_some(usual);
    let written = config.or(found).map(ConfigOnDisk::read_in_time).unwrap_or_default();
    let is_missing = |path: &Path| !path.exists() && matches!(place, Place::Configured);
    if config.is_some_and(is_missing) {
        // The usual address may be another instance's.
        written.say(options);
        return Err(ExitCode::from(BAD_CONFIG));
    }
    let done = ask(&written, place, options);
    written.say(options);
    done
}

/// The configuration on disk, as far as it can be read.
#[derive(Default)]
struct ConfigOnDisk {
    config: Option<Config>,
    /// Its text, if it is not YAML.
    text: Option<String>,
    /// The message that it can't be used, and why.
    mistakes: Vec<String>,
}

impl ConfigOnDisk {
    /// Reads it as far as that is possible in time.
    fn read_in_time(path: &Path) -> Self {
        let (done, came) = bounded(1);
        let own = path.to_owned();
        // Nobody is there to receive it later.
        let read = move || drop(done.send(Self::read(&own)));
        let Ok(reading) = thread::spawn("configuration", READ_STACK_BYTES, read) else {
            return Self::read(path);
        };
        came.recv_timeout(READ_MAX).unwrap_or_else(|_| {
            reading.detach();
            let what =
                format!("{}: the disk of a file that it names does not answer", path.display());
            Self { text: text_of(path).ok(), mistakes: vec![what], config: None }
        })
    }

    fn say(&self, options: status::StatusOptions) {
        if options.form != status::OutputForm::Quiet {
            say_all(&self.mistakes);
        }
    }

    fn read(path: &Path) -> Self {
        let files = Files { config: path.to_owned(), environment: None };
        let variables = Variables::of(&files).unwrap_or_default();
        let (config, problems) = inspect(path, &variables);
        let text = text_of(path);
        let (settled, unsettled): (Vec<_>, Vec<_>) = problems
            .iter()
            .filter(|problem| !problem.is_warning)
            .partition(|problem| problem.unset.is_empty());
        let mut mistakes: Vec<_> = settled.iter().map(ToString::to_string).collect();
        if !mistakes.is_empty() && text.is_ok() {
            let shown = path.display();
            mistakes
                .push(format!("{shown}: the file is broken; a reload or a start would refuse it"));
        }
        let unset = unsettled.iter().flat_map(|problem| &problem.unset);
        mistakes.extend(not_here(path, &unset.collect(), variables.unread.as_ref()));
        let text = if config.is_none() { text.ok() } else { None };
        Self { config, text, mistakes }
    }

    /// The instance to ask.
    fn instance(&self, place: &Place) -> Result<Instance, PortUnknown> {
        let key = variable("EVERTOKEN_API_KEY");
        match (self.text.as_deref(), place) {
            (Some(text), Place::Configured) => Instance::guess(text, None, key.as_deref()),
            (Some(text), Place::Listen(told)) => Instance::guess(text, Some(told), key.as_deref()),
            _ => Instance::choose(place, self.config.as_ref(), key.as_deref()),
        }
    }
}

/// The message that the file names `variables` that are not set here, which is not a mistake in the file; `unread` is
/// the reason why the file with variables can't be read.
fn not_here(
    path: &Path,
    variables: &BTreeSet<&String>,
    unread: Option<&Problem>,
) -> Option<String> {
    if variables.is_empty() {
        return None;
    }
    if let Some(why) = unread {
        return Some(format!(
            "{why}; its variables are missing here, but the running evertoken has them"
        ));
    }
    let names: Vec<_> = variables.iter().map(|name| format!("'{name}'")).collect();
    Some(format!(
        "{}: not set here, but the running evertoken may have it, which alone counts: {}",
        path.display(),
        names.join(", ")
    ))
}

fn ask(written: &ConfigOnDisk, place: &Place, options: status::StatusOptions) -> Done {
    let instance = written.instance(place).map_err(|error| tell(error, USAGE))?;
    let interrupted = interruption()
        .map_err(|error| tell(format_args!("Signals can't be handled: {error}"), FAILED))?;
    let size = || std::io::stdout().is_terminal().then(terminal_size);
    let no_color = variable("NO_COLOR");
    let mut io = status::StatusIo {
        out: &mut |text| {
            say_out(text);
            is_printed()
        },
        err: &mut say,
        size: &size,
        is_coloured: is_coloured(size().is_some(), no_color.as_deref()),
        interrupted,
    };
    let is_ready = status::run(&instance, options, &mut io);
    if is_ready { Ok(()) } else { Err(ExitCode::from(FAILED)) }
}

/// True if texts have colours: on a terminal, unless `NO_COLOR` is set to something (<https://no-color.org>).
fn is_coloured(is_terminal: bool, no_color: Option<&str>) -> bool {
    is_terminal && no_color.is_none_or(str::is_empty)
}

/// The size of the terminal, or a usual size if it is unknown.
fn terminal_size() -> status::Size {
    let told = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    match told.map(|size| (usize::from(size.ws_col), usize::from(size.ws_row))) {
        Some((columns @ 1.., rows @ 1..)) => status::Size { columns, rows },
        _ => status::Size { columns: 80, rows: 24 },
    }
}

/// A channel that the first SIGINT or SIGTERM disconnects.
fn interruption() -> std::io::Result<Receiver<()>> {
    let (held, interrupted) = crossbeam_channel::bounded(0);
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let wait = move || {
        signals.forever().next();
        drop(held);
    };
    // It ends with the process.
    thread::spawn("signals", SIGNAL_STACK_BYTES, wait)?.detach();
    Ok(interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_that_are_not_told_otherwise() {
        for (is_terminal, no_color, expected) in [
            (true, None, true),
            (true, Some(""), true),
            (true, Some("1"), false),
            (true, Some("0"), false),
            (false, None, false),
        ] {
            assert_eq!(is_coloured(is_terminal, no_color), expected, "{no_color:?}");
        }
    }
}
