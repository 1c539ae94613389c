//! Looks for the state file of a chain that is missing from its earlier or expected place: another process may have
//! moved it, or may be using it under another name.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::{AutoRefresh, Config, GrantType, SecretLookup};
use crate::record::Saved;
use crate::secret::Secret;
use crate::token::group::{Group, Identity};
use crate::token::places::contents::{Contents, numbered};
use crate::token::places::whose::{Claim, claim, is_same_client};
use crate::token::reread;
use crate::token::state_file::StateFile;

/// The number of characters of a hash in a lock's name.
const LOCK_NAME_CHARS: usize = 16;
/// The number of other names that are tried for a file if its place has another chain's file.
const PLACES_TRIED_MAX: usize = 8;
/// The reason if none of them is free.
const IS_FOREIGN: &str =
    "it holds tokens of another token_url or client_id, and so do the numbered files next to it";

/// Looks for the state file of one chain, on behalf of its refresher. The default one finds nothing.
#[derive(Clone, Debug, Default)]
pub struct Seeker {
    group: Option<Group>,
    /// All groups of the configuration.
    all: Vec<Group>,
    /// The slugs of all other providers of the configuration.
    others: BTreeSet<String>,
    on: OnChain,
}

/// The chain that a refresher is on. A reload assigns refreshers to providers by it, because a refresh token in a file
/// may have changed since the last reload.
#[derive(Clone, Debug, Default)]
pub struct OnChain(Arc<Mutex<Option<Identity>>>);

impl OnChain {
    /// True if it is the chain of `group`.
    pub fn is_of(&self, group: &Group) -> bool {
        let on = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        on.is_some() && *on == group.identity
    }

    fn set(&self, group: &Group) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&group.identity);
    }
}

/// The outcome of a look.
#[derive(Debug)]
pub enum Sought {
    /// There is no other file of the chain.
    Nothing,
    /// The chain is in the file of this name.
    At(String),
    /// There may be another file, which can't be read.
    Unseen(Unseen),
    /// There is no other file, the chain's own place has another chain's, and the chain is to be kept in the file of
    /// this name.
    Instead(String),
}

/// An unreadable file or folder that may hold the tokens of a chain.
#[derive(Debug)]
pub struct Unseen {
    /// Its path, unless it is the refresher's own file.
    pub elsewhere: Option<PathBuf>,
    /// The error.
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
        let on = OnChain::default();
        on.set(group);
        Self { group: Some(group.clone()), all, others, on }
    }

    /// The chain that its refresher is on.
    pub fn on(&self) -> OnChain {
        self.on.clone()
    }

    /// Uses `config` from now on, whose secrets may have changed in their files.
    pub fn reconfigure(&mut self, config: &AutoRefresh) {
        let Some(group) = &mut self.group else { return };
        let changed = group.reconfigured(config.clone());
        for one in self.all.iter_mut().filter(|one| one.lead == group.lead) {
            *one = changed.clone();
        }
        *group = changed;
        self.on.set(group);
    }

    /// True if all members of its group have `seed`, which is in the file of one of them; otherwise the chain would end
    /// for the others.
    pub fn is_seed_of_all(&self, seed: Option<&SecretLookup>) -> bool {
        let (Some(group), Some(seed @ Ok(_))) = (&self.group, seed) else { return true };
        let has_it = |file: &Option<PathBuf>| {
            file.as_ref().is_some_and(|path| reread::secret_in(path) == *seed)
        };
        group.seed_files.len() < 2 || group.has_seed(seed) || group.seed_files.iter().all(has_it)
    }

    /// The provider's name in commands; None if it is unknown.
    pub fn provider(&self) -> Option<&str> {
        self.group.as_ref().map(|group| group.slug.as_str())
    }

    /// The chain, if it begins with a refresh token that would be spent twice if the chain's file were overlooked.
    fn chain(&self) -> Option<(&Group, String)> {
        let group = self.group.as_ref()?;
        Some((group, group.seed_hash()?))
    }

    /// True if the chain may be in another file than the one that holds `stored`: nothing, or another chain, for
    /// example after two providers exchanged names.
    pub fn is_needed(&self, stored: Option<&Saved>) -> bool {
        if stored.is_some_and(|stored| self.is_foreign(stored)) {
            return true;
        }
        let Some((group, hash)) = self.chain() else { return false };
        let Some(stored) = stored.filter(|stored| stored.refresh_token.is_some()) else {
            return true;
        };
        !stored.may_know_seed(&hash) || is_same_client(group, stored) == Some(false)
    }

    /// True if `stored` belongs to another issuer or client, and not to a chain that began with the configured refresh
    /// token before the issuer or client was corrected: its tokens must not be sent to this issuer.
    pub fn is_foreign(&self, stored: &Saved) -> bool {
        let Some(group) = &self.group else { return false };
        let is_known = || group.seed_hash().is_some_and(|hash| stored.tells_of_seed(&hash));
        let tells_of_refresh = stored.pending.is_some() || stored.failure.is_some();
        let holds_any =
            stored.refresh_token.is_some() || stored.access.is_some() || tells_of_refresh;
        holds_any && is_same_client(group, stored) == Some(false) && !is_known()
    }

    /// The place for the tokens: `own`, or another one if `own` has another chain's file.
    pub fn place(&self, own: &StateFile) -> StateFile {
        if !own.path().exists() {
            // Reading it would create its folder.
            return own.clone();
        }
        match own.load() {
            Ok(Some(stored)) if self.is_foreign(&stored) => match self.instead_of(own, &stored) {
                Sought::Instead(slug) => own.beside(slug),
                _ => own.clone(),
            },
            _ => own.clone(),
        }
    }

    /// The place for the tokens while `own` holds `stored`, which is another chain.
    fn instead_of(&self, own: &StateFile, stored: &Saved) -> Sought {
        if stored.refresh_token.is_none() && stored.pending.is_none() {
            return Sought::Nothing;
        }
        let is_free = |slug: &String| {
            !self.others.contains(slug)
                && match own.beside(slug.as_str()).load() {
                    Ok(stored) => stored.is_none_or(|stored| self.is_own(&stored)),
                    Err(_) => false,
                }
        };
        match numbered(own.slug()).take(PLACES_TRIED_MAX).find(is_free) {
            Some(slug) => Sought::Instead(slug),
            None => Sought::Unseen(io::Error::other(IS_FOREIGN).into()),
        }
    }

    /// True if `stored` is its own, by the client and the seed.
    fn is_own(&self, stored: &Saved) -> bool {
        let Some(group) = &self.group else { return false };
        let has_beginning = match group.seed_hash() {
            Some(hash) => stored.tells_of_seed(&hash),
            // A grant without a refresh token leaves no seed and no login by which its file could be known again.
            None => {
                stored.login_hash.is_some() || group.config.grant_type != GrantType::RefreshToken
            }
        };
        has_beginning && is_same_client(group, stored) == Some(true)
    }

    /// True if other seekers can tell by `stored` which chain it belongs to.
    pub fn is_told_by(&self, stored: &Saved) -> bool {
        self.chain().is_some_and(|(_, hash)| stored.tells_of_seed(&hash))
    }

    /// True if the file called `slug`, which holds `stored`, belongs to another chain of the configuration.
    pub fn is_anothers(&self, slug: &str, stored: &Saved) -> bool {
        let own = self.group.as_ref().and_then(|group| group.identity.as_ref());
        let all = self.all_now();
        let mut others = all.iter().filter(|other| other.identity.as_ref() != own);
        others.any(|other| claim(other, &all, slug, stored) == Some(Claim::Own))
    }

    /// The lock that is held while the chain begins, whatever the name of its file will be.
    pub fn beginning(&self, own: &StateFile) -> Option<StateFile> {
        let (group, hash) = self.chain()?;
        let all = format!("{}\n{hash}", group.config.client_hash().unwrap_or_default());
        let mut name = Secret::new(all).hash();
        name.truncate(LOCK_NAME_CHARS);
        Some(own.beside(format!("begin-{name}")))
    }

    /// Searches the folder of `own`, the chain's first place, which holds `stored` instead of the chain.
    pub fn look(&self, own: &StateFile, stored: Option<&Saved>) -> Sought {
        match (self.look_around(own), stored) {
            (Sought::Nothing, Some(stored))
                if self.is_foreign(stored) || self.is_anothers(own.slug(), stored) =>
            {
                self.instead_of(own, stored)
            }
            (found, _) => found,
        }
    }

    fn look_around(&self, own: &StateFile) -> Sought {
        let Some((group, _)) = self.chain() else { return Sought::Nothing };
        let all = self.all_now();
        let mut contents = Contents::read(own.folder());
        if let Some(error) = contents.unlisted.take() {
            return Sought::Unseen(Unseen { elsewhere: Some(own.folder().to_owned()), error });
        }
        match contents.find(group, &all, &[]).slug {
            Some(slug) if slug == own.slug() => Sought::Nothing,
            Some(slug) => Sought::At(slug),
            None => self.unseen(&contents, own).map_or(Sought::Nothing, Sought::Unseen),
        }
    }

    /// All groups, with the current content of their secret files.
    fn all_now(&self) -> Vec<Group> {
        let own = self.group.as_ref().map(|group| group.lead);
        let as_now = |one: &Group| {
            let read = if own == Some(one.lead) { None } else { reread::read_again(&one.config) };
            read.map_or_else(|| one.clone(), |config| one.reconfigured(config))
        };
        self.all.iter().map(as_now).collect()
    }

    /// An unreadable file, unless something tells that it belongs to another chain.
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
        let seeker = Seeker { group: Some(all[0].clone()), all, others, ..Seeker::default() };
        seeker.look(&StateFile::new(folder, "a"), None)
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
        // Next to a file of a newer format.
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
        let own = seeker.group.as_ref().unwrap().config.client_hash();
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

    #[test]
    fn what_another_client_wrote_is_foreign_unless_it_tells_of_the_configured_seed() {
        let all = groups(&providers(&[("a", "seed", "id", "")]));
        let own = all[0].config.client_hash();
        let seeker = Seeker { group: Some(all[0].clone()), all, ..Seeker::default() };
        let mut begun = Saved { refresh_token: Some(Secret::new("r")), ..Saved::default() };
        begun.begin_with_seed(&Secret::new("other"));
        let mut corrected = begun.clone();
        corrected.begin_with_seed(&Secret::new("seed"));
        let marked = |hash: String| Saved {
            pending: Some(Marker { refresh_token_hash: hash, ..marker() }),
            ..Saved::default()
        };
        let cases = [
            (begun.clone(), true),
            (marked("other".to_owned()), true),
            (marked(Secret::new("seed").hash()), false),
            (corrected, false),
            (Saved::default(), false),
        ];
        for (stored, is_foreign) in cases {
            let of = |client: Option<&str>| Saved {
                client: client.map(str::to_owned),
                ..stored.clone()
            };
            assert_eq!(seeker.is_foreign(&of(Some("another"))), is_foreign, "{stored:?}");
            assert!(!seeker.is_foreign(&of(own.as_deref())) && !seeker.is_foreign(&of(None)));
        }
    }

    fn marker() -> Marker {
        Marker { refresh_token_hash: String::new(), at: crate::clock::Timestamp::from_secs(0) }
    }
}
