//! The `evertoken` command.
fn main() {}
