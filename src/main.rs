//! The `evertoken` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    evertoken::run(std::env::args_os().skip(1))
}
