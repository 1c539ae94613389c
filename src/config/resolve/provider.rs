//! One entry of `providers`.

use std::path::PathBuf;

use crate::config::raw::Section;
use crate::config::resolve::auto_refresh::{TokenSource, read_auto_refresh};
use crate::config::resolve::settings::read_timeouts;
use crate::config::resolve::sources::{NamedSecret, Sources};
use crate::config::resolve::{client_certificate, egress, request_fields};
use crate::config::url::{self, split_url};
use crate::config::{
    AuthType, Credential, Egress, FileFormat, Missing, ProviderConfig, ProviderKind,
    SelectionStrategy, Settings, WatchedFile, base_url, nfc, slug,
};
use crate::secret::Secret;

/// Bounds of the numbers.
const IN_FLIGHT_MAX: u64 = 65_535;
const WEIGHT_MAX: u64 = 1000;

/// Keys of the original family of configuration files that evertoken does not use.
const UNUSED: [&str; 1] = ["streaming_mode"];

/// Reads one provider. After a reported error, the result is never used.
pub(super) fn read(
    section: &Section<'_>,
    sources: &Sources<'_>,
    settings: &Settings,
) -> ProviderConfig {
    section.require("name", "a provider needs a 'name'");
    let name = section.text("name");
    if name.as_deref() == Some("") {
        section.error("name", "a provider needs a 'name'");
    }
    let name = name.unwrap_or_default();
    let slug = read_slug(section, &name);
    let kind = section.choice("type", &ProviderKind::ALL.map(|kind| (kind.as_str(), kind)));
    section.require("type", "a provider needs a 'type': anthropic, openai or generic");
    let auth_type = section.known_choice(
        "auth_type",
        &[
            ("auth_token", AuthType::AuthToken),
            ("api_key", AuthType::ApiKey),
            ("none", AuthType::None),
        ],
    );
    let state_file = slug::state_file(&settings.state_dir, &slug);
    let credential = read_credential(section, auth_type, sources, state_file);
    let egress = Egress {
        client_certificate: client_certificate::for_provider(section, &credential),
        ..egress::read(section, sources, &settings.egress)
    };
    let provider = ProviderConfig {
        base_url: read_base_url(section),
        enabled: section.flag("enabled", true),
        auth_type: auth_type.unwrap_or(AuthType::AuthToken),
        credential,
        auth_header: request_fields::read_auth_header(section),
        auth_prefix: request_fields::read_auth_prefix(section),
        headers: request_fields::read_field_values(section),
        query: request_fields::read_query(section),
        egress,
        max_in_flight: section.integer(
            "max_in_flight",
            (settings.limits.max_connections as u64 * 3 / 4).max(1),
            1,
            IN_FLIGHT_MAX,
        ),
        weight: read_weight(section, settings),
        websocket: section.flag("websocket", true),
        timeouts: read_timeouts(section, &settings.limits),
        name,
        slug,
        kind,
    };
    check_encrypted(section, &provider);
    request_fields::check_use(section, &provider);
    section.finish(&UNUSED);
    provider
}

/// The provider's share among those of one priority. Who gives one expects that it counts.
fn read_weight(section: &Section<'_>, settings: &Settings) -> u64 {
    if section.has("weight") && settings.selection_strategy == SelectionStrategy::Priority {
        let message = "'weight' has no effect while settings.selection_strategy is \"priority\": set that to \"sticky\", \
                       \"round_robin\" or \"random\"";
        section.warn("weight", message);
    }
    section.integer("weight", 1, 1, WEIGHT_MAX)
}

/// Warns if the credential could be read on its way.
fn check_encrypted(section: &Section<'_>, provider: &ProviderConfig) {
    let url = &provider.base_url;
    // The target of something that is not a URL is unknown.
    let is_plain =
        split_url(url).is_some_and(|(scheme, _, _)| scheme == "http") && !url::is_loopback(url);
    let has_none =
        matches!(provider.credential, Credential::None | Credential::Missing(Missing::Credential));
    if is_plain && provider.enabled && !has_none {
        let message = "'base_url' is http and leads to another machine, so the credential goes over the \
                       network unencrypted; use https where that machine can";
        section.warn("base_url", message);
    }
}

/// The written slug, else the one made from the name.
fn read_slug(section: &Section<'_>, name: &str) -> String {
    let Some(written) = section.text("slug") else {
        let made = slug::of_name(name);
        if made.is_empty() && !name.is_empty() {
            section.error(
                "name",
                format!("the name '{name}' has no letter and no digit; choose a 'slug' for it"),
            );
        } else if let Some(why) = slug::problem(&made).filter(|_| !made.is_empty()) {
            let message =
                format!("no slug can be made of this name: {why}; choose one with 'slug'");
            section.error("name", message);
        }
        return made;
    };
    let written = nfc::composed(&written).into_owned();
    if let Some(why) = slug::problem(&written) {
        section.error("slug", format!("'slug' can't be '{written}': {why}"));
    }
    written
}

fn read_base_url(section: &Section<'_>) -> String {
    section.require("base_url", "a provider needs a 'base_url'");
    let Some(base_url) = section.text("base_url") else { return String::new() };
    match split_url(&base_url) {
        None => {
            section.error("base_url", url::problem("base_url", &base_url, "an http or https URL"));
        }
        Some((_, _, path)) if path.contains(['?', '#']) => {
            let message = "'base_url' must end with its path, without '?' or '#'; parameters belong \
                           under 'query'";
            section.error("base_url", message);
        }
        Some(_) => {
            if let Some(base) = base_url::of_endpoint(&base_url) {
                let message = format!(
                    "'base_url' names one endpoint; write \"{base}\", since the path of each request is added \
                     to it"
                );
                section.warn("base_url", message);
            }
        }
    }
    base_url.trim_end_matches('/').to_owned()
}

fn read_credential(
    section: &Section<'_>,
    auth_type: Option<AuthType>,
    sources: &Sources<'_>,
    state_file: PathBuf,
) -> Credential {
    let literal = section.text("auth_value");
    let named = sources.secret(section, "auth_value_env", "auth_value_file", false);
    let source = read_auto_refresh(section, sources);
    if literal.is_none() && section.has("auth_value") {
        // It is not a text, which was reported.
        return Credential::None;
    }
    let literal = literal.filter(|value| !value.is_empty());
    if literal.is_some() && named.is_some() {
        section.error("auth_value", "give one of auth_value, auth_value_env and auth_value_file");
    }
    check_visible(section, literal.as_deref(), named.as_ref());
    let is_passthrough = literal.as_deref() == Some("passthrough");
    if literal.is_some() && !is_passthrough {
        sources.warn_if_exposed(section, "auth_value", "auth_value_env");
    }
    let refreshes = matches!(source, Some(TokenSource::Refreshed(_) | TokenSource::Owned(_)));
    let has_fixed = literal.is_some() || named.is_some();
    if auth_type == Some(AuthType::None) {
        if refreshes || has_fixed {
            section.warn("auth_type", "'auth_type' is \"none\", so no credential is sent");
        }
        return Credential::None;
    }
    if refreshes && has_fixed {
        section.warn("auto_refresh_config", "this is used instead of the auth_value");
    }
    match (source, literal, named) {
        (Some(TokenSource::Refreshed(refresh)), _, _) => Credential::Refreshed(refresh),
        (Some(TokenSource::Owned(file)), _, _) => Credential::Watched(file),
        (_, Some(_), _) if is_passthrough => Credential::Passthrough,
        (_, Some(value), _) => Credential::Static(Secret::new(value)),
        (_, None, Some(NamedSecret { found, file, .. })) => match file {
            Some(path) => {
                let missing = found.err();
                Credential::Watched(WatchedFile { path, form: FileFormat::Text, missing })
            }
            None => found.map_or_else(Credential::Missing, Credential::Static),
        },
        (Some(TokenSource::Stored { seed, client }), None, None) => {
            Credential::Watched(WatchedFile {
                path: state_file,
                form: FileFormat::Stored { seed, client },
                missing: None,
            })
        }
        // A reported mistake may be the reason why there is none.
        (Some(TokenSource::Unreadable), None, None) => Credential::None,
        (None, None, None) if section.is_unreadable() || auth_type.is_none() => Credential::None,
        // A disabled provider may be unfinished.
        (None, None, None) if !section.flag("enabled", true) => Credential::None,
        (None, None, None) if section.is_empty("auto_refresh_config") => {
            let message = "'auto_refresh_config' is empty: its keys stand on the lines below, indented further";
            // If its keys stand elsewhere, that is the mistake, which is reported.
            if !section.has_strays_of("auto_refresh_config") {
                section.error_at_key("auto_refresh_config", message);
            }
            Credential::None
        }
        (None, None, None) => Credential::Missing(Missing::Credential),
    }
}

/// Reports a credential that can't be sent, at its key.
fn check_visible(section: &Section<'_>, literal: Option<&str>, named: Option<&NamedSecret>) {
    let is_visible = |text: &str| text.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
    let literal = literal.map(|text| ("auth_value", text));
    let named = named.and_then(|named| Some((named.key, named.found.as_ref().ok()?.expose())));
    for (key, text) in literal.into_iter().chain(named) {
        if !is_visible(text) {
            let message =
                "the credential holds a blank or another byte that no header field may hold";
            section.error(key, message);
        }
    }
}
