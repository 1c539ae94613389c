//! From a request's target and model to its candidates, one of evertoken's own pages, or a refusal.

use crate::config::{
    Config, ModelRoute, ProviderConfig, ProviderKind, SelectionStrategy, find_by_segment, slug,
};
use crate::http::message::{RequestHead, path_of};
use crate::http::refusal::{Code, Refusal};
use crate::proxy::api::api_of;
use crate::proxy::choice::Candidate;
use crate::proxy::glob::matches;
use crate::proxy::rights::Rights;

/// The destination of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route<'a, P> {
    /// Only this provider, with this target (path and query, starting with `/`).
    Provider(&'a P, String),
    /// Any of the [`candidates`], with the target unchanged.
    Any,
    /// One of evertoken's own pages: the path after `/-/`, without the query.
    Page(String),
}

/// The routing table: the providers, the routes by model, and the rights of a request.
#[derive(Debug)]
pub struct Table<'a, P> {
    /// The providers in the order of the configuration, including disabled ones.
    pub providers: &'a [P],
    /// The routes in the order of the configuration.
    pub model_routes: &'a [ModelRoute],
    /// The rights of the request that is routed.
    pub rights: Rights<'a>,
}

impl<P> Clone for Table<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for Table<'_, P> {}

impl<'a> From<&'a Config> for Table<'a, ProviderConfig> {
    fn from(config: &'a Config) -> Self {
        let rights = Rights::default();
        Self { providers: &config.providers, model_routes: &config.model_routes, rights }
    }
}

/// Routes `target`, which starts with `/`.
pub(crate) fn route<'a, P: AsRef<ProviderConfig>>(
    target: &str,
    providers: &'a [P],
) -> Result<Route<'a, P>, Refusal> {
    let path = path_of(target);
    let query = &target[path.len()..];
    if let Some(page) = path.strip_prefix("/-/") {
        return Ok(Route::Page(page.to_owned()));
    }
    if path == "/-" {
        return Ok(Route::Page(String::new()));
    }
    let Some((slug, path)) = split_slug(path) else { return Ok(Route::Any) };
    let target = if path.is_empty() { format!("/{query}") } else { format!("{path}{query}") };
    let found = find_by_segment(providers, slug);
    found.map(|found| Route::Provider(found, target)).ok_or_else(|| unknown(providers, slug))
}

/// The candidates for a request of an `api` and for `model`, in the order of their priority: those of the first route
/// whose pattern matches the model; else those whose type is that API's, then the generic ones, in file order. A
/// provider that is alone gets every request, whatever its API. Then those that the request may not use are left out,
/// so that a key's limits lead no request to a provider that would not get it otherwise.
pub(crate) fn candidates<'a, P: AsRef<ProviderConfig>>(
    table: Table<'a, P>,
    api: impl FnOnce() -> Option<ProviderKind>,
    model: Option<&str>,
) -> Result<Vec<Candidate<'a, P>>, Refusal> {
    let mut all = meant(table, api, model)?;
    if table.rights.limits().is_some() {
        all.retain(|one| table.rights.allow(one.provider.as_ref()));
        if all.is_empty() {
            return Err(table.rights.refusal("may use no provider that serves this request"));
        }
    }
    Ok(all)
}

/// The candidate of every request, whatever its API and its model, if it is the only one that is enabled. None if the
/// request may not use every provider.
pub(crate) fn only_candidate<P: AsRef<ProviderConfig>>(
    table: Table<'_, P>,
) -> Option<Candidate<'_, P>> {
    if !table.model_routes.is_empty() || table.rights.limits().is_some() {
        return None;
    }
    only_enabled(table.providers).map(Candidate::alone)
}

/// The same as [`candidates`] for a request that may use every provider.
fn meant<'a, P: AsRef<ProviderConfig>>(
    table: Table<'a, P>,
    api: impl FnOnce() -> Option<ProviderKind>,
    model: Option<&str>,
) -> Result<Vec<Candidate<'a, P>>, Refusal> {
    let routed = model.map(|model| routed(table, model)).unwrap_or_default();
    if !routed.is_empty() {
        return Ok(routed);
    }
    if let Some(only) = only_enabled(table.providers) {
        return Ok(vec![Candidate::alone(only)]);
    }
    let api = api();
    let by_type = api.map(|api| by_type(table.providers, api)).unwrap_or_default();
    if by_type.is_empty() { Err(no_provider(table.providers, api)) } else { Ok(by_type) }
}

/// The first route whose pattern matches `model`.
pub(crate) fn first_matching<'a, P>(table: Table<'a, P>, model: &str) -> Option<&'a ModelRoute> {
    table.model_routes.iter().find(|route| matches(&route.pattern, model))
}

/// The route of `model`: the first one whose pattern matches it, if one of its providers is enabled.
pub(crate) fn matching<'a, P: AsRef<ProviderConfig>>(
    table: Table<'a, P>,
    model: &str,
) -> Option<&'a ModelRoute> {
    let route = first_matching(table, model)?;
    let mut providers = route.candidates.iter().map(|one| table.providers[one.provider].as_ref());
    providers.any(|one| one.enabled).then_some(route)
}

/// The enabled providers of the first route whose pattern matches `model`.
fn routed<'a, P: AsRef<ProviderConfig>>(table: Table<'a, P>, model: &str) -> Vec<Candidate<'a, P>> {
    let matching = matching(table, model);
    let candidates = matching.into_iter().flat_map(|route| &route.candidates).map(|candidate| {
        let (model, priority) = (candidate.model.as_deref(), candidate.priority);
        Candidate { provider: &table.providers[candidate.provider], model, priority }
    });
    candidates.filter(|candidate| candidate.provider.as_ref().enabled).collect()
}

/// The names of models under which routes serve providers of `kind` that the request may use: patterns that match
/// only one name.
pub(crate) fn names<P: AsRef<ProviderConfig>>(
    table: Table<'_, P>,
    kind: ProviderKind,
) -> Vec<String> {
    let is_of_kind = |one: &Candidate<'_, P>| {
        let provider = one.provider.as_ref();
        provider.kind == kind && table.rights.allow(provider)
    };
    // An earlier route may have a pattern that matches the name too.
    let serves = |name: &&String| routed(table, name).iter().any(is_of_kind);
    let names = table.model_routes.iter().map(|route| &route.pattern);
    names.filter(|name| !name.contains('*')).filter(serves).cloned().collect()
}

/// The only enabled provider, if there is exactly one.
pub(crate) fn only_enabled<P: AsRef<ProviderConfig>>(providers: &[P]) -> Option<&P> {
    let mut enabled = providers.iter().filter(|provider| provider.as_ref().enabled);
    let first = enabled.next()?;
    enabled.next().is_none().then_some(first)
}

fn by_type<P: AsRef<ProviderConfig>>(providers: &[P], api: ProviderKind) -> Vec<Candidate<'_, P>> {
    let serves = |one: &ProviderConfig| one.kind == api || one.kind == ProviderKind::Generic;
    let fitting = providers.iter().filter(|one| one.as_ref().enabled && serves(one.as_ref()));
    let mut all: Vec<_> = fitting
        .map(|one| Candidate {
            priority: i64::from(one.as_ref().kind != api),
            ..Candidate::alone(one)
        })
        .collect();
    // A stable sort: file order stays.
    all.sort_by_key(|one| one.priority);
    all
}

/// The routing table in words, one line for each kind of request, with the order of providers.
pub(crate) fn explain(config: &Config) -> Vec<String> {
    const APIS: [(Option<ProviderKind>, &str); 4] = [
        (Some(ProviderKind::Anthropic), "/v1/messages, or with anthropic-version"),
        (Some(ProviderKind::OpenAi), "/v1/chat/completions, responses, embeddings, files, …"),
        (Some(ProviderKind::Generic), "/v1beta/…, …:generateContent"),
        (None, "any other path"),
    ];
    let mut rows: Vec<(String, String)> = Vec::new();
    let table = Table::from(config);
    for route in &config.model_routes {
        // No model with this name is needed: only the pattern's own candidates matter.
        let own = Table { model_routes: std::slice::from_ref(route), ..table };
        let served = match candidates(own, || None, Some(&route.pattern)) {
            Ok(served)
                if route.candidates.iter().any(|one| config.providers[one.provider].enabled) =>
            {
                in_words(config, &served)
            }
            _ => "as without it, since none of its providers is enabled".to_owned(),
        };
        rows.push((format!("model '{}'", route.pattern), served));
    }
    for (api, shown) in APIS {
        let served = candidates(table, || api, None);
        let served =
            served.map_or_else(|_| "nobody (404)".to_owned(), |served| in_words(config, &served));
        rows.push((shown.to_owned(), served));
    }
    for provider in config.providers.iter().filter(|provider| provider.enabled) {
        rows.push((format!("/to/{}/…", provider.slug), format!("{} alone", provider.name)));
    }
    let width = rows.iter().map(|(what, _)| what.chars().count()).max().unwrap_or(0);
    rows.iter().map(|(what, served)| format!("{what:width$}  {served}")).collect()
}

/// `A, then B (as other-name)`; `A or B` if the strategy chooses between equals.
fn in_words(config: &Config, candidates: &[Candidate<'_, ProviderConfig>]) -> String {
    let mut words = String::new();
    let shares = config.settings.selection_strategy != SelectionStrategy::Priority;
    for (index, one) in candidates.iter().enumerate() {
        let is_equal = index > 0 && candidates[index - 1].priority == one.priority;
        words.push_str(match index {
            0 => "",
            _ if is_equal && shares => " or ",
            _ => ", then ",
        });
        words.push_str(&one.provider.name);
        if let Some(model) = &one.model {
            words.extend([" (as ", model, ")"]);
        }
        if shares && one.provider.weight > 1 {
            words.extend([" (weight ", &one.provider.weight.to_string(), ")"]);
        }
    }
    words
}

/// The API whose error shape a request for `/to/<slug>/…` gets if the slug names no enabled provider: that of the
/// disabled one, else the API of the rest of the path and the headers.
pub(crate) fn kind_of_unknown<P: AsRef<ProviderConfig>>(
    head: &RequestHead,
    providers: &[P],
) -> Option<ProviderKind> {
    let (slug, rest) = split_slug(head.path())?;
    let disabled = find_disabled(providers, slug).map(|one| one.kind);
    disabled.or_else(|| api_of(rest, &head.headers))
}

/// True if a person opened `/` in a browser.
pub(crate) fn is_opened_in_browser(head: &RequestHead) -> bool {
    let is_html = |kind: &[u8]| {
        let name = kind.split(|byte| *byte == b';').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(b"text/html")
    };
    let is_root = matches!(head.target.as_bytes(), [b'/'] | [b'/', b'?', ..]);
    is_root && head.method == "GET" && head.headers.list("accept").any(is_html)
}

/// The slug, and the rest, of a path that begins with `/to/`.
pub(super) fn split_slug(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix("/to/")?;
    Some(rest.split_at(rest.find('/').unwrap_or(rest.len())))
}

fn find_disabled<'a, P: AsRef<ProviderConfig>>(
    providers: &'a [P],
    segment: &str,
) -> Option<&'a ProviderConfig> {
    let slug = slug::of_segment(segment)?;
    providers.iter().map(AsRef::as_ref).find(|one| !one.enabled && one.slug == slug)
}

/// The slugs of the enabled providers for which `is_meant` holds, as a list; None if there are none.
pub(super) fn slugs<P: AsRef<ProviderConfig>>(
    providers: &[P],
    is_meant: impl Fn(&ProviderConfig) -> bool,
) -> Option<String> {
    let meant = providers.iter().map(AsRef::as_ref).filter(|one| one.enabled && is_meant(one));
    let slugs: Vec<_> = meant.map(|one| one.slug.as_str()).collect();
    (!slugs.is_empty()).then(|| slugs.join(", "))
}

/// `/to/<slug>` names no provider, or a disabled one.
fn unknown<P: AsRef<ProviderConfig>>(providers: &[P], segment: &str) -> Refusal {
    let what = find_disabled(providers, segment).map_or_else(
        || "There is no provider with this slug".to_owned(),
        |one| format!("{} is disabled in providers.yaml", one.name),
    );
    let message = match slugs(providers, |_| true) {
        None => format!("{what}, and none is enabled"),
        Some(slugs) => format!("{what}; there are: {slugs}"),
    };
    Refusal::new(Code::UnknownProvider, message)
}

/// No provider serves the API, or the request belongs to none and several providers could be meant.
fn no_provider<P: AsRef<ProviderConfig>>(providers: &[P], api: Option<ProviderKind>) -> Refusal {
    let by_kind = |kind: ProviderKind| {
        let slugs = slugs(providers, |one| one.kind == kind)?;
        Some(format!("{}: {slugs}", kind.as_str()))
    };
    let there_are: Vec<_> = ProviderKind::ALL.into_iter().filter_map(by_kind).collect();
    let there_are = there_are.join("; ");
    let by_name = "/to/<slug>/… reaches each of them";
    let message = match api {
        _ if there_are.is_empty() => "No provider is enabled in providers.yaml".to_owned(),
        None => format!(
            "This path belongs to no API that evertoken knows, and several providers are enabled: {there_are}. \
             {by_name}"
        ),
        Some(api) => {
            let types = match api {
                ProviderKind::Generic => "generic".to_owned(),
                other => format!("{} or generic", other.as_str()),
            };
            format!(
                "A request of this API goes to a provider of type {types}, and none of those is enabled; there \
                 are: {there_are}. {by_name}"
            )
        }
    };
    Refusal::new(Code::NoProvider, message)
}

/// `refusal` with a hint, if the client's base URL lacks its `/v1` or has one too many.
pub(crate) fn with_hint(mut refusal: Refusal, head: &RequestHead) -> Refusal {
    let path = head.path();
    if refusal.code != Code::NoProvider || api_of(path, &head.headers).is_some() {
        return refusal;
    }
    let is_known = |path: &str| api_of(path, &head.headers).is_some();
    if is_known(&format!("/v1{path}")) {
        let hint = format!(". Is /v1{path} meant? The base URL of the client ends with /v1 then");
        refusal.message.push_str(&hint);
    } else if let Some(meant) = path.strip_prefix("/v1").filter(|meant| is_known(meant)) {
        let hint = format!(
            ". Is {meant} meant? The base URL of the client ends with /v1; leave it out there"
        );
        refusal.message.push_str(&hint);
    }
    refusal
}

#[cfg(test)]
pub(crate) mod tests;
