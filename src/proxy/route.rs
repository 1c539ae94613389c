//! From a request's target to a provider, one of our own pages, or a refusal.

use crate::config::{Provider, ProviderKind};
use crate::refusal::{Code, Refusal};

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// To the provider of this index, with this target (path and query, starting with `/`).
    Provider(usize, String),
    /// To one of our own pages: what follows `/-/`, without the query.
    Page(String),
}

/// Routes `target`, which starts with `/`.
pub fn route(target: &str, providers: &[Provider]) -> Result<Route, Refusal> {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    if let Some(page) = path.strip_prefix("/-/") {
        return Ok(Route::Page(page.to_owned()));
    }
    if path == "/-" {
        return Ok(Route::Page(String::new()));
    }
    if let Some(rest) = path.strip_prefix("/to/") {
        let (slug, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let path = if path.is_empty() { "/" } else { path };
        let target = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
        let index = providers.iter().position(|provider| provider.slug == slug && provider.enabled);
        return index.map(|index| Route::Provider(index, target)).ok_or_else(|| unknown(providers));
    }
    let enabled = || providers.iter().enumerate().filter(|(_, provider)| provider.enabled);
    let fitting =
        kind_of(path).and_then(|kind| enabled().find(|(_, provider)| provider.kind == kind));
    let (index, _) = fitting.or_else(|| enabled().next()).ok_or_else(|| unknown(providers))?;
    Ok(Route::Provider(index, target.to_owned()))
}

/// The kind of provider whose API has `path`.
pub fn kind_of(path: &str) -> Option<ProviderKind> {
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
mod tests {
    use super::*;
    use crate::config::{AuthType, Credential, Egress};

    fn provider(name: &str, kind: ProviderKind, enabled: bool) -> Provider {
        Provider {
            name: name.into(),
            slug: name.into(),
            kind,
            base_url: "http://x".into(),
            enabled,
            auth_type: AuthType::None,
            credential: Credential::None,
            headers: Vec::new(),
            egress: Egress::default(),
        }
    }

    #[test]
    fn targets_and_where_they_go() {
        use ProviderKind::{Anthropic, Generic, OpenAi};
        let providers = [
            provider("off", Anthropic, false),
            provider("g", Generic, true),
            provider("a", Anthropic, true),
            provider("o", OpenAi, true),
        ];
        let cases: [(&str, Option<(usize, &str)>); 16] = [
            ("/v1/messages", Some((2, "/v1/messages"))),
            (
                "/v1/messages/count_tokens?beta=true",
                Some((2, "/v1/messages/count_tokens?beta=true")),
            ),
            ("/v1/messagesx", Some((1, "/v1/messagesx"))),
            ("/v1/chat/completions", Some((3, "/v1/chat/completions"))),
            ("/v1/responses/r1", Some((3, "/v1/responses/r1"))),
            ("/v1/models", Some((3, "/v1/models"))),
            ("/anything?q=/to/a/", Some((1, "/anything?q=/to/a/"))),
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
            let routed = route(target, &providers).ok();
            let expected = expected.map(|(index, target)| Route::Provider(index, target.into()));
            assert_eq!(routed, expected, "{target}");
        }
        assert_eq!(route("/-/status?x", &providers), Ok(Route::Page("status".into())));
        assert_eq!(route("/-", &providers), Ok(Route::Page(String::new())));
        assert_eq!(route("/v1", &providers[..1]).unwrap_err().code, Code::UnknownProvider);
    }
}
