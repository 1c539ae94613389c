//! From the YAML and the environment to a checked `Config`, or to the full list of problems.

use std::path::{Path, PathBuf};

use crate::config::raw::{Document, Section, nearest};
use crate::config::resolve::pattern::OtherWildcard;
use crate::config::{
    CommandLine, Config, Credential, GrantType, Missing, ModelRoute, ProviderConfig,
    RouteCandidate, find_provider, nfc,
};

mod assertion;
mod auth;
mod auto_refresh;
mod certificate_names;
mod client_auth;
mod client_certificate;
mod egress;
mod endpoint;
mod grant;
mod inbound_key;
pub(crate) mod listen;
mod login_endpoints;
mod origins;
mod pattern;
mod provider;
mod request_fields;
mod settings;
mod sources;
mod state_dir;
pub(crate) mod tls;
mod token_command;
mod token_fields;
mod token_request;
mod token_store;

pub use crate::config::problem::Problem;
pub use sources::Sources;

/// Resolves `text`, read from `file`: the configuration and its warnings, or every problem.
pub fn resolve(
    text: &str,
    file: &str,
    sources: &Sources<'_>,
) -> Result<(Config, Vec<Problem>), Vec<Problem>> {
    usable(inspect(text, file, sources))
}

/// What [`inspect`] found, as an error if the configuration can't be used.
pub(crate) fn usable(
    (config, problems): (Option<Config>, Vec<Problem>),
) -> Result<(Config, Vec<Problem>), Vec<Problem>> {
    match config.filter(|_| problems.iter().all(|one| one.is_warning)) {
        Some(config) => Ok((config, problems)),
        None => Err(problems),
    }
}

/// Every problem of `text`, read from `file`, and the configuration as far as it can be read. With errors among the
/// problems, that configuration is good only for finding more of them.
pub(crate) fn inspect(
    text: &str,
    file: &str,
    sources: &Sources<'_>,
) -> (Option<Config>, Vec<Problem>) {
    let document = match Document::parse(text) {
        Ok(document) => document,
        Err((position, message)) => {
            return (None, vec![Problem { position, ..Problem::of(file, message) }]);
        }
    };
    let mut config = read(&document, sources);
    for provider in &mut config.providers {
        if let Credential::Refreshed(refresh) = &mut provider.credential {
            refresh.call = CommandLine::of(file);
            if let GrantType::Command(command) = &mut refresh.grant_type {
                command.folder = folder_of(file, sources);
            }
        }
    }
    let mut problems = document.problems(file);
    problems.sort_by_key(|problem| problem.position);
    problems.dedup();
    (Some(config), problems)
}

/// The folder of the configuration file.
fn folder_of(file: &str, sources: &Sources<'_>) -> PathBuf {
    let file = sources.whole(Path::new(file));
    let folder = file.parent().filter(|folder| folder.is_absolute());
    folder.unwrap_or(Path::new("/")).to_owned()
}

fn read(document: &Document<'_>, sources: &Sources<'_>) -> Config {
    let root = Section::root(document);
    let settings = settings::read(&root, sources);
    let sections = root.sections("providers", "a provider");
    // If it is not a list, nothing more can be said about its providers.
    let is_list = sections.is_some();
    let sections = sections.unwrap_or_default();
    let providers: Vec<ProviderConfig> =
        sections.iter().map(|section| provider::read(section, sources, &settings)).collect();
    if is_list {
        report_none(&root, &providers);
    }
    check_unique(&sections, &providers);
    warn_of_slugs(&sections, &providers);
    token_request::check_providers(&sections, &providers);
    if is_list {
        inbound_key::check_providers(&root, &providers);
    }
    let model_routes = read_routes(&root, &providers, is_list);
    root.finish(&[]);
    Config { settings, model_routes, providers }
}

fn report_none(root: &Section<'_>, providers: &[ProviderConfig]) {
    root.require(
        "providers",
        "there are no 'providers'; providers.yaml.example shows how to begin",
    );
    if !root.has("providers") {
        return;
    }
    if providers.is_empty() {
        root.error("providers", "there is no provider in 'providers'");
    } else if !providers.iter().any(|provider| provider.enabled) {
        root.warn("providers", "no provider is enabled, so nothing will be forwarded");
    }
}

/// Two enabled providers can't share a name or a slug; a disabled one conflicts with nobody.
fn check_unique(sections: &[Section<'_>], providers: &[ProviderConfig]) {
    for (index, (provider, section)) in providers.iter().zip(sections).enumerate() {
        let mut before = providers[..index].iter().filter(|other| other.enabled);
        if !provider.enabled || provider.slug.is_empty() {
            continue;
        }
        let meets =
            |other: &&ProviderConfig| other.name == provider.name || other.slug == provider.slug;
        let Some(other) = before.find(meets) else { continue };
        if other.name == provider.name {
            let message = format!(
                "there is another provider called '{}'; give one of them another name",
                other.name
            );
            section.error("name", message);
        } else {
            let message = format!(
                "this provider and '{}' have the same slug '{}'; choose another with 'slug'",
                other.name, other.slug
            );
            section.error(if section.has("slug") { "slug" } else { "name" }, message);
        }
    }
}

/// Warns about a slug that is the name of another provider: a name comes before a slug, except in paths and in the lists
/// of keys, which hold slugs alone.
fn warn_of_slugs(sections: &[Section<'_>], providers: &[ProviderConfig]) {
    let enabled = || providers.iter().filter(|one| one.enabled);
    for (provider, section) in providers.iter().zip(sections).filter(|(one, _)| one.enabled) {
        let slug = &provider.slug;
        // Two with one name or one slug are an error.
        let is_namesake = |other: &&ProviderConfig| {
            nfc::composed(&other.name) == *slug
                && other.slug != *slug
                && other.name != provider.name
        };
        if enabled().any(|other| is_namesake(&other)) {
            let message = format!(
                "the slug '{slug}' of this provider is the name of another one, which alone is meant by '{slug}' in a route, \
                 in 'bearer_provider' and after --provider; choose another with 'slug'"
            );
            section.warn(if section.has("slug") { "slug" } else { "name" }, message);
        }
    }
}

fn read_routes(
    root: &Section<'_>,
    providers: &[ProviderConfig],
    providers_are_known: bool,
) -> Vec<ModelRoute> {
    let lists = root.lists("model_routes", "a route");
    lists
        .into_iter()
        .map(|(pattern, sections)| {
            if let Some(other) = OtherWildcard::of(&pattern) {
                root.warn_in("model_routes", &pattern, other.told(&pattern));
            }
            let mut candidates: Vec<_> = sections
                .iter()
                .filter_map(|one| read_candidate(one, providers, providers_are_known))
                .collect();
            candidates.sort_by_key(|candidate| candidate.priority);
            ModelRoute { pattern, candidates }
        })
        .collect()
}

fn read_candidate(
    section: &Section<'_>,
    providers: &[ProviderConfig],
    providers_are_known: bool,
) -> Option<RouteCandidate> {
    section.require("provider", "a route needs a 'provider'");
    let name = section.text("provider");
    let model = section.text("model");
    let priority = section.integer("priority", 1, 0, 1_000_000);
    let found = name.as_ref().and_then(|name| find_provider(providers, name));
    match (&name, found) {
        (Some(name), None) if providers_are_known => {
            let names = providers.iter().map(|provider| provider.name.as_str());
            let near = nearest(name, names);
            let hint = near.map(|near| format!(", did you mean '{near}'?")).unwrap_or_default();
            section.error("provider", format!("there is no provider '{name}'{hint}"));
        }
        (Some(name), Some(index)) if !providers[index].enabled => {
            section
                .warn("provider", format!("provider '{name}' is disabled, so this is never used"));
        }
        _ => {}
    }
    section.finish(&[]);
    Some(RouteCandidate {
        provider: found?,
        model: model.filter(|model| model != "passthrough"),
        priority: i64::try_from(priority).unwrap_or(i64::MAX),
    })
}

/// The secrets that the configuration names, each with its provider's name, and that the environment or the disk lacks, for `check`; without the
/// first refresh token, which a stored one makes unnecessary.
pub(crate) fn missing_secrets(config: &Config) -> Vec<(&str, Missing)> {
    let mut missing = Vec::new();
    for provider in config.providers.iter().filter(|provider| provider.enabled) {
        let mut report = |what| missing.push((provider.name.as_str(), what));
        match &provider.credential {
            Credential::Missing(what) => report(what.clone()),
            Credential::Refreshed(refresh) => {
                refresh.missing_of_client().into_iter().for_each(report);
            }
            Credential::Watched(file) => file.missing.clone().into_iter().for_each(report),
            Credential::None | Credential::Passthrough | Credential::Static(_) => {}
        }
    }
    missing
}

#[cfg(test)]
mod tests;
