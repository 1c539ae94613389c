//! `evertoken status`: asks a running instance, and draws on the terminal.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use crossbeam_channel::Receiver;
use evertoken::cli::Files;
use evertoken::config::call::USUAL_FILE;
use evertoken::status::{self, Target};
use evertoken::{logger, thread};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::commands::{FAILED, SIGNAL_STACK_BYTES, USAGE, load, say, say_out, variable};

/// A configuration that was not named is read only where no address was.
pub(crate) fn run(config: Option<&Path>, url: Option<&str>, wish: status::Wish) -> ExitCode {
    let usual = Path::new(USUAL_FILE);
    let found = (url.is_none() && usual.exists()).then_some(usual);
    let files = |path: &Path| Files { config: path.to_owned(), environment: None };
    let loaded = config.or(found).map(|path| load(&files(path), logger::Options::default()));
    let config = match loaded.transpose() {
        Ok(loaded) => loaded.map(|(config, _)| config),
        Err(code) => return code,
    };
    let key = variable("EVERTOKEN_API_KEY");
    let target = match Target::choose(url, config.as_ref(), key.as_deref()) {
        Ok(target) => target,
        Err(why) => {
            say(&why);
            return ExitCode::from(USAGE);
        }
    };
    let interrupted = match interruption() {
        Ok(interrupted) => interrupted,
        Err(error) => {
            say(&format!("Signals can't be handled: {error}"));
            return ExitCode::from(FAILED);
        }
    };
    let size = || std::io::stdout().is_terminal().then(terminal_size);
    let no_colour = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
    let mut means = status::Means {
        out: &mut say_out,
        err: &mut say,
        size: &size,
        is_coloured: size().is_some() && !no_colour,
        interrupted,
    };
    let is_ready = status::run(&target, wish, &mut means);
    ExitCode::from(if is_ready { 0 } else { FAILED })
}

/// How large the terminal is, or the usual size where it does not say.
fn terminal_size() -> status::Size {
    let told = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    match told.map(|size| (usize::from(size.ws_col), usize::from(size.ws_row))) {
        Some((columns @ 1.., rows @ 1..)) => status::Size { columns, rows },
        _ => status::Size { columns: 80, rows: 24 },
    }
}

/// Is disconnected by the first SIGINT or SIGTERM.
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
