//! Secrets that the configuration names, found or missing.

use std::fmt;

use crate::secret::Secret;

/// A secret that the configuration names and that the environment or the disk lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// An environment variable that is not set or empty.
    Variable(String),
    /// A file that can't be read or is empty: its path and the reason.
    File(String, String),
    /// A refresh token that only a login can bring, with the command for it.
    Login(String),
    /// The configuration names no credential at all.
    Credential,
    /// More than one of these.
    Several(Vec<Missing>),
}

/// A secret named in the configuration, found or missing.
pub(crate) type SecretLookup = Result<Secret, Missing>;

impl Missing {
    /// All missing ones as one, so that people are told once; None if nothing is missing.
    pub fn all(found: impl IntoIterator<Item = Self>) -> Option<Self> {
        let mut all: Vec<Self> = Vec::new();
        for one in found {
            if !all.contains(&one) {
                all.push(one);
            }
        }
        if all.len() > 1 { Some(Self::Several(all)) } else { all.pop() }
    }

    /// The remedy; None if the words themselves name it.
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Variable(_) => Some("set it where evertoken is started, and restart"),
            Self::File(..) => Some("the file is read again by itself"),
            Self::Several(_) if !self.variables().is_empty() => Some(
                "set them where evertoken is started, and restart; files are read again by themselves",
            ),
            Self::Several(all) => all.iter().find_map(Self::remedy),
            Self::Login(_) | Self::Credential => None,
        }
    }

    /// True if the words end in a command, so that nothing may follow them.
    pub fn ends_in_command(&self) -> bool {
        match self {
            Self::Login(_) => true,
            Self::Several(all) => all.iter().any(Self::ends_in_command),
            Self::Variable(_) | Self::File(..) | Self::Credential => false,
        }
    }

    /// The environment variables among the missing secrets.
    pub fn variables(&self) -> Vec<&str> {
        match self {
            Self::Several(all) => all.iter().flat_map(Self::variables).collect(),
            one => one.variable().into_iter().collect(),
        }
    }

    fn variable(&self) -> Option<&str> {
        match self {
            Self::Variable(name) => Some(name),
            _ => None,
        }
    }
}

impl std::error::Error for Missing {}

/// In words; the alternate form (`{:#}`) has no command in it.
impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => write!(f, "Missing environment variable: '{name}'"),
            Self::File(path, why) => write!(f, "Missing secret file: '{path}' ({why})"),
            Self::Login(_) if f.alternate() => f.write_str("There is no refresh token yet"),
            Self::Login(command) => write!(f, "There is no refresh token yet; run: {command}"),
            Self::Credential => f.write_str(
                "There is no credential: give auto_refresh_config, auth_value, auth_value_env or \
                 auth_value_file, or auth_type \"none\"",
            ),
            Self::Several(all) => write_several(f, all),
        }
    }
}

/// The variables first and together, because the beginning of that log line is fixed.
fn write_several(f: &mut fmt::Formatter<'_>, all: &[Missing]) -> fmt::Result {
    let names: Vec<_> = all.iter().filter_map(Missing::variable).collect();
    let variables = match names.split_last() {
        Some((last, [])) => Some(format!("Missing environment variable: '{last}'")),
        Some((last, others)) => {
            Some(format!("Missing environment variable: '{}' and '{last}'", others.join("', '")))
        }
        None => None,
    };
    let is_alternate = f.alternate();
    let words = |one: &Missing| if is_alternate { format!("{one:#}") } else { one.to_string() };
    let others = all.iter().filter(|one| one.variable().is_none()).map(words);
    let parts: Vec<_> = variables.into_iter().chain(others).collect();
    f.write_str(&parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_missing_is_named_in_one_line() {
        let variable = |name: &str| Missing::Variable(name.to_owned());
        let file = || Missing::File("/f".into(), "it is empty".into());
        let login = || Missing::Login("evertoken login".into());
        let told = |all: Vec<Missing>| Missing::all(all).map(|missing| missing.to_string());
        assert_eq!(told(vec![]), None);
        for (all, words) in [
            (vec![variable("A")], "Missing environment variable: 'A'"),
            (vec![variable("A"), variable("A")], "Missing environment variable: 'A'"),
            (vec![variable("A"), variable("B")], "Missing environment variable: 'A' and 'B'"),
            (
                vec![variable("A"), variable("B"), variable("C")],
                "Missing environment variable: 'A', 'B' and 'C'",
            ),
            (
                vec![file(), variable("A")],
                "Missing environment variable: 'A'; Missing secret file: '/f' (it is empty)",
            ),
            (
                vec![variable("A"), login()],
                "Missing environment variable: 'A'; There is no refresh token yet; run: evertoken login",
            ),
        ] {
            assert_eq!(told(all).as_deref(), Some(words));
        }
    }
}
