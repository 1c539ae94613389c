//! `OpenAI`'s Chat Completions.

use serde_json::{Value, json};

use super::{CREATED, Prompt, echo, pieces, tokens};

const ID: &str = "chatcmpl-sandbox";

/// The fields that a model reads, in the order of the prompt.
pub(super) const INPUT: [&str; 1] = ["messages"];

fn usage(prompt: Prompt, text: &str) -> Value {
    let (input, output) = (prompt.tokens, tokens(&json!(text)));
    json!({
        "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
        "prompt_tokens_details": {"cached_tokens": prompt.read, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
    })
}

/// The whole answer.
pub(super) fn whole(model: &str, request: &Value, prompt: Prompt) -> Value {
    let text = echo(&request["messages"]);
    let message = json!({
        "role": "assistant", "content": text, "refusal": null, "annotations": [],
    });
    json!({
        "id": ID, "object": "chat.completion", "created": CREATED, "model": model,
        "service_tier": "default", "system_fingerprint": null, "usage": usage(prompt, &text),
        "choices": [{"index": 0, "finish_reason": "stop", "logprobs": null, "message": message}],
    })
}

/// The same as events.
pub(super) fn events(model: &str, request: &Value, prompt: Prompt) -> Vec<String> {
    let text = echo(&request["messages"]);
    let counts = request["stream_options"]["include_usage"] == true;
    let chunk = |choices: Value, usage: Value| {
        let mut data = json!({
            "id": ID, "object": "chat.completion.chunk", "created": CREATED, "model": model,
            "service_tier": "default", "system_fingerprint": null, "choices": choices,
        });
        if counts {
            data["usage"] = usage;
        }
        format!("data: {data}\n\n")
    };
    let choice = |delta: Value, finish: Value| {
        let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish});
        chunk(json!([choice]), Value::Null)
    };
    let start = json!({"role": "assistant", "content": "", "refusal": null});
    let mut events = vec![choice(start, Value::Null)];
    events.extend(pieces(&text).map(|piece| choice(json!({"content": piece}), Value::Null)));
    events.push(choice(json!({}), "stop".into()));
    if counts {
        events.push(chunk(json!([]), usage(prompt, &text)));
    }
    events.push("data: [DONE]\n\n".to_owned());
    events
}
