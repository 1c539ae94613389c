//! Assigns the names of state files. Pure.

use std::collections::BTreeSet;

use crate::token::group::Group;
use crate::token::places::contents::{Contents, numbered};

/// Assigns names of state files, none of them twice.
#[derive(Debug, Default)]
pub(crate) struct Homes {
    /// Names of running refreshers' files, and assigned names.
    pub taken: BTreeSet<String>,
    /// Names that running refreshers are about to give up.
    pub leaving: BTreeSet<String>,
}

impl Homes {
    /// A name for the chain of `group`: a provider's name that nobody uses, preferably `found`. Only if it `may_wait`,
    /// the name may be one that is about to be given up.
    pub(crate) fn give(
        &mut self,
        group: &Group,
        found: Option<&str>,
        may_wait: bool,
        contents: &Contents,
    ) -> String {
        let is_free = |slug: &&str| !self.taken.contains(*slug) && !self.leaving.contains(*slug);
        let is_left = |slug: &&str| may_wait && !self.taken.contains(*slug);
        let own = || group.slugs.iter().map(String::as_str);
        let found = found.filter(|slug| group.slugs.contains(*slug)).filter(is_free);
        let slug = found.or_else(|| own().find(is_free)).or_else(|| own().find(is_left));
        let is_unused = |slug: &String| is_free(&slug.as_str()) && !contents.has(slug);
        let slug = slug.map(str::to_owned).or_else(|| numbered(&group.slug).find(is_unused));
        let slug = slug.unwrap_or_else(|| group.slug.clone());
        self.taken.insert(slug.clone());
        slug
    }
}
