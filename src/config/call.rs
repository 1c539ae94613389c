//! How a command for the configuration in use is written, for messages that say what to run. Pure.

/// The file that is read where none is named.
pub const USUAL_FILE: &str = "providers.yaml";

/// The command line that reads the same configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// ` --config FILE` as a shell takes it, empty for the usual file; ` --environment-file FILE` where one was named.
    config: String,
}

impl Call {
    /// For a configuration that was read from `file`.
    pub fn of(file: &str) -> Self {
        let config = match file {
            USUAL_FILE => String::new(),
            other => format!(" --config {}", quoted(other)),
        };
        Self { config }
    }

    /// The same with the variables of `file`.
    pub fn with_environment_file(mut self, file: &str) -> Self {
        self.config = format!("{} --environment-file {}", self.config, quoted(file));
        self
    }

    /// Logs in to the provider of this slug.
    pub fn login(&self, slug: &str) -> String {
        format!("evertoken login{} --provider {}", self.config, quoted(slug))
    }

    /// Refreshes the token of the provider of this slug.
    pub fn refresh(&self, slug: &str) -> String {
        format!("evertoken refresh{} --provider {}", self.config, quoted(slug))
    }

    /// Tries every endpoint.
    pub fn check_online(&self) -> String {
        format!("evertoken check --online{}", self.config)
    }
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let is_plain =
        |character: char| character.is_alphanumeric() || "_-./:=@%+,".contains(character);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_file_needs_no_name_and_any_other_is_a_word_for_a_shell() {
        for (file, slug, expected) in [
            ("providers.yaml", "p", "evertoken login --provider p"),
            ("/etc/e/p.yaml", "p", "evertoken login --config /etc/e/p.yaml --provider p"),
            (
                "./providers.yaml",
                "克劳德",
                "evertoken login --config ./providers.yaml --provider 克劳德",
            ),
            ("my p.yaml", "p", "evertoken login --config 'my p.yaml' --provider p"),
            ("it's $HOME", "p", r"evertoken login --config 'it'\''s $HOME' --provider p"),
            ("", "p", "evertoken login --config '' --provider p"),
        ] {
            assert_eq!(Call::of(file).login(slug), expected);
        }
        let with = Call::of("a").with_environment_file("my env");
        assert_eq!(
            with.login("p"),
            "evertoken login --config a --environment-file 'my env' --provider p"
        );
        assert_eq!(Call::of("a").check_online(), "evertoken check --online --config a");
        assert_eq!(Call::of("a").refresh("p"), "evertoken refresh --config a --provider p");
    }
}
