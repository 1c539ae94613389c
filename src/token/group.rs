//! Groups the providers that share one chain of refresh tokens, and so one refresher. Pure.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::config::{AutoRefresh, Credential, Missing, ProviderConfig, SecretLookup};

/// The identity of a chain of refresh tokens: providers with the same identity share a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The `token_url`, else the `issuer`.
    issuer: String,
    client_id: Result<String, Missing>,
    /// Compared by value, whichever variable or file it came from; a missing seed is compared by that name.
    seed: SecretLookup,
}

/// Providers that share one refresher; most often a single one.
#[derive(Clone, Debug)]
pub struct Group {
    /// Their indices in the configuration, in its order, including disabled providers.
    pub members: Vec<usize>,
    /// The member whose `auto_refresh_config` is used: the first enabled one, else the first.
    pub lead: usize,
    pub config: AutoRefresh,
    /// The name of the state file: the members' first slug in the alphabet, so that their order in the file does not
    /// matter.
    pub slug: String,
    /// The slugs of its members, except those that an enabled provider of another group has.
    pub slugs: BTreeSet<String>,
    /// The names of the enabled members, for the log.
    pub name: String,
    /// None for a chain that only a login can begin, and for a grant without a refresh token.
    pub identity: Option<Identity>,
    /// The files with its members' refresh token; None for a member whose refresh token is elsewhere.
    pub seed_files: BTreeSet<Option<PathBuf>>,
}

/// A provider with a token to refresh, and its place in the configuration.
struct Member<'a> {
    index: usize,
    provider: &'a ProviderConfig,
    config: &'a AutoRefresh,
}

impl Identity {
    fn of(config: &AutoRefresh) -> Option<Self> {
        let seed = config.seed.clone()?;
        let (issuer, client_id) = (config.issuer_or_token_url(), config.client_id.clone());
        Some(Self { issuer: issuer.to_owned(), client_id, seed })
    }
}

/// The groups of `providers`, including groups of disabled ones.
pub fn groups(providers: &[ProviderConfig]) -> Vec<Group> {
    let mut groups: Vec<(Option<Identity>, Vec<Member<'_>>)> = Vec::new();
    for (index, provider) in providers.iter().enumerate() {
        let Credential::Refreshed(config) = &provider.credential else { continue };
        let (member, identity) = (Member { index, provider, config }, Identity::of(config));
        match groups.iter_mut().find(|(known, _)| known.is_some() && *known == identity) {
            Some((_, members)) => members.push(member),
            None => groups.push((identity, vec![member])),
        }
    }
    groups
        .into_iter()
        .map(|(identity, members)| Group::new(identity, &members, providers))
        .collect()
}

impl Group {
    fn new(
        identity: Option<Identity>,
        members: &[Member<'_>],
        providers: &[ProviderConfig],
    ) -> Self {
        let lead = members.iter().find(|one| one.provider.enabled).unwrap_or(&members[0]);
        let is_named = |one: &&Member<'_>| one.provider.enabled || !lead.provider.enabled;
        let names: Vec<&str> =
            members.iter().filter(is_named).map(|one| one.provider.name.as_str()).collect();
        let indices: Vec<usize> = members.iter().map(|one| one.index).collect();
        // A disabled member may have the slug of an enabled provider outside the group.
        let is_own = |slug: &&String| {
            let others = providers.iter().enumerate().filter(|(index, _)| !indices.contains(index));
            others.filter(|(_, other)| other.enabled).all(|(_, other)| other.slug != **slug)
        };
        let slugs = members.iter().map(|one| &one.provider.slug).filter(is_own);
        let slugs: BTreeSet<String> = slugs.cloned().collect();
        Self {
            slug: slugs.first().unwrap_or(&lead.provider.slug).clone(),
            slugs,
            members: indices,
            lead: lead.index,
            config: lead.config.clone(),
            name: names.join(", "),
            identity,
            seed_files: members.iter().map(|one| one.config.files.seed.clone()).collect(),
        }
    }

    /// True if one of its providers is enabled.
    pub fn is_enabled(&self, providers: &[ProviderConfig]) -> bool {
        providers[self.lead].enabled
    }

    /// The group under a re-read `config`, whose secrets may come from files. An unreadable refresh token does not
    /// change the chain.
    pub fn reconfigured(&self, config: AutoRefresh) -> Self {
        let identity = Identity::of(&config).filter(|identity| identity.seed.is_ok());
        Self { identity: identity.or_else(|| self.identity.clone()), config, ..self.clone() }
    }

    /// True if its refresh token is `seed`.
    pub fn has_seed(&self, seed: &SecretLookup) -> bool {
        self.identity.as_ref().is_some_and(|identity| identity.seed == *seed)
    }

    /// The hash of the configured refresh token; None if there is none, or it is missing.
    pub fn seed_hash(&self) -> Option<String> {
        let seed = self.identity.as_ref()?.seed.as_ref().ok()?;
        Some(seed.hash())
    }
}

/// Notes about providers that share a chain, a line each.
pub(crate) fn sharing(providers: &[ProviderConfig]) -> Vec<String> {
    let mut lines = Vec::new();
    for group in groups(providers) {
        let members = group.members.iter().map(|index| &providers[*index]);
        let enabled: Vec<&ProviderConfig> = members.filter(|one| one.enabled).collect();
        if enabled.len() > 1 {
            lines.push(format!(
                "{} have the same refresh token, and so share one chain: one refresh serves all of them",
                group.name
            ));
        }
        let lead = &providers[group.lead];
        for other in enabled.into_iter().filter(|one| one.name != lead.name) {
            let keys = differences(lead, other);
            if !keys.is_empty() {
                lines.push(format!(
                    "{} differs from {}, whose values are used for both: {}",
                    other.name,
                    lead.name,
                    keys.join(", ")
                ));
            }
        }
    }
    lines
}

/// Providers that have the same refresh token but can't share a chain, a line each.
pub(crate) fn collisions(providers: &[ProviderConfig]) -> Vec<String> {
    let groups: Vec<Group> =
        groups(providers).into_iter().filter(|group| group.is_enabled(providers)).collect();
    let mut lines = Vec::new();
    for (index, one) in groups.iter().enumerate() {
        let same_seed =
            |other: &&Group| one.seed_hash().is_some() && other.seed_hash() == one.seed_hash();
        for other in groups[index + 1..].iter().filter(same_seed) {
            let key = if one.config.issuer_or_token_url() == other.config.issuer_or_token_url() {
                "client_id"
            } else {
                "token_url"
            };
            lines.push(format!(
                "{} and {} have the same refresh token but not the same {key}, so each refreshes for itself; \
                 where the issuer takes a refresh token once only, the first refresh of one logs the other out",
                one.name, other.name
            ));
        }
    }
    lines
}

/// The keys that shape a token request or its time, and in which two providers of a group differ.
fn differences(one: &ProviderConfig, other: &ProviderConfig) -> Vec<&'static str> {
    let (Credential::Refreshed(own), Credential::Refreshed(theirs)) =
        (&one.credential, &other.credential)
    else {
        return Vec::new();
    };
    let all = [
        ("'client_secret_env'", own.client_secret != theirs.client_secret),
        ("'client_auth'", own.client_auth != theirs.client_auth),
        ("'client_cert_file'", own.client_certificate != theirs.client_certificate),
        ("'request_format'", own.request_format != theirs.request_format),
        ("'scope'", own.scope != theirs.scope),
        ("'extra_params'", own.extra_params != theirs.extra_params),
        ("'headers' of auto_refresh_config", own.headers != theirs.headers),
        ("'token_fields'", own.token_fields != theirs.token_fields),
        ("'refresh_before_expiry'", own.refresh_before_expiry != theirs.refresh_before_expiry),
        ("'retry_interval'", own.retry_interval != theirs.retry_interval),
        ("'proxy'", one.egress.proxy != other.egress.proxy),
        ("'ca_file'", one.egress.extra_roots_pem != other.egress.extra_roots_pem),
    ];
    all.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::resolve::{Sources, resolve};

    /// Providers of these lines: name, seed (or none), client, and more keys; a `-` before the name disables.
    pub(crate) fn providers(lines: &[(&str, &str, &str, &str)]) -> Vec<ProviderConfig> {
        let one = |(name, seed, client, more): &(&str, &str, &str, &str)| {
            let enabled = !name.starts_with('-');
            let name = name.trim_start_matches('-');
            let seed = match *seed {
                "" => "authorization_url: 'https://l/'".to_owned(),
                seed => format!("refresh_token_env: {seed}"),
            };
            format!(
                "  - {{name: {name}, type: generic, base_url: 'http://x', enabled: {enabled}, \
                 auto_refresh_config: {{token_url: 'https://i/t', client_id_env: {client}, {seed}{more}}}}}\n"
            )
        };
        let text = format!("providers:\n{}", lines.iter().map(one).collect::<String>());
        // A variable holds its own name up to the first digit, and one in capitals is not set.
        let value = |name: &str| name.trim_end_matches(|one: char| one.is_ascii_digit()).to_owned();
        let is_set = |name: &&str| name.to_lowercase() == **name;
        let sources = Sources {
            environment: &|name| Some(name).filter(is_set).map(value),
            files: &|_| Err(std::io::ErrorKind::NotFound.into()),
            now: crate::clock::Timestamp::from_secs(1_800_000_000),
            file_modes: &|_| None,
            file_mode: None,
            is_root: true,
            working_folder: None,
        };
        resolve(&text, "f", &sources).unwrap_or_else(|problems| panic!("{problems:?}")).0.providers
    }

    fn shown(lines: &[(&str, &str, &str, &str)]) -> Vec<String> {
        let shown =
            |one: Group| format!("{:?} {} {} {}", one.members, one.lead, one.slug, one.name);
        groups(&providers(lines)).into_iter().map(shown).collect()
    }

    #[test]
    fn who_shares_a_chain_who_leads_it_and_how_it_is_called() {
        let seed = |name| (name, "seed", "id", "");
        assert_eq!(shown(&[seed("b"), seed("a")]), ["[0, 1] 0 a b, a"]);
        assert_eq!(shown(&[seed("-a"), seed("b")]), ["[0, 1] 1 a b"]);
        assert_eq!(shown(&[seed("-a"), seed("-b")]), ["[0, 1] 0 a a, b"]);
        // Seeds are compared by value, and missing ones by name.
        assert_eq!(shown(&[("a", "seed1", "id1", ""), ("b", "seed2", "id2", "")]).len(), 1);
        assert_eq!(shown(&[("a", "SEED", "id", ""), ("b", "SEED", "id", "")]).len(), 1);
        assert_eq!(shown(&[("a", "SEED", "id", ""), ("b", "DEED", "id", "")]).len(), 2);
        // A different client or token, or no token.
        assert_eq!(shown(&[seed("a"), ("b", "seed", "other", "")]).len(), 2);
        assert_eq!(shown(&[seed("a"), ("b", "need", "id", "")]).len(), 2);
        assert_eq!(shown(&[("a", "", "id", ""), ("b", "", "id", "")]).len(), 2);
    }

    #[test]
    fn a_disabled_member_with_the_slug_of_an_enabled_stranger_names_no_file() {
        let lines = [("-a", "seed", "id", ""), ("b", "seed", "id", ""), ("a", "need", "id", "")];
        assert_eq!(shown(&lines), ["[0, 1] 1 b b", "[2] 2 a a"]);
    }

    #[test]
    fn what_members_may_differ_in_is_said_by_its_key() {
        let said =
            |more| sharing(&providers(&[("a", "seed", "id", ""), ("b", "seed", "id", more)]));
        assert_eq!(said("").len(), 1);
        let cases = [
            (", scope: s", "'scope'"),
            (", client_secret_env: s", "'client_secret_env', 'client_auth'"),
            (", request_format: json", "'request_format'"),
            (", extra_params: {a: b}", "'extra_params'"),
            (", headers: {a: b}", "'headers' of auto_refresh_config"),
            (", token_fields: {access_token: a.b}", "'token_fields'"),
            (", refresh_before_expiry: 1", "'refresh_before_expiry'"),
            (", retry_interval: 1", "'retry_interval'"),
        ];
        for (more, keys) in cases {
            let expected = format!("b differs from a, whose values are used for both: {keys}");
            assert_eq!(said(more)[1], expected);
        }
    }

    #[test]
    fn one_refresh_token_for_two_clients_is_said() {
        let told = |client, name| {
            collisions(&providers(&[("a", "seed", "id", ""), (name, "seed", client, "")])).len()
        };
        assert_eq!((told("id", "b"), told("other", "b"), told("other", "-b")), (0, 1, 0));
    }
}
