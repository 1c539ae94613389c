//! What a reload says of variables that the running process has not: nobody can give it any. Pure.

use std::path::Path;

use evertoken::config::Config;
use evertoken::config::resolve::missing_secrets;

/// How messages about a variable that is not set begin; the log fixes it.
const MISSING_VARIABLE: &str = "Missing environment variable: ";

type Loaded = Result<(Config, Vec<String>), Vec<String>>;

/// What was loaded in the process `process`, with what it lacks, and where that can get it from; `file` is its
/// `--environment-file`.
pub(crate) fn explained(loaded: Loaded, file: Option<&Path>, process: u32) -> Loaded {
    let explain = |lines: &mut Vec<String>| {
        if lines.iter().any(|line| line.contains(MISSING_VARIABLE)) {
            lines.push(way_out(file, process));
        }
    };
    match loaded {
        Ok((config, mut warnings)) => {
            let missing = missing_secrets(&config);
            warnings.extend(missing.into_iter().filter(|line| line.contains(MISSING_VARIABLE)));
            explain(&mut warnings);
            Ok((config, warnings))
        }
        Err(mut mistakes) => {
            explain(&mut mistakes);
            Err(mistakes)
        }
    }
}

fn way_out(file: Option<&Path>, process: u32) -> String {
    match file {
        Some(file) => format!(
            "The running evertoken (process {process}) does not have that variable: put it into {}, and reload again",
            file.display()
        ),
        None => format!(
            "The running evertoken (process {process}) does not have that variable, and gets variables only at a start: \
             restart it with the variable, or with --environment-file, which each reload reads again"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_for_lack_of_a_variable_says_where_the_process_gets_it_from() {
        let told = |mistake: &str, file: Option<&str>| {
            explained(Err(vec![mistake.to_owned()]), file.map(Path::new), 7).unwrap_err()
        };
        assert_eq!(told("f:1:1: unknown key 'x'", None).len(), 1);
        let missing = "f:1:1: no key: Missing environment variable: 'KEY'";
        let alone = told(missing, None);
        assert_eq!(alone.len(), 2);
        assert!(
            alone[1].contains("(process 7)") && alone[1].contains("restart it"),
            "{}",
            alone[1]
        );
        let named = told(missing, Some("/e"));
        assert!(named[1].ends_with("put it into /e, and reload again"), "{}", named[1]);
    }
}
