//! The prompt cache of an account: which beginnings of prompts it has seen. Pure.
//!
//! As at the real providers, a prompt is cached as a whole and found again by its longest beginning that was seen before:
//! Anthropic's where a `cache_control` asks for it, `OpenAI`'s from 1,024 tokens on. Nothing is ever dropped.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

use super::tokens;

/// The shortest prompt that is cached without a mark.
pub(super) const UNMARKED_MIN_TOKENS: usize = 1024;

/// The prompt cache of one account.
#[derive(Debug, Default)]
pub struct PromptCache {
    /// Hashes of beginnings, each of one part more.
    seen: HashSet<u64>,
}

/// The tokens of a prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Prompt {
    /// All of them.
    pub(super) tokens: usize,
    /// Those that were in the cache.
    pub(super) read: usize,
    /// Those that are in it now.
    pub(super) written: usize,
}

impl Prompt {
    /// Those that neither came from the cache nor went into it.
    pub(super) fn uncached(self) -> usize {
        self.tokens - self.read - self.written
    }
}

impl PromptCache {
    /// Takes up the prompt in these `fields` of a request, in their order, if `is_cached`.
    pub(super) fn take(&mut self, request: &Value, fields: &[&str], is_cached: bool) -> Prompt {
        let parts = fields.iter().flat_map(|field| match &request[*field] {
            Value::Array(all) => all.iter().collect::<Vec<_>>(),
            other => vec![other],
        });
        let (mut beginning, mut prompt, mut is_seen) =
            (DefaultHasher::new(), Prompt::default(), true);
        for part in parts {
            let count = tokens(part);
            prompt.tokens += count;
            if is_cached {
                text_of(part).hash(&mut beginning);
                is_seen &= !self.seen.insert(beginning.finish());
                *(if is_seen { &mut prompt.read } else { &mut prompt.written }) += count;
            }
        }
        prompt
    }
}

/// A part as text, without the marks of the cache, which move from message to message.
fn text_of(part: &Value) -> String {
    fn without_marks(value: &mut Value) {
        match value {
            Value::Array(all) => all.iter_mut().for_each(without_marks),
            Value::Object(all) => {
                all.remove("cache_control");
                all.values_mut().for_each(without_marks);
            }
            _ => {}
        }
    }
    let mut part = part.clone();
    without_marks(&mut part);
    part.to_string()
}

/// True if the request asks for the cache.
pub(super) fn has_mark(value: &Value) -> bool {
    match value {
        Value::Array(all) => all.iter().any(has_mark),
        Value::Object(all) => all.contains_key("cache_control") || all.values().any(has_mark),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_longest_known_beginning_is_read_and_the_rest_is_written() {
        let mut cache = PromptCache::default();
        let mut take = |system: &str, messages: &[&str]| {
            let messages: Vec<_> = messages
                .iter()
                .map(|text| json!({"role": "user", "content": [{"type": "text", "text": text}]}))
                .collect();
            let prompt = cache.take(
                &json!({"system": system, "messages": messages}),
                &["system", "messages"],
                true,
            );
            (prompt.tokens, prompt.read, prompt.written, prompt.uncached())
        };
        assert_eq!(take("a b", &["c"]), (3, 0, 3, 0));
        assert_eq!(take("a b", &["c", "d e"]), (5, 3, 2, 0));
        assert_eq!(take("a b", &["c", "d e"]), (5, 5, 0, 0));
        assert_eq!(take("a b", &["x", "d e"]), (5, 2, 3, 0), "another message in between");
        assert_eq!(take("x", &["c"]), (2, 0, 2, 0));
    }

    #[test]
    fn a_mark_asks_for_the_cache_and_is_no_part_of_it() {
        let marked = json!({"messages": [{"role": "user", "content": [
            {"type": "text", "text": "a b", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]}]});
        let bare =
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "a b"}]}]});
        assert!(has_mark(&marked) && !has_mark(&bare));
        let mut cache = PromptCache::default();
        assert_eq!(cache.take(&bare, &["messages"], false).uncached(), 2);
        assert_eq!(cache.take(&marked, &["messages"], true).written, 2);
        assert_eq!(cache.take(&bare, &["messages"], true).read, 2);
    }
}
