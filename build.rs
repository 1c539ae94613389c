//! Puts the functions of the usual program that run before all others.
//!
//! The kernel maps 64 KB around each page that is used, and the functions that run are half of the program, spread over
//! all of it: together they take 3 MB less. contrib/build-static does the same for the static program. `make order` writes
//! the names.
#![expect(clippy::disallowed_methods, reason = "cargo says in variables what it builds")]

use std::env::var;
use std::fmt::Write;
use std::fs;
use std::path::Path;

const NAMES: &str = "contrib/usual.order";

fn main() {
    println!("cargo::rerun-if-changed={NAMES}");
    let is = |name: &str, value: &str| var(name).is_ok_and(|found| found == value);
    let has_usual_linker = var("RUSTC_LINKER").is_err()
        && !var("CARGO_ENCODED_RUSTFLAGS").is_ok_and(|all| all.contains("fuse-ld"));
    let is_usual =
        is("PROFILE", "release") && is("TARGET", "x86_64-unknown-linux-gnu") && has_usual_linker;
    // A package without the names builds a program that is larger at rest.
    let (true, Ok(names), Ok(folder)) = (is_usual, fs::read_to_string(NAMES), var("OUT_DIR"))
    else {
        return;
    };
    let script = Path::new(&folder).join("layout.ld");
    match fs::write(&script, layout(&names)) {
        Ok(()) => println!("cargo::rustc-link-arg-bin=evertoken=-Wl,--script={}", script.display()),
        Err(error) => println!("cargo::warning={}: {error}", script.display()),
    }
}

/// A script for the linker that adds to its own (ld(1), "INSERT").
fn layout(names: &str) -> String {
    let mut script = String::from("SECTIONS\n{\n  .text.first :\n  {\n");
    for name in names
        .lines()
        .filter(|line| line.starts_with(|first: char| first == '_' || first.is_ascii_alphabetic()))
    {
        // Functions that are called rarely have sections of another name.
        let _ = writeln!(script, "    *(\".text.{name}\" \".text.unlikely.{name}\")");
    }
    script.push_str("  }\n}\nINSERT BEFORE .text;\n");
    // The tables for panics would lie between pages that the start reads.
    script.push_str("SECTIONS { .gcc_except_table : { *(.gcc_except_table .gcc_except_table.*) } }\nINSERT AFTER .eh_frame;\n");
    script
}
