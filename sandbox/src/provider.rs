//! The APIs' answers: Anthropic Messages, `OpenAI` Responses, Chat Completions and Embeddings, as JSON and as events.

use serde_json::{Value, json};

mod cache;
mod completions;
mod embeddings;
mod messages;
mod responses;

pub use cache::PromptCache;
use cache::{Prompt, UNMARKED_MIN_TOKENS, has_mark};

/// The creation time of everything here.
const CREATED: u64 = 1_767_225_600; // 2026-01-01T00:00:00Z

/// The reply to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A JSON body.
    Json(u16, Value),
    /// Server-sent events, each ready to be written.
    Events(Vec<String>),
}

/// True for Anthropic's shape of errors.
fn is_anthropic(path: &str) -> bool {
    path.starts_with("/v1/messages")
}

/// An error in the shape of `path`.
fn refusal(path: &str, status: u16, kind: &str, code: &str, message: &str) -> Reply {
    let body = if is_anthropic(path) {
        json!({"type": "error", "error": {"type": kind, "message": message}})
    } else {
        json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
    };
    Reply::Json(status, body)
}

/// The answer to a request without a valid token.
pub fn unauthorized(path: &str) -> Reply {
    let kind = if is_anthropic(path) { "authentication_error" } else { "invalid_request_error" };
    let message = "OAuth access token is missing, expired or revoked";
    refusal(path, 401, kind, "invalid_api_key", message)
}

/// The answer to a request for another protocol, after which clients fall back to HTTP.
pub fn no_websocket(path: &str) -> Reply {
    refusal(path, 426, "invalid_request_error", "websocket_off", "There is no WebSocket here")
}

/// The answer to a request with a valid token, of an account with this `cache`.
pub fn answer(method: &str, path: &str, body: &[u8], cache: &mut PromptCache) -> Reply {
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let streams = request["stream"].as_bool().unwrap_or(false);
    let model = request["model"].as_str().unwrap_or("sandbox-1");
    let mut prompt = |fields: &[&str], is_cached: bool| cache.take(&request, fields, is_cached);
    let is_long = |fields: &[&str]| tokens_of(&request, fields) >= UNMARKED_MIN_TOKENS;
    match (method, path) {
        ("POST", "/v1/messages") => {
            let prompt = prompt(&messages::INPUT, has_mark(&request));
            if streams {
                Reply::Events(messages::events(model, &request, prompt))
            } else {
                Reply::Json(200, messages::whole(model, &request, prompt))
            }
        }
        ("POST", "/v1/messages/count_tokens") => {
            Reply::Json(200, json!({"input_tokens": tokens_of(&request, &messages::INPUT)}))
        }
        ("POST", "/v1/responses") => {
            let prompt = prompt(&responses::INPUT, is_long(&responses::INPUT));
            if streams {
                Reply::Events(responses::events(model, &request, prompt))
            } else {
                Reply::Json(200, responses::whole(model, &request, prompt))
            }
        }
        ("POST", "/v1/responses/input_tokens") => Reply::Json(
            200,
            json!({"object": "response.input_tokens",
                   "input_tokens": tokens_of(&request, &responses::INPUT)}),
        ),
        ("POST", "/v1/chat/completions") => {
            let prompt = prompt(&completions::INPUT, is_long(&completions::INPUT));
            if streams {
                Reply::Events(completions::events(model, &request, prompt))
            } else {
                Reply::Json(200, completions::whole(model, &request, prompt))
            }
        }
        ("POST", "/v1/embeddings") => match embeddings::whole(model, &request) {
            Ok(list) => Reply::Json(200, list),
            Err(why) => refusal(path, 400, "invalid_request_error", "invalid_value", why),
        },
        ("GET", "/v1/models") => Reply::Json(
            200,
            json!({
                "object": "list", "has_more": false, "first_id": "sandbox-1", "last_id": "sandbox-1",
                "data": [{"id": "sandbox-1", "object": "model", "type": "model",
                          "display_name": "Sandbox 1", "created": CREATED,
                          "created_at": "2026-01-01T00:00:00Z", "owned_by": "sandbox"}],
            }),
        ),
        _ => refusal(path, 404, "not_found_error", "not_found", "no such path"),
    }
}

/// The user's last text, echoed.
fn echo(said: &Value) -> String {
    let user = said.as_array().and_then(|all| {
        let mut from_end = all.iter().rev();
        from_end.find(|one| one["role"] == "user").or_else(|| all.last())
    });
    format!("You said: {}", last_text(user.unwrap_or(said)).unwrap_or("nothing"))
}

/// The last text in `value`: a text itself, or that of the last block with one in a list. Programs put the person's
/// text last, after their own reminders.
fn last_text(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        Value::Array(blocks) => blocks.iter().rev().find_map(last_text),
        Value::Object(_) => {
            // `content` of a message or a tool's result, `output` of a function call.
            ["text", "content", "output"].iter().find_map(|name| last_text(&value[name]))
        }
        _ => None,
    }
}

/// The number of tokens in these fields of a request.
fn tokens_of(request: &Value, fields: &[&str]) -> usize {
    fields.iter().map(|field| tokens(&request[*field])).sum()
}

/// The number of tokens in a text, or in all texts in a value: each word counts as one.
fn tokens(value: &Value) -> usize {
    match value {
        Value::String(text) => text.split_whitespace().count(),
        Value::Array(all) => all.iter().map(tokens).sum(),
        Value::Object(all) => {
            let texts = all
                .iter()
                .filter(|(name, _)| !matches!(name.as_str(), "role" | "type" | "cache_control"));
            texts.map(|(_, value)| tokens(value)).sum()
        }
        _ => 0,
    }
}

/// The text in pieces of one word each.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(' ')
}

/// An event whose name is its type.
fn event(data: &Value) -> String {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(method: &str, path: &str, body: &[u8]) -> Reply {
        super::answer(method, path, body, &mut PromptCache::default())
    }

    fn events(path: &str) -> Vec<String> {
        let body = br#"{"model":"m","stream":true,"messages":[{"role":"user","content":"a b"}]}"#;
        match answer("POST", path, body) {
            Reply::Events(events) => events,
            Reply::Json(..) => panic!("no stream"),
        }
    }

    #[test]
    fn anthropic_events_in_their_order() {
        let events = events("/v1/messages");
        let names: Vec<_> = events.iter().map(|one| one.lines().next().unwrap()).collect();
        assert_eq!(
            names[..3],
            ["event: message_start", "event: content_block_start", "event: ping"]
        );
        assert_eq!(names.last(), Some(&"event: message_stop"));
        let deltas = names.iter().filter(|name| name.ends_with("content_block_delta")).count();
        assert_eq!(deltas, "You said: a b".split(' ').count());
    }

    #[test]
    fn openai_events_end_with_done() {
        let events = events("/v1/chat/completions");
        assert!(events.iter().all(|event| event.starts_with("data: ") && event.ends_with("\n\n")));
        assert_eq!(events.last().unwrap(), "data: [DONE]\n\n");
    }

    #[test]
    fn responses_events_in_their_order_and_numbered() {
        let body = br#"{"model":"m","stream":true,"input":[
            {"role":"user","content":[{"type":"input_text","text":"before"}]},
            {"role":"assistant","content":[{"type":"output_text","text":"You said: before"}]},
            {"type":"message","role":"user","content":[{"type":"input_text","text":"long reminder"},
                                                       {"type":"input_text","text":"a b"}]}]}"#;
        let Reply::Events(events) = answer("POST", "/v1/responses", body) else { panic!() };
        let mut names = Vec::new();
        for (number, event) in events.iter().enumerate() {
            let (name, data) = event.split_once('\n').unwrap();
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
            assert_eq!(data["sequence_number"], number);
            names.push(data["type"].as_str().unwrap().to_owned());
        }
        names.dedup();
        assert_eq!(
            names,
            [
                "response.created",
                "response.in_progress",
                "response.output_item.added",
                "response.content_part.added",
                "response.output_text.delta",
                "response.output_text.done",
                "response.content_part.done",
                "response.output_item.done",
                "response.completed",
            ]
        );
        assert!(events.last().unwrap().contains(r#""text":"You said: a b""#));
    }

    #[test]
    fn the_last_text_of_the_last_user_is_said_back() {
        let cases = [
            (r#""hi""#, "hi"),
            (r#"[{"role":"user","content":"hi"}]"#, "hi"),
            (r#"[{"role":"user","content":"first"},{"role":"assistant","content":"x"}]"#, "first"),
            (
                r#"[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"},
                 {"type":"image","source":{}}]}]"#,
                "b",
            ),
            (
                r#"[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t",
                 "content":[{"type":"text","text":"found"}]}]}]"#,
                "found",
            ),
            (r#"[{"type":"function_call_output","call_id":"c","output":"done"}]"#, "done"),
            ("[]", "nothing"),
            ("null", "nothing"),
        ];
        for (said, expected) in cases {
            let said = serde_json::from_str(said).unwrap();
            assert_eq!(echo(&said), format!("You said: {expected}"), "{said}");
        }
    }

    #[test]
    fn tokens_are_the_words_of_all_texts() {
        let body =
            br#"{"model":"m","system":"be kind","messages":[{"role":"user","content":"a b c"}]}"#;
        let Reply::Json(200, count) = answer("POST", "/v1/messages/count_tokens", body) else {
            panic!()
        };
        assert_eq!(count, json!({"input_tokens": 5}));
    }

    #[test]
    fn json_and_errors() {
        let body = br#"{"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}]}"#;
        let Reply::Json(200, message) = answer("POST", "/v1/messages", body) else { panic!() };
        assert_eq!(message["content"][0]["text"], "You said: hi");
        let Reply::Json(401, error) = unauthorized("/v1/messages") else { panic!() };
        assert_eq!(error["type"], "error");
        let Reply::Json(401, error) = unauthorized("/v1/models") else { panic!() };
        assert_eq!(error["error"]["code"], "invalid_api_key");
        assert!(matches!(answer("GET", "/nowhere", b""), Reply::Json(404, _)));
    }

    /// `cached` tokens in the usage of each API's answer, whole and as events.
    #[test]
    fn usage_tells_what_came_from_the_cache() {
        let (long, short) = ("word ".repeat(UNMARKED_MIN_TOKENS), "word".to_owned());
        let message = |text: &str, more: &str| {
            format!(r#"{{"role":"user","content":[{{"type":"text","text":"{text}"{more}}}]}}"#)
        };
        let mark = r#","cache_control":{"type":"ephemeral"}"#;
        let cases = [
            ("/v1/messages", "messages", message(&short, mark), "cache_read_input_tokens", 1),
            ("/v1/messages", "messages", message(&long, ""), "cache_read_input_tokens", 0),
            ("/v1/responses", "input", message(&long, ""), "cached_tokens", 1024),
            ("/v1/responses", "input", message(&short, ""), "cached_tokens", 0),
            ("/v1/chat/completions", "messages", message(&long, ""), "cached_tokens", 1024),
        ];
        for (path, field, text, name, expected) in cases {
            let mut cache = PromptCache::default();
            let mut ask = |more: &str| {
                let body = format!(
                    r#"{{"{field}":[{text}],"stream":{more},"stream_options":{{"include_usage":true}}}}"#
                );
                match super::answer("POST", path, body.as_bytes(), &mut cache) {
                    Reply::Json(_, value) => value.to_string(),
                    Reply::Events(events) => events.concat(),
                }
            };
            assert!(ask("false").contains(&format!("\"{name}\":0")), "{path}");
            for streams in ["false", "true"] {
                let told = ask(streams);
                assert!(told.contains(&format!("\"{name}\":{expected}")), "{path}: {told:.2000}");
            }
        }
    }
}
