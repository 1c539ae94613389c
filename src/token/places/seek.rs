//! Looks for the state file of a chain where it is not where it was, or should be: another process may have moved it,
//! or may be using it under another name.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use crate::config::Config;
use crate::record::Saved;
use crate::secret::Secret;
use crate::token::group::Group;
use crate::token::places::Contents;
use crate::token::places::whose::{Claim, claim, is_same_client};
use crate::token::state_file::StateFile;

/// How much of a hash names a lock.
const LOCK_NAME_CHARS: usize = 16;

/// Looks for the state file of one chain, for its refresher. The default one finds nothing.
#[derive(Clone, Debug, Default)]
pub struct Seeker {
    group: Option<Group>,
    /// All groups of the configuration.
    all: Vec<Group>,
    /// The slugs of all providers of the configuration but its own.
    others: BTreeSet<String>,
}

/// What a look came to.
#[derive(Debug)]
pub enum Sought {
    /// There is no other file of the chain.
    Nothing,
    /// The chain is in the file of this name.
    At(String),
    /// There may be one, and that can't be told.
    Unseen(Unseen),
}

/// What can't be read, and may hold the tokens of a chain.
#[derive(Debug)]
pub struct Unseen {
    /// Where, if not at the refresher's own file.
    pub elsewhere: Option<PathBuf>,
    /// Why.
    pub error: io::Error,
}

impl From<io::Error> for Unseen {
    fn from(error: io::Error) -> Self {
        Self { elsewhere: None, error }
    }
}

impl Seeker {
    /// Looks for the chain of `group`, which is one of `all`, the groups of `config`.
    pub fn new(group: &Group, all: Vec<Group>, config: &Config) -> Self {
        let slugs = config.providers.iter().map(|provider| provider.slug.clone());
        let others = slugs.filter(|slug| !group.slugs.contains(slug)).collect();
        Self { group: Some(group.clone()), all, others }
    }

    /// What a command that names the provider calls it; None where that is not known.
    pub fn provider(&self) -> Option<&str> {
        self.group.as_ref().map(|group| group.slug.as_str())
    }

    /// The chain, where a refresh token begins it that would be spent twice if its file were overlooked.
    fn chain(&self) -> Option<(&Group, String)> {
        let group = self.group.as_ref()?;
        Some((group, group.seed_hash()?))
    }

    /// Whether the chain may be elsewhere than in a file that holds `stored`: nothing, or another chain, as where two
    /// providers changed names.
    pub fn is_needed(&self, stored: Option<&Saved>) -> bool {
        let Some((group, hash)) = self.chain() else { return false };
        let Some(stored) = stored.filter(|stored| stored.refresh_token.is_some()) else {
            return true;
        };
        !stored.may_know_seed(&hash) || is_same_client(group, stored) == Some(false)
    }

    /// Whether others that look for the chain see by `stored` whose it is.
    pub fn is_told_by(&self, stored: &Saved) -> bool {
        self.chain().is_some_and(|(_, hash)| stored.tells_of_seed(&hash))
    }

    /// Whether the file called `slug`, which holds `stored`, is that of another chain of the configuration.
    pub fn is_anothers(&self, slug: &str, stored: &Saved) -> bool {
        let own = self.group.as_ref().and_then(|group| group.identity.as_ref());
        let mut others = self.all.iter().filter(|other| other.identity.as_ref() != own);
        others.any(|other| claim(other, &self.all, slug, stored) == Some(Claim::Own))
    }

    /// The lock that is held while the chain begins, whatever the file is called that it is going to be in.
    pub fn beginning(&self, own: &StateFile) -> Option<StateFile> {
        let (group, hash) = self.chain()?;
        let all = format!("{}\n{hash}", group.client().unwrap_or_default());
        let mut name = Secret::new(all).hash();
        name.truncate(LOCK_NAME_CHARS);
        Some(own.beside(format!("begin-{name}")))
    }

    /// Looks into the folder of `own`, the file in which the chain is looked for first, and is not.
    pub fn look(&self, own: &StateFile) -> Sought {
        let Some((group, _)) = self.chain() else { return Sought::Nothing };
        let mut contents = Contents::read(own.folder());
        if let Some(error) = contents.unlisted.take() {
            return Sought::Unseen(Unseen { elsewhere: Some(own.folder().to_owned()), error });
        }
        match contents.find(group, &self.all, &[]).slug {
            Some(slug) if slug == own.slug() => Sought::Nothing,
            Some(slug) => Sought::At(slug),
            None => self.unseen(&contents, own).map_or(Sought::Nothing, Sought::Unseen),
        }
    }

    /// A file that can't be read, and of which nothing tells that it is another's.
    fn unseen(&self, contents: &Contents, own: &StateFile) -> Option<Unseen> {
        let strange = contents.unreadable.iter().filter(|slug| !self.others.contains(*slug));
        let mut files = strange.map(|slug| own.beside(slug.as_str()));
        files.find_map(|file| {
            Some(Unseen { elsewhere: Some(file.path()), error: file.load().err()? })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Marker;
    use crate::token::group::groups;
    use crate::token::group::tests::providers;

    /// Looks for the chain of the first provider; its own file is `a`.
    fn look(folder: &std::path::Path, lines: &[(&str, &str, &str, &str)]) -> Sought {
        let providers = providers(lines);
        let all = groups(&providers);
        let others = providers[1..].iter().map(|one| one.slug.clone()).collect();
        let seeker = Seeker { group: Some(all[0].clone()), all, others };
        seeker.look(&StateFile::new(folder, "a"))
    }

    #[test]
    fn what_can_not_be_read_may_be_the_chains_unless_it_is_called_as_another_provider() {
        let one = ("a", "seed", "id", "");
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(look(dir.path(), &[one]), Sought::Nothing));
        assert!(matches!(look(&dir.path().join("none"), &[one]), Sought::Nothing));
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let Sought::Unseen(unseen) = look(&file, &[one]) else { panic!("it can't be listed") };
        assert_eq!(unseen.elsewhere, Some(file));
        let state = dir.path().join("state");
        std::fs::create_dir_all(state.join("old.json")).unwrap();
        let Sought::Unseen(unseen) = look(&state, &[one]) else { panic!("it can't be read") };
        assert_eq!(unseen.elsewhere, Some(state.join("old.json")));
        let no_seed = ("a", "", "id", "");
        assert!(matches!(look(&state, &[no_seed]), Sought::Nothing), "nothing could be spent");
        for other in ["old", "-old"] {
            let lines = [one, (other, "other", "id", "")];
            assert!(matches!(look(&state, &lines), Sought::Nothing), "{other}");
        }
        // Beside a file of a newer format.
        let older = tempfile::tempdir().unwrap();
        std::fs::create_dir(older.path().join("old.format-1.json")).unwrap();
        assert!(matches!(look(older.path(), &[one]), Sought::Unseen(_)));
    }

    #[test]
    fn a_chain_is_looked_for_where_its_file_holds_none_or_another_one() {
        let all = groups(&providers(&[("a", "seed", "id", "")]));
        let seeker = Seeker { group: Some(all[0].clone()), all, ..Seeker::default() };
        let begun = |seed: &str, client: Option<String>| {
            let mut saved =
                Saved { refresh_token: Some(Secret::new("r")), client, ..Saved::default() };
            saved.begin_with_seed(&Secret::new(seed));
            saved
        };
        let own = seeker.group.as_ref().unwrap().client();
        let marker = Marker { refresh_token_hash: Secret::new("seed").hash(), ..marker() };
        for (stored, is_needed) in [
            (None, true),
            (Some(Saved { pending: Some(marker), ..Saved::default() }), true),
            (Some(begun("seed", own.clone())), false),
            (Some(begun("seed", None)), false),
            (Some(begun("other", own)), true),
            (Some(begun("seed", Some("another".to_owned()))), true),
        ] {
            assert_eq!(seeker.is_needed(stored.as_ref()), is_needed, "{stored:?}");
            assert!(!Seeker::default().is_needed(stored.as_ref()));
        }
    }

    fn marker() -> Marker {
        Marker { refresh_token_hash: String::new(), at: crate::clock::Timestamp::from_secs(0) }
    }
}
