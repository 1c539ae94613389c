//! Patterns of models' names, in which `*` alone is a wildcard: finds what would be one elsewhere. Pure.

/// Characters that no name of a model has, and that are wildcards in shells or in regular expressions.
const NEVER_IN_NAMES: [char; 9] = ['?', '{', '}', '(', ')', '|', '^', '$', '\\'];

/// A character of a pattern that stands for itself here, and is a wildcard elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OtherWildcard {
    /// No name of a model has it, so the pattern matches nothing.
    Hopeless(char),
    /// Brackets, which a name may have.
    Brackets,
}

impl OtherWildcard {
    /// The first one in `pattern`. Brackets around the size of a context, as in `claude-sonnet-4-5[1m]`, are part of a name.
    pub(super) fn of(pattern: &str) -> Option<Self> {
        let hopeless = pattern.chars().find(|one| NEVER_IN_NAMES.contains(one));
        let brackets = || {
            let mut groups = pattern.split('[').skip(1);
            groups.any(|group| !is_size(group)).then_some(Self::Brackets)
        };
        hopeless.map(Self::Hopeless).or_else(brackets)
    }

    /// The words for a message about `pattern`.
    pub(super) fn told(self, pattern: &str) -> String {
        match self {
            Self::Hopeless(one) => format!(
                "the pattern '{pattern}' matches no model: '*' is the only wildcard, and '{one}' stands for itself; write \
                 several patterns instead"
            ),
            Self::Brackets => format!(
                "'[' in the pattern '{pattern}' stands for itself, because '*' is the only wildcard; if it is meant as one, \
                 write several patterns instead"
            ),
        }
    }
}

/// True if `group`, the text after a `[`, begins with a size and a `]`.
fn is_size(group: &str) -> bool {
    let Some((size, _)) = group.split_once(']') else { return false };
    let digits = size.strip_suffix(['k', 'K', 'm', 'M']).unwrap_or_default();
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_of_a_shell_matched_nothing_and_nobody_said_so() {
        for (pattern, expected) in [
            ("gpt-5", None),
            ("*", None),
            ("openai/gpt-4.*", None),
            ("claude-sonnet-4-5[1m]", None),
            ("claude-*[200k]", None),
            ("gpt-[45]", Some(OtherWildcard::Brackets)),
            ("gpt-[!45]*", Some(OtherWildcard::Brackets)),
            ("m[1m][ab]", Some(OtherWildcard::Brackets)),
            ("m[m]", Some(OtherWildcard::Brackets)),
            ("m[1m", Some(OtherWildcard::Brackets)),
            ("gpt-?", Some(OtherWildcard::Hopeless('?'))),
            ("{gpt,o3}*", Some(OtherWildcard::Hopeless('{'))),
            ("^gpt", Some(OtherWildcard::Hopeless('^'))),
            ("gpt-[45]$", Some(OtherWildcard::Hopeless('$'))),
        ] {
            assert_eq!(OtherWildcard::of(pattern), expected, "{pattern}");
        }
    }
}
