//! Lists of models as values: read from providers' answers, merged, and written in an API's shape. Pure.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::config::ProviderKind;
use crate::http::inflate;
use crate::http::message::Headers;

/// The largest list of one provider, inflated, for each answer and for all of them together.
pub(super) const LIST_MAX_BYTES: usize = 4 * 1024 * 1024;
/// The most models that Anthropic's API lists in one answer.
pub(super) const PAGE_MAX_MODELS: usize = 1000;

/// A model in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Model {
    /// Its name.
    id: String,
    /// Its whole entry as JSON, because a foreign tree of values is not passed around.
    entry: String,
}

/// One answer of a provider.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ListPage {
    /// Its models.
    pub(super) models: Vec<Model>,
    /// The model after which the next page begins; None on the last page.
    pub(super) next_after: Option<String>,
}

/// The problem with an answer that should be a list, in words that continue after the provider's name.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoList {
    /// Its status is not 200.
    #[error("it answered {0}")]
    Status(u16),
    /// It is too long.
    #[error("its answer is too long")]
    AnswerTooLong,
    /// It was cut.
    #[error("its answer broke off, or took too long")]
    CutOff,
    /// The list is too long, inflated or over all pages.
    #[error("its list is over {LIST_MAX_BYTES} bytes")]
    ListTooLong,
    /// It is not JSON.
    #[error("its answer is not JSON ({0})")]
    NoJson(serde_json::Error),
    /// It is JSON without a list of models.
    #[error("its answer holds no list of models")]
    NoModels,
}

/// Reads an answer with a list. Nested values take much of the stack.
pub(super) fn read(headers: &Headers, body: &[u8]) -> Result<ListPage, NoList> {
    let plain = inflate::plain(headers, body, LIST_MAX_BYTES);
    if plain.is_over {
        return Err(NoList::ListTooLong);
    }
    let answer: Value = serde_json::from_slice(&plain.bytes).map_err(NoList::NoJson)?;
    // Some providers send the bare array.
    let models = answer.as_array().or_else(|| answer["data"].as_array()).ok_or(NoList::NoModels)?;
    let models: Vec<_> = models.iter().filter_map(Model::of).collect();
    let last_id = answer["last_id"].as_str();
    let last = last_id.or_else(|| models.last().map(|model| model.id.as_str()));
    let next_after = last.filter(|_| answer["has_more"] == true).map(str::to_owned);
    Ok(ListPage { models, next_after })
}

impl Model {
    /// The model's name.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The model's size.
    pub(super) fn bytes(&self) -> usize {
        self.id.len() + self.entry.len()
    }

    /// The model in an entry of a list; None if it has no name.
    fn of(entry: &Value) -> Option<Self> {
        let id = entry["id"].as_str().filter(|id| !id.is_empty())?;
        Some(Self { id: id.to_owned(), entry: entry.to_string() })
    }

    /// A model of which only the name is known.
    fn named(name: &str, kind: ProviderKind) -> Self {
        let entry = match kind {
            // For an unknown day, Anthropic's documentation shows the first one there is.
            ProviderKind::Anthropic => json!({
                "type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z",
            }),
            ProviderKind::OpenAi | ProviderKind::Generic => json!({
                "object": "model", "id": name, "created": 0, "owned_by": "evertoken",
            }),
        };
        Self { id: name.to_owned(), entry: entry.to_string() }
    }
}

/// All models in `lists`, and `names` that routes serve, each once; the first of several counts.
pub(super) fn merged(lists: Vec<Vec<Model>>, names: &[String], kind: ProviderKind) -> Vec<Model> {
    let mut known = HashSet::new();
    let own = names.iter().map(|name| Model::named(name, kind));
    let mut all: Vec<_> = lists.into_iter().flatten().chain(own).collect();
    all.retain(|model| known.insert(model.id.clone()));
    all
}

/// The part of the list that a client asks for; Anthropic's API has pages, the other has none.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Paging {
    limit: Option<usize>,
    after: Option<String>,
    before: Option<String>,
}

/// The parameters of [`Paging`].
const PAGING: [&str; 3] = ["limit", "after_id", "before_id"];

impl Paging {
    /// Reads it from a query without its `?`.
    pub(super) fn of(query: &str) -> Self {
        let mut paging = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "limit" => {
                    let limit = value.parse::<usize>().ok();
                    paging.limit = limit.map(|limit| limit.clamp(1, PAGE_MAX_MODELS));
                }
                "after_id" => paging.after = Some(value.into_owned()),
                "before_id" => paging.before = Some(value.into_owned()),
                _ => {}
            }
        }
        paging
    }
}

/// The query for a provider: the client's `query` without its paging, and the page after `after`.
pub(super) fn query(kind: ProviderKind, query: &str, after: Option<&str>) -> String {
    if kind != ProviderKind::Anthropic {
        return query.to_owned();
    }
    let mut asked = form_urlencoded::Serializer::new(String::new());
    let others = form_urlencoded::parse(query.as_bytes());
    asked.extend_pairs(others.filter(|(name, _)| !PAGING.contains(&&**name)));
    asked.append_pair("limit", &PAGE_MAX_MODELS.to_string());
    if let Some(after) = after {
        asked.append_pair("after_id", after);
    }
    asked.finish()
}

/// The part of `models` that `paging` asks for, in the API's shape; None if it begins at an unknown model.
pub(super) fn written(kind: ProviderKind, models: &[Model], paging: &Paging) -> Option<String> {
    if kind != ProviderKind::Anthropic {
        return Some(format!("{{\"object\":\"list\",\"data\":{}}}", array(models)));
    }
    let place = |wanted: &String| models.iter().position(|model| model.id == *wanted);
    let limit = paging.limit.unwrap_or(models.len());
    let (from, to, has_more) = match (&paging.after, &paging.before) {
        (Some(after), _) => {
            let from = place(after)? + 1;
            let to = models.len().min(from + limit);
            (from, to, to < models.len())
        }
        (None, Some(before)) => {
            let to = place(before)?;
            let from = to.saturating_sub(limit);
            (from, to, from > 0)
        }
        (None, None) => {
            let to = models.len().min(limit);
            (0, to, to < models.len())
        }
    };
    let shown = &models[from..to];
    let id = |model: Option<&Model>| json!(model.map(|model| &model.id));
    Some(format!(
        "{{\"data\":{},\"has_more\":{has_more},\"first_id\":{},\"last_id\":{}}}",
        array(shown),
        id(shown.first()),
        id(shown.last())
    ))
}

fn array(models: &[Model]) -> String {
    let entries: Vec<_> = models.iter().map(|model| model.entry.as_str()).collect();
    format!("[{}]", entries.join(","))
}

#[cfg(test)]
mod tests {
    use super::ProviderKind::{Anthropic, OpenAi};
    use super::*;
    use crate::http::inflate::tests::gzip;

    fn models(ids: &[&str]) -> Vec<Model> {
        ids.iter().filter_map(|id| Model::of(&json!({ "id": id, "own": 1 }))).collect()
    }

    fn ids(models: &[Model]) -> Vec<&str> {
        models.iter().map(|model| model.id.as_str()).collect()
    }

    /// The list that a client reads.
    fn page(kind: ProviderKind, models: &[Model], query: &str) -> Option<Value> {
        let written = written(kind, models, &Paging::of(query))?;
        Some(serde_json::from_str(&written).expect("JSON"))
    }

    fn ids_of(page: &Value) -> Vec<&str> {
        page["data"].as_array().unwrap().iter().filter_map(|model| model["id"].as_str()).collect()
    }

    #[test]
    fn answers_and_what_they_list() {
        let read = |body: &str| {
            let page = read(&Headers::new(), body.as_bytes());
            page.map(|page| (ids(&page.models).join(" "), page.next_after))
        };
        let cases = [
            (r#"{"object":"list","data":[{"id":"a"},{"id":"b"}]}"#, "a b", None),
            (r#"{"data":[{"id":"a"}],"has_more":true,"last_id":"a"}"#, "a", Some("a")),
            (r#"{"data":[{"id":"a"}],"has_more":true}"#, "a", Some("a")),
            (r#"{"data":[{"id":"a"}],"has_more":false,"last_id":"a"}"#, "a", None),
            (r#"{"data":[],"has_more":true,"last_id":null}"#, "", None),
            (r#"[{"id":"a"}]"#, "a", None),
            (r#"{"data":[{"id":7},{"name":"x"},"y",{"id":""},{"id":"a"}]}"#, "a", None),
        ];
        for (body, expected, next) in cases {
            let list = (expected.to_owned(), next.map(str::to_owned));
            assert_eq!(read(body).ok(), Some(list), "{body}");
        }
        for body in ["", "<html>", "{}", r#"{"data":7}"#, r#"{"data":{}}"#, "null", "\"x\""] {
            assert!(read(body).is_err(), "{body}");
        }
        let packed = gzip(br#"{"data":[{"id":"a"}]}"#);
        assert_eq!(ids(&super::read(&Headers::new(), &packed).unwrap().models), ["a"]);
    }

    #[test]
    fn a_list_is_bounded_however_it_is_packed() {
        let of = |bytes: usize| format!("[{}]", " ".repeat(bytes - 2)).into_bytes();
        for (bytes, is_read) in [(LIST_MAX_BYTES, true), (LIST_MAX_BYTES + 1, false)] {
            for body in [of(bytes), gzip(&of(bytes))] {
                assert_eq!(read(&Headers::new(), &body).is_ok(), is_read, "{bytes}");
            }
        }
    }

    #[test]
    fn each_model_is_there_once_and_names_of_routes_come_last() {
        let names = ["b".to_owned(), "alias".to_owned()];
        let lists = vec![models(&["a", "b"]), models(&["b", "c", "a"])];
        for (kind, own) in [(Anthropic, "display_name"), (OpenAi, "owned_by")] {
            let all = merged(lists.clone(), &names, kind);
            assert_eq!(ids(&all), ["a", "b", "c", "alias"]);
            assert!(all[1].entry.contains("\"own\":1"), "the provider's entry");
            assert!(all[3].entry.contains(own));
        }
    }

    #[test]
    fn pages_of_a_merged_list() {
        let all = models(&["a", "b", "c", "d"]);
        let cases = [
            ("", "a b c d", false),
            ("limit=2", "a b", true),
            ("limit=4", "a b c d", false),
            ("limit=0", "a", true),
            ("limit=x", "a b c d", false),
            ("limit=99999999999999999999999", "a b c d", false),
            ("after_id=b", "c d", false),
            ("after_id=a&limit=2", "b c", true),
            ("after_id=d", "", false),
            ("before_id=d&limit=2", "b c", true),
            ("before_id=c&limit=9", "a b", false),
        ];
        for (query, expected, has_more) in cases {
            let page = page(Anthropic, &all, query).unwrap();
            let shown = ids_of(&page);
            assert_eq!((shown.join(" ").as_str(), &page["has_more"]), (expected, &has_more.into()));
            assert_eq!(page["first_id"].as_str(), shown.first().copied(), "{query}");
            assert_eq!(page["last_id"].as_str(), shown.last().copied(), "{query}");
        }
        assert_eq!(page(Anthropic, &all, "after_id=none"), None);
        assert_eq!(page(Anthropic, &all, "before_id=none"), None);
        let odd = [Model::named("a \"b\"", Anthropic)];
        assert_eq!(page(Anthropic, &odd, "").unwrap()["last_id"], "a \"b\"");
        assert_eq!(page(Anthropic, &[], "").unwrap()["first_id"], Value::Null);
        let whole = page(OpenAi, &all, "limit=1&after_id=none").unwrap();
        assert_eq!((&whole["object"], ids_of(&whole).len()), (&json!("list"), 4));
    }

    #[test]
    fn what_a_provider_is_asked_with() {
        for (kind, asked, after, expected) in [
            (OpenAi, "limit=3&x=%20y", None, "limit=3&x=%20y"),
            (Anthropic, "", None, "limit=1000"),
            (Anthropic, "limit=2&beta=true&after_id=q", None, "beta=true&limit=1000"),
            (Anthropic, "before_id=q", Some("a b"), "limit=1000&after_id=a+b"),
        ] {
            assert_eq!(query(kind, asked, after), expected);
        }
    }
}
