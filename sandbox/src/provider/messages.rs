//! Anthropic's Messages.

use serde_json::{Value, json};

use super::{Prompt, echo, event, pieces, tokens};

/// The fields that a model reads, in the order of the prompt.
pub(super) const INPUT: [&str; 3] = ["tools", "system", "messages"];

/// The whole answer.
pub(super) fn whole(model: &str, request: &Value, prompt: Prompt) -> Value {
    let text = echo(&request["messages"]);
    let usage = usage(prompt, tokens(&json!(text)));
    json!({
        "id": "msg_sandbox", "type": "message", "role": "assistant", "model": model,
        "content": [{"type": "text", "text": text}], "stop_reason": "end_turn",
        "stop_sequence": null, "usage": usage,
    })
}

fn usage(prompt: Prompt, output_tokens: usize) -> Value {
    json!({
        "input_tokens": prompt.uncached(),
        "cache_creation_input_tokens": prompt.written, "cache_read_input_tokens": prompt.read,
        "output_tokens": output_tokens, "service_tier": "standard",
    })
}

/// The same as events.
pub(super) fn events(model: &str, request: &Value, prompt: Prompt) -> Vec<String> {
    let text = echo(&request["messages"]);
    let mut start = whole(model, request, prompt);
    start["content"] = json!([]);
    start["stop_reason"] = Value::Null;
    start["usage"] = usage(prompt, 1);
    let block = json!({"type": "text", "text": ""});
    let mut events = vec![
        event(&json!({"type": "message_start", "message": start})),
        event(&json!({"type": "content_block_start", "index": 0, "content_block": block})),
        event(&json!({"type": "ping"})),
    ];
    for piece in pieces(&text) {
        let delta = json!({"type": "text_delta", "text": piece});
        events.push(event(&json!({"type": "content_block_delta", "index": 0, "delta": delta})));
    }
    events.push(event(&json!({"type": "content_block_stop", "index": 0})));
    let delta = json!({"stop_reason": "end_turn", "stop_sequence": null});
    let usage = usage(prompt, tokens(&json!(text)));
    events.push(event(&json!({"type": "message_delta", "delta": delta, "usage": usage})));
    events.push(event(&json!({"type": "message_stop"})));
    events
}
