//! From a request's target and model to the providers that may serve it, one of our own pages, or a
//! refusal.

use crate::config::{Config, Provider, ProviderKind, SelectionStrategy, find_by_segment};
use crate::message::path_of;
use crate::proxy::choice::Candidate;
use crate::refusal::{Code, Refusal};

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// To the provider of this index and no other, with this target (path and query, starting with
    /// `/`).
    Provider(usize, String),
    /// To any of the [`candidates`], with the target as it is.
    Any,
    /// To one of our own pages: what follows `/-/`, without the query.
    Page(String),
}

/// Routes `target`, which starts with `/`.
pub fn route(target: &str, providers: &[Provider]) -> Result<Route, Refusal> {
    let path = path_of(target);
    let query = &target[path.len()..];
    if let Some(page) = path.strip_prefix("/-/") {
        return Ok(Route::Page(page.to_owned()));
    }
    if path == "/-" {
        return Ok(Route::Page(String::new()));
    }
    let Some(rest) = path.strip_prefix("/to/") else { return Ok(Route::Any) };
    let (slug, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let target = if path.is_empty() { format!("/{query}") } else { format!("{path}{query}") };
    let index = find_by_segment(providers, slug);
    index.map(|index| Route::Provider(index, target)).ok_or_else(|| unknown(providers))
}

/// The providers that may serve a request for `path` and `model`, in the order of their priority:
/// those of the first route whose pattern matches the model, else the enabled ones in file order,
/// those whose type fits the path first.
pub fn candidates(
    config: &Config,
    path: &str,
    model: Option<&str>,
) -> Result<Vec<Candidate>, Refusal> {
    let is_enabled = |index: usize| config.providers[index].enabled;
    let matching = model
        .and_then(|model| config.model_routes.iter().find(|route| matches(&route.pattern, model)));
    let routed: Vec<_> = matching
        .into_iter()
        .flat_map(|route| &route.candidates)
        .filter(|candidate| is_enabled(candidate.provider))
        .map(|candidate| Candidate {
            provider: candidate.provider,
            model: candidate.model.clone(),
            priority: candidate.priority,
            is_foreign: false,
        })
        .collect();
    if !routed.is_empty() {
        return Ok(routed);
    }
    let by_type = by_type(&config.providers, path);
    if by_type.is_empty() { Err(unknown(&config.providers)) } else { Ok(by_type) }
}

fn by_type(providers: &[Provider], path: &str) -> Vec<Candidate> {
    let kind = kind_of_path(path);
    let enabled = providers.iter().enumerate().filter(|(_, provider)| provider.enabled);
    let mut all: Vec<_> = enabled
        .map(|(index, provider)| {
            let fits = kind.is_none_or(|kind| provider.kind == kind);
            Candidate {
                provider: index,
                model: None,
                priority: i64::from(!fits),
                is_foreign: !fits && provider.kind != ProviderKind::Generic,
            }
        })
        .collect();
    // A stable sort: file order stays.
    all.sort_by_key(|one| one.priority);
    all
}

/// Whether `pattern`, in which `*` stands for any run of characters, matches all of `text`.
pub fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(start) else { return false };
    let mut pieces: Vec<_> = rest.split('*').collect();
    let end = pieces.pop().unwrap_or_default();
    for piece in pieces {
        // The first place is as good as any later one, since a `*` follows.
        let Some((_, after)) = left.split_once(piece) else { return false };
        left = after;
    }
    left.ends_with(end)
}

/// The routing table in words, a line each: what is asked for, and who serves it in which order.
pub fn explain(config: &Config) -> Vec<String> {
    const PATHS: [(&str, &str); 3] = [
        ("/v1/messages", "/v1/messages"),
        ("/v1/chat/completions", "/v1/chat/completions, responses, embeddings, models"),
        ("/", "any other path"),
    ];
    let mut rows: Vec<(String, String)> = Vec::new();
    for route in &config.model_routes {
        // No model of this name is needed: the pattern's own candidates are asked for.
        let own = Config { model_routes: vec![route.clone()], ..config.clone() };
        let served = match candidates(&own, "/", Some(&route.pattern)) {
            Ok(served)
                if route.candidates.iter().any(|one| config.providers[one.provider].enabled) =>
            {
                in_words(config, &served)
            }
            _ => "as without it, since none of its providers is enabled".to_owned(),
        };
        rows.push((format!("model '{}'", route.pattern), served));
    }
    for (path, shown) in PATHS {
        let served = candidates(config, path, None);
        let served =
            served.map_or_else(|_| "nobody".to_owned(), |served| in_words(config, &served));
        rows.push((shown.to_owned(), served));
    }
    for provider in config.providers.iter().filter(|provider| provider.enabled) {
        rows.push((format!("/to/{}/…", provider.slug), format!("{} alone", provider.name)));
    }
    let width = rows.iter().map(|(what, _)| what.chars().count()).max().unwrap_or(0);
    rows.iter().map(|(what, served)| format!("{what:width$}  {served}")).collect()
}

/// `A, then B (as other-name)`; `A or B` where the strategy chooses between equals.
fn in_words(config: &Config, candidates: &[Candidate]) -> String {
    let mut words = String::new();
    for (index, one) in candidates.iter().enumerate() {
        let is_equal = index > 0 && candidates[index - 1].priority == one.priority;
        let shares = config.settings.selection_strategy != SelectionStrategy::Priority;
        words.push_str(match index {
            0 => "",
            _ if is_equal && shares => " or ",
            _ => ", then ",
        });
        words.push_str(&config.providers[one.provider].name);
        if let Some(model) = &one.model {
            words.extend([" (as ", model, ")"]);
        }
    }
    words
}

/// The kind of provider whose API has `path`.
pub fn kind_of_path(path: &str) -> Option<ProviderKind> {
    const OPENAI: [&str; 4] =
        ["/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/models"];
    let within = |root: &str| {
        path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if within("/v1/messages") {
        return Some(ProviderKind::Anthropic);
    }
    OPENAI.into_iter().any(within).then_some(ProviderKind::OpenAi)
}

fn unknown(providers: &[Provider]) -> Refusal {
    let slugs: Vec<_> =
        providers.iter().filter(|one| one.enabled).map(|one| one.slug.as_str()).collect();
    let message = if slugs.is_empty() {
        "No provider is enabled in providers.yaml".to_owned()
    } else {
        format!("No such provider, or it is disabled; there are: {}", slugs.join(", "))
    };
    Refusal::new(Code::UnknownProvider, message)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::resolve::{Sources, resolve};

    /// A configuration from its text.
    pub(crate) fn config(text: &str) -> Config {
        let sources = Sources {
            environment: &|_| None,
            files: &|_| Err(std::io::ErrorKind::NotFound.into()),
            file_mode: None,
            is_root: true,
        };
        resolve(text, "f", &sources).unwrap_or_else(|problems| panic!("{problems:?}")).0
    }

    /// Providers of these names and types; a name in capitals is disabled.
    fn with(providers: &[(&str, &str)], routes: &str) -> Config {
        let providers: String = providers
            .iter()
            .map(|(name, kind)| {
                let enabled = name.to_lowercase() == *name;
                format!(
                    "  - {{name: {name}, type: {kind}, base_url: 'http://x', auth_type: none, enabled: {enabled}}}\n"
                )
            })
            .collect();
        config(&format!("{routes}providers:\n{providers}"))
    }

    /// Names and types.
    type Providers<'a> = &'a [(&'a str, &'a str)];

    const ALL: [(&str, &str); 4] =
        [("OFF", "anthropic"), ("g", "generic"), ("a", "anthropic"), ("o", "openai")];

    #[test]
    fn targets_and_where_they_go() {
        let config = with(&ALL, "");
        let cases: [(&str, Option<(usize, &str)>); 9] = [
            ("/to/a/v1/x%2F..?a=b", Some((2, "/v1/x%2F..?a=b"))),
            ("/to/a", Some((2, "/"))),
            ("/to/a/", Some((2, "/"))),
            ("/to/a?x", Some((2, "/?x"))),
            ("/to/a//v1", Some((2, "//v1"))),
            ("/to/off/v1", None),
            ("/to/none/v1", None),
            ("/to/", None),
            ("/to//x", None),
        ];
        for (target, expected) in cases {
            let routed = route(target, &config.providers).ok();
            let expected = expected.map(|(index, target)| Route::Provider(index, target.into()));
            assert_eq!(routed, expected, "{target}");
        }
        let text =
            "providers: [{name: 官方, type: generic, base_url: 'http://x', auth_type: none}]";
        let config = self::config(text);
        for target in ["/to/%E5%AE%98%E6%96%B9/v1", "/to/%e5%ae%98%e6%96%B9/v1", "/to/官方/v1"] {
            let expected = Ok(Route::Provider(0, "/v1".into()));
            assert_eq!(route(target, &config.providers), expected, "{target}");
        }
        for target in ["/to/%E5%AE%98/v1", "/to/%E5%AE/v1", "/to/%E5%AE%98%E6%96%B9%2Fv1"] {
            assert!(route(target, &config.providers).is_err(), "{target}");
        }
        let page = |target| route(target, &config.providers);
        assert_eq!(page("/-/status?x"), Ok(Route::Page("status".into())));
        assert_eq!(page("/-"), Ok(Route::Page(String::new())));
        assert_eq!(page("/anything?q=/to/a/"), Ok(Route::Any));
    }

    /// The names of the candidates, with the model where it is renamed.
    fn names(config: &Config, path: &str, model: Option<&str>) -> Vec<String> {
        let candidates = candidates(config, path, model).unwrap_or_default();
        let name = |one: &Candidate| {
            let name = &config.providers[one.provider].name;
            let foreign = if one.is_foreign { " (foreign)" } else { "" };
            let model = one.model.as_ref().map(|model| format!(" as {model}"));
            format!("{name}{}{foreign}", model.unwrap_or_default())
        };
        candidates.iter().map(name).collect()
    }

    #[test]
    fn candidates_by_type() {
        let more = [ALL.as_slice(), &[("b", "anthropic"), ("h", "generic")]].concat();
        let cases: [(Providers<'_>, &str, &[&str]); 11] = [
            (&ALL, "/v1/messages", &["a", "g", "o (foreign)"]),
            (&ALL, "/v1/messages/count_tokens", &["a", "g", "o (foreign)"]),
            (&ALL, "/v1/messagesx", &["g", "a", "o"]),
            (&ALL, "/v1/chat/completions", &["o", "g", "a (foreign)"]),
            (&ALL, "/v1/responses/r1", &["o", "g", "a (foreign)"]),
            (&ALL, "/v1/models", &["o", "g", "a (foreign)"]),
            (&ALL, "/v1/embeddings", &["o", "g", "a (foreign)"]),
            (&more, "/v1/messages", &["a", "b", "g", "o (foreign)", "h"]),
            (&more, "/other", &["g", "a", "o", "b", "h"]),
            (&[("o", "openai"), ("a", "anthropic")], "/other", &["o", "a"]),
            (&[("o", "openai")], "/v1/messages", &["o (foreign)"]),
        ];
        for (providers, path, expected) in cases {
            assert_eq!(names(&with(providers, ""), path, Some("m")), expected, "{path}");
        }
        let none = with(&ALL[..1], "");
        assert_eq!(candidates(&none, "/v1", None).unwrap_err().code, Code::UnknownProvider);
    }

    #[test]
    fn candidates_by_model() {
        let routes = "model_routes:
  'claude-*-haiku*': [{provider: o, model: small, priority: 2}, {provider: a, model: passthrough, priority: 1}]
  '*': [{provider: OFF}, {provider: g}]
";
        let config = with(&ALL, routes);
        let cases: [(Option<&str>, &[&str]); 5] = [
            (Some("claude-3-haiku-1"), &["a", "o as small"]),
            (Some("claude--haiku"), &["a", "o as small"]),
            (Some("claude-haiku"), &["g"]),
            (Some("gpt"), &["g"]),
            (None, &["a", "g", "o (foreign)"]),
        ];
        for (model, expected) in cases {
            assert_eq!(names(&config, "/v1/messages", model), expected, "{model:?}");
        }
        let only_off = with(&ALL, "model_routes: {'*': [{provider: OFF}]}\n");
        assert_eq!(names(&only_off, "/v1/messages", Some("m")), ["a", "g", "o (foreign)"]);
    }

    #[test]
    fn the_table_in_words() {
        let routes = "settings: {selection_strategy: random}
model_routes:
  '*haiku*': [{provider: a, priority: 1}, {provider: o, model: small, priority: 2}, {provider: g, priority: 2}]
  'x': [{provider: OFF}]
";
        let explained = explain(&with(&ALL, routes));
        let expected = [
            "model '*haiku*'                                     a, then o (as small) or g",
            "model 'x'                                           as without it, since none of its providers is enabled",
            "/v1/messages                                        a, then g or o",
            "/v1/chat/completions, responses, embeddings, models  o, then g or a",
            "any other path                                      g or a or o",
            "/to/g/…                                             g alone",
            "/to/a/…                                             a alone",
            "/to/o/…                                             o alone",
        ];
        let squeezed = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let explained: Vec<_> = explained.iter().map(|line| squeezed(line)).collect();
        assert_eq!(explained, expected.map(squeezed));
    }

    #[test]
    fn patterns() {
        let cases = [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("*", "anything", true),
            ("a*", "a", true),
            ("*a", "ba", true),
            ("*a", "ab", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*sonnet*", "claude-sonnet-4-5", true),
            ("*Sonnet*", "claude-sonnet-4-5", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("**", "x", true),
            ("", "", true),
            ("", "x", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
