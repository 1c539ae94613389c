//! `OpenAI`'s Responses.

use serde_json::{Value, json};

use super::{CREATED, Prompt, echo, event, pieces, tokens};

/// The fields that a model reads, in the order of the prompt.
pub(super) const INPUT: [&str; 3] = ["tools", "instructions", "input"];

const ITEM_ID: &str = "msg_sandbox";

/// The parts of a request that are echoed.
const CHOSEN: [&str; 10] = [
    "instructions", "max_output_tokens", "parallel_tool_calls", "previous_response_id",
    "prompt_cache_key", "store", "temperature", "tool_choice", "tools", "metadata",
];

/// The whole answer.
pub(super) fn whole(model: &str, request: &Value, prompt: Prompt) -> Value {
    let text = echo(&request["input"]);
    let output = tokens(&json!(text));
    let mut response = unfinished(model, request);
    response["status"] = "completed".into();
    response["output"] = json!([item("completed", &json!([part(&text)]))]);
    response["usage"] = json!({
        "input_tokens": prompt.tokens, "input_tokens_details": {"cached_tokens": prompt.read},
        "output_tokens": output, "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt.tokens + output,
    });
    response
}

/// The answer before any of its content. It echoes the request's choices.
fn unfinished(model: &str, request: &Value) -> Value {
    let mut response = json!({
        "id": "resp_sandbox", "object": "response", "created_at": CREATED, "status": "in_progress",
        "background": false, "error": null, "incomplete_details": null, "instructions": null,
        "max_output_tokens": null, "max_tool_calls": null, "model": model, "output": [],
        "parallel_tool_calls": true, "previous_response_id": null, "prompt_cache_key": null,
        "reasoning": {"effort": null, "summary": null}, "safety_identifier": null,
        "service_tier": "default", "store": true, "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"}, "tool_choice": "auto",
        "tools": [], "top_logprobs": 0, "top_p": 1.0, "truncation": "disabled", "usage": null,
        "user": null, "metadata": {},
    });
    for name in CHOSEN {
        if !request[name].is_null() {
            response[name] = request[name].clone();
        }
    }
    response
}

fn item(status: &str, content: &Value) -> Value {
    json!({"id": ITEM_ID, "type": "message", "status": status, "role": "assistant", "content": content})
}

fn part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

/// The same as events.
pub(super) fn events(model: &str, request: &Value, prompt: Prompt) -> Vec<String> {
    let text = echo(&request["input"]);
    let start = unfinished(model, request);
    let in_item = |kind: &str, name: &str, value: Value| {
        let mut data = json!({
            "type": kind, "item_id": ITEM_ID, "output_index": 0, "content_index": 0,
        });
        data[name] = value;
        data
    };
    let of_text = |kind: &str, name: &str, text: &str| {
        let mut data = in_item(kind, name, text.into());
        data["logprobs"] = json!([]);
        data
    };
    let of_item = |kind: &str, item: Value| json!({"type": kind, "output_index": 0, "item": item});
    let mut all = vec![
        json!({"type": "response.created", "response": start}),
        json!({"type": "response.in_progress", "response": start}),
        of_item("response.output_item.added", item("in_progress", &json!([]))),
        in_item("response.content_part.added", "part", part("")),
    ];
    all.extend(pieces(&text).map(|piece| of_text("response.output_text.delta", "delta", piece)));
    all.extend([
        of_text("response.output_text.done", "text", &text),
        in_item("response.content_part.done", "part", part(&text)),
        of_item("response.output_item.done", item("completed", &json!([part(&text)]))),
        json!({"type": "response.completed", "response": whole(model, request, prompt)}),
    ]);
    for (number, data) in all.iter_mut().enumerate() {
        data["sequence_number"] = number.into();
    }
    all.iter().map(event).collect()
}
