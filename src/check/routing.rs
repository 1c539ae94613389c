//! Which providers a request would try, in which order, and why others would not: decided by the code that decides for
//! requests. Pure.

use std::cell::Cell;

use crate::config::{Config, ProviderConfig, SelectionStrategy};
use crate::http::message::{Headers, path_of};
use crate::http::refusal::Refusal;
use crate::proxy::api::{api_of, has_model_in_path, is_models_list};
use crate::proxy::choice::{Candidate, Queue, Sharing, Standing};
use crate::proxy::client_key::ClientKey;
use crate::proxy::limits::AllUsed;
use crate::proxy::metrics::Metrics;
use crate::proxy::rights::Rights;
use crate::proxy::route::{self, Route, Table, candidates};
use crate::visible::visible;

/// The question of `check --route`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteQuestion {
    /// The model that the request names.
    pub model: String,
    /// The name of the request's key; None for one that may do everything.
    pub key: Option<String>,
    /// The path of the request; None for the usual one of each API.
    pub path: Option<String>,
}

/// The answer, in words.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RouteAnswer {
    /// The lines to print, each of which is one line whatever the names in it.
    pub lines: Vec<String>,
    /// True if some provider would be tried.
    pub is_served: bool,
}

/// Answers `question`; `lacking` returns the reason why the provider with an index has no credential. The error says
/// why the question has no answer.
pub(crate) fn answer(
    config: &Config,
    question: &RouteQuestion,
    lacking: impl Fn(usize) -> Option<String>,
) -> Result<RouteAnswer, String> {
    let key = question.key.as_deref().map(|name| key_called(config, name)).transpose()?;
    let rights = key.as_ref().map_or_else(Rights::default, Rights::of);
    let asked = Asked { config, question, rights, why_lacking: &lacking };
    let mut answer = RouteAnswer { lines: Vec::new(), is_served: false };
    match &question.path {
        Some(path) => asked.add(path, &mut answer),
        None if asked.is_of_any_api() => asked.add_route(None, &mut answer),
        None => {
            let gemini = format!("/v1beta/models/{}:generateContent", question.model);
            for path in ["/v1/messages", "/v1/chat/completions", &gemini] {
                asked.add(path, &mut answer);
            }
        }
    }
    if answer.is_served {
        let more = "While evertoken runs, providers that cool down are tried last; `evertoken status` shows them.";
        answer.lines.push(more.to_owned());
    }
    answer.lines.iter_mut().for_each(|line| *line = visible(line).into_owned());
    Ok(answer)
}

fn key_called(config: &Config, name: &str) -> Result<ClientKey, String> {
    let Some(keys) = &config.settings.inbound_keys else {
        let name = visible(name);
        return Err(format!(
            "There is no key '{name}': settings.auth is off, so requests need no key"
        ));
    };
    let found = keys.iter().find(|key| key.rights.name == name);
    found
        .map(|key| ClientKey::new(&key.rights, &Metrics::new(), &mut AllUsed::default()))
        .ok_or_else(|| {
            let mut names: Vec<_> = keys.iter().map(|key| key.rights.name.as_str()).collect();
            names.dedup();
            let (name, names) = (visible(name), names.join(", "));
            format!("There is no key '{name}' in settings.auth; there are: {}", visible(&names))
        })
}

/// A question with all that it depends on.
struct Asked<'a> {
    config: &'a Config,
    question: &'a RouteQuestion,
    rights: Rights<'a>,
    why_lacking: &'a dyn Fn(usize) -> Option<String>,
}

impl<'a> Asked<'a> {
    fn table(&self, rights: Rights<'a>) -> Table<'a, ProviderConfig> {
        Table { rights, ..Table::from(self.config) }
    }

    /// True if the path does not matter.
    fn is_of_any_api(&self) -> bool {
        let is_asked = Cell::new(false);
        let api = || {
            is_asked.set(true);
            None
        };
        let _ = candidates(self.table(Rights::default()), api, Some(&self.question.model));
        !is_asked.get()
    }

    /// The answer for a request to `path`.
    fn add(&self, path: &str, answer: &mut RouteAnswer) {
        match route::route(path, &self.config.providers) {
            Ok(Route::Any) => self.add_route(Some(path), answer),
            Ok(Route::Page(_)) => {
                answer
                    .lines
                    .push(format!("{path} is one of evertoken's own pages: no provider gets it"));
            }
            Ok(Route::Provider(only, _)) => {
                let title = format!("{}, which names the provider:", self.title(Some(path)));
                let allowed = self.rights.check(only).map(|()| vec![Candidate::alone(only)]);
                let others = |_: &ProviderConfig| format!("the path names {} alone", only.slug);
                self.tell(title, allowed, &[only.slug.as_str()], &others, answer);
            }
            Err(refusal) => {
                let title = format!("{}:", self.title(Some(path)));
                let others = |_: &ProviderConfig| "the path names another one".to_owned();
                self.tell(title, Err(refusal), &[], &others, answer);
            }
        }
    }

    /// The answer for a request that names no provider.
    fn add_route(&self, path: Option<&str>, answer: &mut RouteAnswer) {
        let has_none = path.is_some_and(|path| has_model_in_path(path_of(path)));
        let name = Some(self.question.model.as_str()).filter(|_| !has_none);
        let api = path.and_then(|path| api_of(path_of(path), &Headers::new()));
        let found = |rights| candidates(self.table(rights), || api, name);
        let matching = name.and_then(|name| route::matching(self.table(Rights::default()), name));
        let off = name.and_then(|name| route::first_matching(self.table(Rights::default()), name));
        let off = off.filter(|_| matching.is_none());
        let is_alone = route::only_enabled(&self.config.providers).is_some();
        let how = match (matching, api) {
            (Some(route), _) => format!("by the route '{}'", route.pattern),
            (None, _) if is_alone => "to the only enabled provider".to_owned(),
            (None, Some(api)) if has_none && !self.config.model_routes.is_empty() => {
                let api = api.as_str();
                format!("by its API, {api} (its body names no model, so model_routes do not count)")
            }
            (None, Some(api)) => format!("by its API, {}", api.as_str()),
            (None, None) => "by its path, which belongs to no API".to_owned(),
        };
        let others = |one: &ProviderConfig| match (matching, api) {
            (Some(route), _) => format!("the route '{}' does not name it", route.pattern),
            (None, Some(api)) => {
                let (own, api) = (one.kind.as_str(), api.as_str());
                format!("its type is {own}, and the request belongs to the API {api}")
            }
            (None, None) => "the request belongs to no API that evertoken knows".to_owned(),
        };
        let off = off
            .map(|route| format!(" (the providers of the route '{}' are disabled)", route.pattern));
        let title = format!("{}, {how}{}:", self.title(path), off.unwrap_or_default());
        let meant = found(Rights::default()).unwrap_or_default();
        let meant: Vec<_> = meant.iter().map(|one| one.provider.slug.as_str()).collect();
        self.tell(title, found(self.rights), &meant, &others, answer);
        if path.is_some_and(is_models_list) {
            let note = "  GET of this path is answered with the lists of all of them that are of the API's type";
            answer.lines.push(note.to_owned());
        }
    }

    /// `A request for the model 'm' to /v1/messages with the key 'ci'`.
    fn title(&self, path: Option<&str>) -> String {
        let RouteQuestion { model, key, .. } = self.question;
        let to = path.map(|path| format!(" to {path}")).unwrap_or_default();
        let with = key.as_ref().map(|key| format!(" with the key '{key}'")).unwrap_or_default();
        format!("A request for the model '{model}'{to}{with}")
    }

    /// Adds the order of the candidates, and the reasons of the other providers: of `meant` ones that they are not
    /// allowed, else `others`.
    fn tell(
        &self,
        title: String,
        found: Result<Vec<Candidate<'a, ProviderConfig>>, Refusal>,
        meant: &[&str],
        others: &dyn Fn(&ProviderConfig) -> String,
        answer: &mut RouteAnswer,
    ) {
        answer.lines.push(title);
        let may_use = self.rights.check_model(&self.question.model);
        let tried = match may_use.and(found) {
            Ok(found) => {
                answer.is_served |= found.iter().any(|one| self.lacking(one.provider).is_none());
                let tried: Vec<_> = found.iter().map(|one| one.provider).collect();
                answer.lines.extend(self.order(found));
                tried
            }
            Err(refusal) => {
                let code = refusal.code;
                let status = code.status();
                answer.lines.push(format!(
                    "  nobody: {status} {}: {}",
                    code.as_str(),
                    refusal.message
                ));
                Vec::new()
            }
        };
        for provider in &self.config.providers {
            if !tried.iter().any(|one| std::ptr::eq(*one, provider)) {
                let why = self.why_not(provider, meant, others);
                answer.lines.push(format!("  not {}: {why}", provider.name));
            }
        }
    }

    fn why_not(
        &self,
        provider: &ProviderConfig,
        meant: &[&str],
        others: &dyn Fn(&ProviderConfig) -> String,
    ) -> String {
        if !provider.enabled {
            return "it is disabled (enabled: false)".to_owned();
        }
        if meant.contains(&provider.slug.as_str()) {
            let key = self.question.key.as_deref().unwrap_or_default();
            let what = match self.rights.check_model(&self.question.model) {
                Err(_) if self.rights.allow(provider) => "this model",
                _ => "it",
            };
            return format!("the key '{key}' may not use {what}");
        }
        others(provider)
    }

    /// The reason why `provider` has no credential.
    fn lacking(&self, provider: &ProviderConfig) -> Option<String> {
        let own = self.config.providers.iter().position(|own| std::ptr::eq(own, provider));
        own.and_then(self.why_lacking)
    }

    /// One line for each place in the order of the candidates, which has several of them if these share, and one for each
    /// candidate without a credential.
    fn order(&self, found: Vec<Candidate<'a, ProviderConfig>>) -> Vec<String> {
        let standing = |one: &ProviderConfig| match self.lacking(one) {
            Some(_) => Standing::Without,
            None => Standing::Ready,
        };
        let shares = self.config.settings.selection_strategy != SelectionStrategy::Priority;
        let mut queue = Queue::new(found, Sharing::InOrder);
        let mut places: Vec<Vec<Candidate<'_, ProviderConfig>>> = Vec::new();
        while let Some(one) = queue.next(|one| standing(one.provider)) {
            let is_equal = |other: &Candidate<'_, ProviderConfig>| {
                other.priority == one.priority && standing(other.provider) == standing(one.provider)
            };
            match places.last_mut() {
                Some(last) if shares && is_equal(&last[0]) => last.push(one),
                _ => places.push(vec![one]),
            }
        }
        let mut lines = Vec::new();
        for (number, equals) in places.iter().enumerate() {
            lines.push(format!("  {}. {}", number + 1, self.equals(equals)));
            for one in equals {
                let name = &one.provider.name;
                lines.extend(self.lacking(one.provider).map(|why| {
                    format!("     {name} comes last, since it has no credential: {why}")
                }));
            }
        }
        lines
    }

    /// `A (as other-name)`, or `A (3 of 4 conversations) or B (1 of 4)`.
    fn equals(&self, equals: &[Candidate<'_, ProviderConfig>]) -> String {
        let total: u64 = equals.iter().map(|one| one.provider.weight).sum();
        let unit = match self.config.settings.selection_strategy {
            SelectionStrategy::Sticky => " conversations",
            SelectionStrategy::Random => " requests, at random",
            _ => " requests, in turn",
        };
        let words = equals.iter().enumerate().map(|(index, one)| {
            let model = one.model.map(|model| format!(" (as {model})")).unwrap_or_default();
            let unit = if index == 0 { unit } else { "" };
            let share = match equals.len() {
                1 => String::new(),
                _ => format!(" ({} of {total}{unit})", one.provider.weight),
            };
            format!("{}{model}{share}", one.provider.name)
        });
        words.collect::<Vec<_>>().join(" or ")
    }
}

#[cfg(test)]
mod tests;
