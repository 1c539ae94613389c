//! Answers of each API, cut at every byte, and texts that only look like a `usage`.

use super::*;

/// A body's form, the body, its numbers (input, output, read from and written to the cache), and its model.
type Case = (&'static str, Form, &'static str, Option<[u64; 4]>, Option<&'static str>);

const MESSAGE: &str = r#"{"model":"claude-sonnet-4-5","id":"msg_01","type":"message","role":"assistant","content":[{"type":"text","text":"the \"usage\": {\"input_tokens\":1}}} of it"},{"type":"tool_use","id":"t","name":"n","input":{"usage":{"input_tokens":7,"output_tokens":7},"model":"no"}}],"stop_reason":"end_turn","usage":{"input_tokens":2095,"cache_creation_input_tokens":2051,"cache_read_input_tokens":12,"cache_creation":{"ephemeral_5m_input_tokens":51,"ephemeral_1h_input_tokens":2000},"output_tokens":503,"server_tool_use":{"web_search_requests":9},"service_tier":"standard"}}"#;

const MESSAGE_EVENTS: &str = r#"event: message_start
data: {"type":"message_start","message":{"id":"msg_01","type":"message","role":"assistant","model":"claude-opus-4","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":472,"cache_creation_input_tokens":3,"cache_read_input_tokens":4,"output_tokens":2}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"t","name":"n","input":{"usage":{"output_tokens":9}}}}

event: ping
data: {"type": "ping"}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{\"usage\":{\"output_tokens\":8}}"}}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":89}}

event: message_stop
data: {"type":"message_stop"}

"#;

const CHAT: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-4o-2024-08-06","choices":[{"index":0,"message":{"role":"assistant","content":"usage","tool_calls":[{"function":{"arguments":"{\"usage\":{\"prompt_tokens\":5}}"}}]}}],"usage":{"prompt_tokens":2006,"completion_tokens":300,"total_tokens":2306,"prompt_tokens_details":{"cached_tokens":1920,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":64}},"service_tier":"default"}"#;

const CHAT_EVENTS: &str = r#"data: {"id":"c","object":"chat.completion.chunk","model":"gpt-4o","choices":[{"index":0,"delta":{"content":"a"}}],"usage":null}

data: {"id":"c","object":"chat.completion.chunk","model":"gpt-4o","choices":[{"index":0,"delta":{}}],"usage": null}

data: {"id":"c","object":"chat.completion.chunk","model":"gpt-4o","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,"prompt_tokens_details":{"cached_tokens":4}}}

data: [DONE]

"#;

const RESPONSES_EVENTS: &str = r#"event: response.created
data: {"type":"response.created","response":{"id":"r","status":"in_progress","instructions":"x","model":"gpt-5","output":[],"usage":null},"sequence_number":0}

event: response.output_item.done
data: {"type":"response.output_item.done","item":{"usage":{"input_tokens":1}},"sequence_number":4}

event: response.completed
data: {"type":"response.completed","response":{"id":"r","status":"completed","instructions":"x","model":"gpt-5","output":[{"content":[{"text":"\"usage\":{"}]}],"tools":[{"usage":{"input_tokens":3}}],"usage":{"input_tokens":36,"input_tokens_details":{"cached_tokens":6},"output_tokens":87,"output_tokens_details":{"reasoning_tokens":60},"total_tokens":123},"user":null,"metadata":{}},"sequence_number":9}

"#;

const GEMINI: &str = r#"{
  "candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "args": {"usageMetadata": {"promptTokenCount": 4}, "modelVersion": "no"}}}]}}],
  "usageMetadata": {
    "promptTokenCount": 100,
    "cachedContentTokenCount": 40,
    "candidatesTokenCount": 20,
    "thoughtsTokenCount": 7,
    "totalTokenCount": 127,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 100}]
  },
  "modelVersion": "gemini-2.5-flash",
  "responseId": "x"
}
"#;

const GEMINI_EVENTS: &str = "data: {\"candidates\":[],\"usageMetadata\":{\"promptTokenCount\":8,\"totalTokenCount\":8},\"modelVersion\":\"gemini-2.5-pro\"}\r\n\r\n\
    data: {\"candidates\":[],\"usageMetadata\":{\"promptTokenCount\":8,\"candidatesTokenCount\":5,\"thoughtsTokenCount\":2,\"totalTokenCount\":15},\"modelVersion\":\"gemini-2.5-pro\"}\r\n\r\n";

const GEMINI_LIST: &str = r#"[{"candidates":[],"usageMetadata":{"promptTokenCount":8},"modelVersion":"gemini-1"}
,
{"candidates":[],"usageMetadata":{"promptTokenCount":8,"candidatesTokenCount":3},"modelVersion":"gemini-1"}
]"#;

const CASES: &[Case] = &[
    ("message", Form::Json, MESSAGE, Some([2095, 503, 12, 2051]), Some("claude-sonnet-4-5")),
    ("message events", Form::Events, MESSAGE_EVENTS, Some([472, 89, 4, 3]), Some("claude-opus-4")),
    ("chat", Form::Json, CHAT, Some([86, 300, 1920, 0]), Some("gpt-4o-2024-08-06")),
    ("chat events", Form::Events, CHAT_EVENTS, Some([6, 5, 4, 0]), Some("gpt-4o")),
    ("responses events", Form::Events, RESPONSES_EVENTS, Some([30, 87, 6, 0]), Some("gpt-5")),
    ("gemini", Form::Json, GEMINI, Some([60, 27, 40, 0]), Some("gemini-2.5-flash")),
    ("gemini events", Form::Events, GEMINI_EVENTS, Some([8, 7, 0, 0]), Some("gemini-2.5-pro")),
    ("gemini list", Form::Json, GEMINI_LIST, Some([8, 3, 0, 0]), Some("gemini-1")),
    (
        "embeddings",
        Form::Json,
        r#"{"object":"list","data":[{"embedding":[0.1,-2e-5]}],"model":"text-embedding-3-small","usage":{"prompt_tokens":8,"total_tokens":8}}"#,
        Some([8, 0, 0, 0]),
        Some("text-embedding-3-small"),
    ),
    (
        "sorted keys, no event line, the type after the response",
        Form::Events,
        "data: {\"response\":{\"model\":\"m\",\"usage\":{\"input_tokens\":3,\"output_tokens\":4}},\"type\":\"response.incomplete\"}\n\n",
        Some([3, 4, 0, 0]),
        Some("m"),
    ),
    (
        "data in several lines, other lines between, CR alone as line end",
        Form::Events,
        ": a comment\rdata: {\"model\":\"m\",\rid: 4\rdata:\"usage\":{\"prompt_tokens\"\rdata: :3,\rretry: 5}\r: }\rdata: \"completion_tokens\":4}}\r\r",
        Some([3, 4, 0, 0]),
        Some("m"),
    ),
    (
        "no blank line at the end",
        Form::Events,
        "data: {\"model\":\"m\",\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}",
        Some([3, 4, 0, 0]),
        Some("m"),
    ),
    (
        "an event that breaks off does not spoil the next one",
        Form::Events,
        "data: {\"usage\":{\"prompt_tokens\":9,\"x\":\"un\n\ndata: {\"model\":\"m\",\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}\n\n",
        Some([3, 4, 0, 0]),
        Some("m"),
    ),
    (
        "a byte order mark, white space, a fraction, a nested number, a list",
        Form::Json,
        "\u{feff} { \"model\" : \"m\" , \"usage\" : { \"prompt_tokens\" : 3.0 , \"x\":{\"prompt_tokens\":5}, \"y\":[{\"prompt_tokens\":6}], \"completion_tokens\" : 4 } }\n",
        Some([3, 4, 0, 0]),
        Some("m"),
    ),
    (
        "a gateway that reports the caches in both ways",
        Form::Json,
        r#"{"model":"m","usage":{"prompt_tokens":100,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":30,"cache_creation_tokens":20},"cache_creation_input_tokens":20,"cache_read_input_tokens":30}}"#,
        Some([50, 4, 30, 20]),
        Some("m"),
    ),
    (
        "cached tokens without details",
        Form::Json,
        r#"{"model":"m","usage":{"prompt_tokens":10,"completion_tokens":4,"prompt_cache_hit_tokens":7,"prompt_cache_miss_tokens":3}}"#,
        Some([3, 4, 7, 0]),
        Some("m"),
    ),
    (
        "reasoning in the total only, as xAI's grok-3-mini has it",
        Form::Json,
        r#"{"model":"grok-3-mini","usage":{"prompt_tokens":12,"completion_tokens":2,"total_tokens":331,"prompt_tokens_details":{"cached_tokens":2},"completion_tokens_details":{"reasoning_tokens":317}}}"#,
        Some([10, 319, 2, 0]),
        Some("grok-3-mini"),
    ),
    (
        "a total with the cache beside the prompt",
        Form::Json,
        r#"{"model":"m","usage":{"prompt_tokens":100,"completion_tokens":4,"cache_read_input_tokens":30,"total_tokens":134}}"#,
        Some([70, 4, 30, 0]),
        Some("m"),
    ),
    (
        "Gemini Code Assist",
        Form::Events,
        r#"data: {"response":{"candidates":[],"usageMetadata":{"promptTokenCount":30460,"candidatesTokenCount":3,"thoughtsTokenCount":87},"modelVersion":"gemini-2.5-pro"},"traceId":"x"}"#,
        Some([30460, 90, 0, 0]),
        Some("gemini-2.5-pro"),
    ),
    (
        "Gemini Code Assist, whole",
        Form::Json,
        r#"{"response":{"candidates":[],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":4},"modelVersion":"g"}}"#,
        Some([3, 4, 0, 0]),
        Some("g"),
    ),
    (
        "Gemini Code Assist, as a list",
        Form::Json,
        r#"[{"response":{"usageMetadata":{"promptTokenCount":3}}},{"response":{"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":4}}}]"#,
        Some([3, 4, 0, 0]),
        None,
    ),
    (
        "Kimi: in the choice",
        Form::Events,
        "data: {\"model\":\"kimi-k2\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\",\"usage\":{\"prompt_tokens\":19,\"completion_tokens\":13,\"total_tokens\":32}}]}\n\ndata: [DONE]\n\n",
        Some([19, 13, 0, 0]),
        Some("kimi-k2"),
    ),
    (
        "as deep as in a choice, but elsewhere",
        Form::Events,
        "data: {\"outputs\":[{\"usage\":{\"prompt_tokens\":19}}]}\n\n",
        None,
        None,
    ),
    (
        "Bedrock Converse",
        Form::Json,
        r#"{"output":{"message":{}},"stopReason":"end_turn","usage":{"cacheReadInputTokens":5,"cacheWriteInputTokens":6,"inputTokens":30,"outputTokens":628,"totalTokens":669}}"#,
        Some([30, 628, 5, 6]),
        None,
    ),
    ("null", Form::Json, r#"{"model":"m","usage":null}"#, None, Some("m")),
    (
        "no null, but begun like it",
        Form::Events,
        "data: {\"usage\":ne\":{\"prompt_tokens\":9}}\n\n",
        None,
        None,
    ),
    (
        "a key that begins with the last quote of an escaped one",
        Form::Json,
        r#"{\"usageMetadata"usage":{"input_tokens":3}}"#,
        Some([3, 0, 0, 0]),
        None,
    ),
    ("none", Form::Json, r#"{"model":"m"}"#, None, Some("m")),
    ("only deeper", Form::Json, r#"{"a":{"usage":{"input_tokens":3}}}"#, None, None),
    ("in a list", Form::Json, r#"{"data":[{"usage":{"input_tokens":3}}]}"#, None, None),
    ("unknown members", Form::Json, r#"{"usage":{"credits":3}}"#, None, None),
    (
        "negative, in text, huge",
        Form::Json,
        r#"{"usage":{"input_tokens":-3,"output_tokens":"4","cache_read_input_tokens":99999999999999999999}}"#,
        None,
        None,
    ),
    (
        "an exponent, which was cut off",
        Form::Json,
        r#"{"usage":{"input_tokens":2.5e1,"output_tokens":1E+3,"cache_read_input_tokens":70e-1}}"#,
        Some([25, 1000, 7, 0]),
        None,
    ),
    (
        "negative exponents, exponents of any size, no numbers",
        Form::Json,
        r#"{"usage":{"input_tokens":1e999,"output_tokens":-1e2,"cache_read_input_tokens":1e-9,"cache_creation_input_tokens":1-2}}"#,
        Some([0, 0, 0, 0]),
        None,
    ),
    ("a value", Form::Json, r#"{"type":"usage","input_tokens":3}"#, None, None),
    (
        "an event that wraps something else",
        Form::Events,
        "data: {\"type\":\"x\",\"delta\":{\"usage\":{\"input_tokens\":3}}}\n\n",
        None,
        None,
    ),
    (
        "the text ends with the word",
        Form::Json,
        r#"{"a":"\\\"usage","usage":{"input_tokens":3}}"#,
        Some([3, 0, 0, 0]),
        None,
    ),
    (
        "the last of two counts",
        Form::Json,
        r#"{"usage":{"input_tokens":3},"usage":{"input_tokens":4}}"#,
        Some([4, 0, 0, 0]),
        None,
    ),
    (
        "an escaped slash",
        Form::Json,
        r#"{"usage":{"input_tokens":3},"model":"a\/b"}"#,
        Some([3, 0, 0, 0]),
        Some("a/b"),
    ),
    ("plain text", Form::Json, "\"usage", None, None),
    ("empty", Form::Json, "", None, None),
];

fn seen<'a>(form: Form, pieces: impl Iterator<Item = &'a [u8]>) -> Finding {
    let mut scan = Scan::new(form);
    pieces.for_each(|piece| scan.see(piece, false));
    scan.finish(true)
}

#[track_caller]
fn assert_finding(found: &Finding, case: &Case, how: &str) {
    let (name, _, _, expected, model) = case;
    let tokens = found.tokens.map(|one| [one.input, one.output, one.cache_read, one.cache_write]);
    assert_eq!(tokens, *expected, "{name}, {how}");
    assert_eq!(found.model.as_deref(), *model, "{name}, {how}");
}

#[test]
fn each_answer_has_its_tokens_and_its_model_wherever_it_is_cut() {
    for case in CASES {
        let (_, form, body, ..) = case;
        let body = body.as_bytes();
        assert_finding(&seen(*form, std::iter::once(body)), case, "whole");
        let mut scan = Scan::new(*form);
        scan.see(body, true);
        assert_finding(&scan.finish(true), case, "in one piece that is the last");
        for size in [1, 2, 3, 7, 64] {
            assert_finding(&seen(*form, body.chunks(size)), case, &format!("pieces of {size}"));
        }
        for at in 0..body.len() {
            let (start, end) = body.split_at(at);
            let pieces = [start, b"", end];
            assert_finding(&seen(*form, pieces.into_iter()), case, &format!("cut at {at}"));
        }
    }
}

#[test]
fn events_in_each_form_of_line_end_and_event_by_event() {
    for case in CASES.iter().filter(|case| case.1 == Form::Events && !case.2.contains('\r')) {
        let (_, _, body, ..) = case;
        let events: Vec<&str> = body.split_inclusive("\n\n").collect();
        assert_finding(
            &seen(Form::Events, events.iter().map(|one| one.as_bytes())),
            case,
            "events",
        );
        let other = body.replace('\n', "\r\n");
        for size in [1, 2, 5, 9999] {
            assert_finding(&seen(Form::Events, other.as_bytes().chunks(size)), case, "CRLF");
        }
    }
}

#[test]
fn a_long_answer_has_its_usage_before_or_after_its_text() {
    let text = "x".repeat(300_000);
    let usage = r#""usage":{"prompt_tokens":3,"completion_tokens":4}"#;
    let bodies = [
        format!("{{\"model\":\"m\",\"choices\":[\"{text}\"],{usage}}}"),
        format!("{{{usage},\"model\":\"m\",\"choices\":[\"{text}\"]}}"),
        format!("{{\"choices\":[\"{text}\"],\"model\":\"m\",{usage}}}"),
    ];
    for body in &bodies {
        for size in [999, 4096] {
            let found = seen(Form::Json, body.as_bytes().chunks(size));
            assert_eq!(found.tokens, Some(Tokens { input: 3, output: 4, ..Tokens::default() }));
            assert_eq!(found.model.as_deref(), Some("m"));
        }
        let event = format!("event: x\ndata: {body}\n\n");
        assert!(seen(Form::Events, event.as_bytes().chunks(4096)).tokens.is_some());
    }
    let completed = format!(
        "event: response.completed\ndata: {{\"response\":{{\"output\":\"{text}\",\"usage\":{{\"input_tokens\":3}}}}}}\n\n"
    );
    assert!(seen(Form::Events, completed.as_bytes().chunks(4096)).tokens.is_some());
}

#[test]
fn of_a_cut_answer_what_came_before_the_cut_counts() {
    let start = MESSAGE_EVENTS.find("event: ping").unwrap();
    for at in start..MESSAGE_EVENTS.len() {
        let mut scan = Scan::new(Form::Events);
        scan.see(&MESSAGE_EVENTS.as_bytes()[..at], false);
        let tokens = scan.finish(false).tokens.unwrap();
        assert_eq!((tokens.input, tokens.cache_read), (472, 4), "{at}");
        assert!([2, 89].contains(&tokens.output), "{at}");
    }
    for at in 0..MESSAGE.len() {
        let mut scan = Scan::new(Form::Json);
        scan.see(&MESSAGE.as_bytes()[..at], false);
        assert_eq!(scan.finish(false).tokens, None, "{at}: the depth is not known");
    }
}

#[test]
fn a_model_has_its_longest_name() {
    use crate::usage::members::NAME_MAX_BYTES;
    for (length, is_known) in [(NAME_MAX_BYTES, true), (NAME_MAX_BYTES + 1, false)] {
        let name = "m".repeat(length);
        for body in [
            format!("{{\"model\":\"{name}\",\"usage\":{{\"input_tokens\":3}}}}"),
            format!("{{\"usage\":{{\"input_tokens\":3}},\"model\":\"{name}\"}}"),
        ] {
            let found = seen(Form::Json, body.as_bytes().chunks(50));
            assert_eq!(found.model.is_some_and(|model| model == name), is_known, "{body}");
        }
    }
}

#[test]
fn a_number_of_tokens_up_to_the_largest_one_counts() {
    for (number, expected) in [(1_000_000_000_000_u64, true), (1_000_000_000_001, false)] {
        let body = format!("{{\"usage\":{{\"input_tokens\":{number}}}}}");
        assert_eq!(seen(Form::Json, std::iter::once(body.as_bytes())).tokens.is_some(), expected);
    }
}

proptest::proptest! {
    #[test]
    fn the_same_is_found_however_an_answer_is_cut_and_nothing_panics(
        body in r#"(\{|\}|\[|\]|"|\\|:|,| |\n|\r|data:|event: message_start|"usage"|"model"|"usageMetadata"|"input_tokens"|"us|age"|12|x|n|null){0,60}"#,
        cuts in proptest::collection::vec(1_usize..9, 0..60),
        is_json: bool,
    ) {
        let form = if is_json { Form::Json } else { Form::Events };
        let body = body.as_bytes();
        let whole = seen(form, std::iter::once(body));
        let mut scan = Scan::new(form);
        let mut rest = body;
        for cut in cuts {
            let (piece, others) = rest.split_at(cut.min(rest.len()));
            scan.see(piece, false);
            rest = others;
        }
        scan.see(rest, false);
        let found = scan.finish(true);
        proptest::prop_assert_eq!(found.tokens, whole.tokens);
    }
}

#[test]
fn a_model_far_before_the_numbers_is_found_wherever_the_answer_is_cut() {
    // The model's key begins as far before the end of the other one as bytes are kept, or a byte further.
    for (more, is_known) in [(0, true), (1, false)] {
        let start = format!("{{\"a\":\"{}\",", "a".repeat(HEAD_BYTES));
        let model = "\"model\":\"m\",";
        let end = "\"usage\":";
        let between = TAIL_BYTES + more - model.len() - end.len();
        let between = format!("\"b\":\"{}\",", "b".repeat(between - 7));
        let body = format!("{start}{model}{between}{end}{{\"input_tokens\":3}}}}");
        for cut in 0..body.len() {
            let (first, rest) = body.as_bytes().split_at(cut);
            let found = seen(Form::Json, [first, rest].into_iter());
            assert!(found.tokens.is_some());
            assert_eq!(found.model.is_some(), is_known, "{cut}");
        }
    }
}
