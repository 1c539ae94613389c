//! Commands for the configuration in use, for messages that tell people what to run. Pure.

/// The default configuration file.
pub(crate) const USUAL_FILE: &str = "providers.yaml";

/// The options that make a command read the same configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// ` --config FILE`, quoted for a shell, empty for the default file; ` --environment-file FILE` if one was named.
    config: String,
}

impl CommandLine {
    /// The call for the configuration in `file`.
    pub fn of(file: &str) -> Self {
        let config = match file {
            USUAL_FILE => String::new(),
            other => format!(" --config {}", quoted(other)),
        };
        Self { config }
    }

    /// The same call, with the variables in `file`.
    pub fn with_environment_file(mut self, file: &str) -> Self {
        self.config = format!("{} --environment-file {}", self.config, quoted(file));
        self
    }

    /// The command that logs in to the provider with this slug.
    pub fn login(&self, slug: &str) -> String {
        format!("evertoken login{} --provider {}", self.config, quoted(slug))
    }

    /// The command that refreshes the token of the provider with this slug.
    pub fn refresh(&self, slug: &str) -> String {
        format!("evertoken refresh{} --provider {}", self.config, quoted(slug))
    }

    /// The command that makes a running evertoken read the file again.
    pub fn reload(&self) -> String {
        format!("evertoken reload{}", self.config)
    }

    /// The command that tests every endpoint.
    pub fn check_online(&self) -> String {
        format!("evertoken check --online{}", self.config)
    }
}

/// `word`, quoted for a shell.
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
            assert_eq!(CommandLine::of(file).login(slug), expected);
        }
        let with = CommandLine::of("a").with_environment_file("my env");
        assert_eq!(
            with.login("p"),
            "evertoken login --config a --environment-file 'my env' --provider p"
        );
        assert_eq!(CommandLine::of(USUAL_FILE).reload(), "evertoken reload");
        assert_eq!(with.reload(), "evertoken reload --config a --environment-file 'my env'");
        assert_eq!(CommandLine::of("a").check_online(), "evertoken check --online --config a");
        assert_eq!(CommandLine::of("a").refresh("p"), "evertoken refresh --config a --provider p");
    }
}
