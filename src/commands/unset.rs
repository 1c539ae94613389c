//! The message about variables that the running process lacks, which nobody can give to a running process. Pure.

use std::path::Path;

use crate::config::Config;
use crate::config::resolve::{Problem, missing_secrets};

/// The lines for process `process` after a load, with the variables that it lacks and where it can get them; `file`
/// is its `--environment-file`.
pub(crate) fn explained(
    loaded: Result<(Config, Vec<String>), Vec<Problem>>,
    file: Option<&Path>,
    process: u32,
) -> Result<(Config, Vec<String>), Vec<String>> {
    let explain = |lines: &mut Vec<String>, is_unset: bool| {
        lines.extend(is_unset.then(|| where_to_set(file, process)));
    };
    match loaded {
        Ok((config, mut warnings)) => {
            let mut missing = missing_secrets(&config);
            missing.retain(|(_, what)| !what.variables().is_empty());
            warnings.extend(missing.iter().map(|(name, what)| format!("{name}: {what}")));
            explain(&mut warnings, !missing.is_empty());
            Ok((config, warnings))
        }
        Err(problems) => {
            let mut mistakes = problems.iter().map(ToString::to_string).collect();
            explain(&mut mistakes, problems.iter().any(|problem| !problem.unset.is_empty()));
            Err(mistakes)
        }
    }
}

fn where_to_set(file: Option<&Path>, process: u32) -> String {
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
        let told = |unset: &[&str], file: Option<&str>| {
            let unset = unset.iter().map(ToString::to_string).collect();
            // The words of a missing variable in another message prove nothing.
            let words = "unknown key 'Missing environment variable: '";
            let problem = Problem { unset, ..Problem::of("f", words) };
            explained(Err(vec![problem]), file.map(Path::new), 7).unwrap_err()
        };
        assert_eq!(told(&[], None).len(), 1);
        let alone = told(&["KEY"], None);
        assert_eq!(alone.len(), 2);
        assert!(
            alone[1].contains("(process 7)") && alone[1].contains("restart it"),
            "{}",
            alone[1]
        );
        let named = told(&["KEY"], Some("/e"));
        assert!(named[1].ends_with("put it into /e, and reload again"), "{}", named[1]);
    }
}
