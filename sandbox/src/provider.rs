//! What the APIs answer: Anthropic Messages and `OpenAI` Chat Completions, as JSON and as events.

use serde_json::{Value, json};

/// What is sent for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A JSON body.
    Json(u16, Value),
    /// Server-sent events, each ready to be written.
    Events(Vec<String>),
}

/// Which shape errors have.
fn is_anthropic(path: &str) -> bool {
    path.starts_with("/v1/messages")
}

/// The answer to a request without a valid token.
pub fn unauthorized(path: &str) -> Reply {
    let message = "OAuth access token is missing, expired or revoked";
    let body = if is_anthropic(path) {
        json!({"type": "error", "error": {"type": "authentication_error", "message": message}})
    } else {
        json!({"error": {"message": message, "type": "invalid_request_error", "code": "invalid_api_key"}})
    };
    Reply::Json(401, body)
}

/// The answer to a request with a valid token.
pub fn answer(method: &str, path: &str, body: &[u8]) -> Reply {
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let streams = request["stream"].as_bool().unwrap_or(false);
    let model = request["model"].as_str().unwrap_or("sandbox-1");
    match (method, path) {
        ("POST", "/v1/messages") if streams => Reply::Events(messages_events(model, &request)),
        ("POST", "/v1/messages") => Reply::Json(200, message(model, &text(&request))),
        ("POST", "/v1/messages/count_tokens") => {
            Reply::Json(200, json!({"input_tokens": text(&request).split(' ').count()}))
        }
        ("POST", "/v1/chat/completions") if streams => {
            Reply::Events(completion_events(model, &request))
        }
        ("POST", "/v1/chat/completions") => Reply::Json(200, completion(model, &text(&request))),
        ("POST", "/v1/embeddings") => Reply::Json(
            200,
            json!({"object": "list", "model": model, "usage": {"prompt_tokens": 1, "total_tokens": 1},
                   "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -0.5]}]}),
        ),
        ("GET", "/v1/models") => Reply::Json(
            200,
            json!({"object": "list", "has_more": false, "data": [{"id": "sandbox-1",
                   "object": "model", "type": "model", "display_name": "Sandbox 1", "created": 0,
                   "created_at": "2026-01-01T00:00:00Z", "owned_by": "sandbox"}]}),
        ),
        _ => Reply::Json(
            404,
            json!({"error": {"message": "no such path", "type": "not_found_error"}}),
        ),
    }
}

/// The last user message's text, said back.
fn text(request: &Value) -> String {
    let last = request["messages"].as_array().and_then(|messages| messages.last());
    let content = last.map_or(&Value::Null, |message| &message["content"]);
    let said = content.as_str().or_else(|| content[0]["text"].as_str()).unwrap_or("nothing");
    format!("You said: {said}")
}

/// The text in pieces of a word each.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(' ')
}

fn message(model: &str, text: &str) -> Value {
    json!({
        "id": "msg_sandbox", "type": "message", "role": "assistant", "model": model,
        "content": [{"type": "text", "text": text}], "stop_reason": "end_turn",
        "stop_sequence": null, "usage": {"input_tokens": 1, "output_tokens": 1},
    })
}

fn event(name: &str, data: &Value) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

fn messages_events(model: &str, request: &Value) -> Vec<String> {
    let text = text(request);
    let mut start = message(model, "");
    start["content"] = json!([]);
    start["stop_reason"] = Value::Null;
    let block = json!({"type": "text", "text": ""});
    let mut events = vec![
        event("message_start", &json!({"type": "message_start", "message": start})),
        event(
            "content_block_start",
            &json!({"type": "content_block_start", "index": 0, "content_block": block}),
        ),
        event("ping", &json!({"type": "ping"})),
    ];
    for piece in pieces(&text) {
        let delta = json!({"type": "text_delta", "text": piece});
        let data = json!({"type": "content_block_delta", "index": 0, "delta": delta});
        events.push(event("content_block_delta", &data));
    }
    events.push(event("content_block_stop", &json!({"type": "content_block_stop", "index": 0})));
    let delta = json!({"stop_reason": "end_turn", "stop_sequence": null});
    let data = json!({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 1}});
    events.push(event("message_delta", &data));
    events.push(event("message_stop", &json!({"type": "message_stop"})));
    events
}

fn completion(model: &str, text: &str) -> Value {
    json!({
        "id": "chatcmpl-sandbox", "object": "chat.completion", "created": 0, "model": model,
        "choices": [{"index": 0, "finish_reason": "stop",
                     "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    })
}

fn completion_events(model: &str, request: &Value) -> Vec<String> {
    let chunk = |delta: Value, finish: Value| {
        let data = json!({
            "id": "chatcmpl-sandbox", "object": "chat.completion.chunk", "created": 0,
            "model": model, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        });
        format!("data: {data}\n\n")
    };
    let text = text(request);
    let mut events = vec![chunk(json!({"role": "assistant", "content": ""}), Value::Null)];
    events.extend(pieces(&text).map(|piece| chunk(json!({"content": piece}), Value::Null)));
    events.push(chunk(json!({}), "stop".into()));
    events.push("data: [DONE]\n\n".to_owned());
    events
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
