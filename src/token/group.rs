//! Which providers share one chain of refresh tokens, and so one refresher. Pure.

use crate::config::{AutoRefresh, Credential, Found, Missing, Provider};

/// What tells one chain of refresh tokens from another: providers with the same one share theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    token_url: String,
    client_id: Result<String, Missing>,
    /// By value, whichever variable or file it came from; where it is missing, by that name.
    seed: Found,
}

/// Providers that share one refresher; most often a single one.
#[derive(Clone, Debug)]
pub struct Group {
    /// Their indices in the configuration, in its order, those of disabled providers too.
    pub members: Vec<usize>,
    /// The member whose `auto_refresh_config` is used: the first enabled one, else the first.
    pub lead: usize,
    /// The `auto_refresh_config` of that member.
    pub config: AutoRefresh,
    /// Names the state file: the members' first slug in the alphabet, so that their order in the file does
    /// not matter.
    pub slug: String,
    /// The names of the enabled members, for the log.
    pub name: String,
    /// None for a chain that only a login can begin, and where no refresh token is used.
    pub identity: Option<Identity>,
}

/// A provider with a token to refresh, and its place in the configuration.
struct Member<'a> {
    index: usize,
    provider: &'a Provider,
    config: &'a AutoRefresh,
}

impl Identity {
    fn of(config: &AutoRefresh) -> Option<Self> {
        let seed = config.seed.clone()?;
        let (token_url, client_id) = (config.token_url.clone(), config.client_id.clone());
        Some(Self { token_url, client_id, seed })
    }
}

/// The groups of `providers`, those of disabled ones too.
pub fn groups(providers: &[Provider]) -> Vec<Group> {
    let mut groups: Vec<(Option<Identity>, Vec<Member<'_>>)> = Vec::new();
    for (index, provider) in providers.iter().enumerate() {
        let Credential::Refreshed(config) = &provider.credential else { continue };
        let (member, identity) = (Member { index, provider, config }, Identity::of(config));
        match groups.iter_mut().find(|(known, _)| known.is_some() && *known == identity) {
            Some((_, members)) => members.push(member),
            None => groups.push((identity, vec![member])),
        }
    }
    groups.into_iter().map(|(identity, members)| Group::new(identity, &members)).collect()
}

impl Group {
    fn new(identity: Option<Identity>, members: &[Member<'_>]) -> Self {
        let lead = members.iter().find(|one| one.provider.enabled).unwrap_or(&members[0]);
        let is_named = |one: &&Member<'_>| one.provider.enabled || !lead.provider.enabled;
        let names: Vec<&str> =
            members.iter().filter(is_named).map(|one| one.provider.name.as_str()).collect();
        let slug = members.iter().map(|one| &one.provider.slug).min();
        Self {
            members: members.iter().map(|one| one.index).collect(),
            lead: lead.index,
            config: lead.config.clone(),
            slug: slug.unwrap_or(&lead.provider.slug).clone(),
            name: names.join(", "),
            identity,
        }
    }

    /// Whether one of its providers takes part.
    pub fn is_enabled(&self, providers: &[Provider]) -> bool {
        providers[self.lead].enabled
    }
}
