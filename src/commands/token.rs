//! `evertoken token`: prints a valid access token.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::cli::{Files, TokenFormat};
use crate::clock::Clock;

use crate::commands::common::{Done, FAILED, tell, variable};
use crate::commands::obtain::obtain;
use crate::commands::token_format::{Unprintable, printed};

/// The variable in which `kubectl` tells an exec plugin what it wants.
const EXEC_INFO: &str = "KUBERNETES_EXEC_INFO";

/// Prints a token of the provider called `wanted`, and nothing else on stdout.
pub(crate) fn run(files: &Files, wanted: Option<&str>, format: TokenFormat) -> Done {
    let (provider, token) = obtain(files, wanted)?;
    let exec_info = variable(EXEC_INFO);
    let now = Clock::system().wall();
    let text = printed(&token, &provider, format, exec_info.as_deref(), now);
    let text = text.map_err(|why: Unprintable| tell(why, FAILED))?;
    write(&text).map_err(|error| match error.kind() {
        // Nobody reads it, so nobody needs to be told.
        io::ErrorKind::BrokenPipe => ExitCode::from(FAILED),
        _ => tell(format_args!("The token can't be printed: {error}"), FAILED),
    })
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}
