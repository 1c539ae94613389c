//! Conversations: which requests belong together, in each API, and how little of a body tells it.

use super::*;

type Fields<'a> = &'a [(&'a str, &'a str)];

fn headers(fields: Fields<'_>) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in fields {
        headers.push(*name, *value);
    }
    headers
}

fn of(body: &str) -> Option<Conversation> {
    conversation(&Headers::new(), Some(body.as_bytes()))
}

/// The conversation with this id.
#[expect(clippy::unnecessary_wraps, reason = "the form of a finding")]
fn named(id: &str) -> Option<Conversation> {
    Some(finished(digest(&SHA256, id.as_bytes()).as_ref()))
}

/// Claude Code's order of members.
const CLAUDE_CODE: &str = r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}],
    "system":[{"type":"text","text":"be kind"}],"metadata":{"user_id":"{\"session_id\":\"s-1\"}"},"stream":true}"#;
/// Codex's.
const CODEX: &str = r#"{"model":"m","instructions":"be kind","input":[{"type":"message","role":"developer","content":
    [{"type":"input_text","text":"rules"}]},{"type":"message","role":"user","content":[{"type":"input_text","text":"hi"}]}],
    "store":false,"prompt_cache_key":"c-1"}"#;

#[test]
fn the_first_id_counts() {
    let cases: [(Fields<'_>, &str, &str); 13] = [
        (&[], CODEX, "c-1"),
        (&[("session_id", "s")], CODEX, "c-1"),
        (&[], CLAUDE_CODE, r#"{"session_id":"s-1"}"#),
        (&[("Session_Id", "s")], CLAUDE_CODE, "s"),
        (&[("X-Claude-Code-Session-Id", "s")], CLAUDE_CODE, "s"),
        (&[("conversation_id", "c"), ("session-id", "s")], "", "s"),
        (&[("session_id", ""), ("conversation_id", "c")], "", "c"),
        (&[("session_id", "h")], r#"{"session_id":"b"}"#, "h"),
        (&[], r#"{"metadata":{"user_id":"u"},"session_id":"b"}"#, "b"),
        (&[], r#"{"session_id":"b","prompt_cache_key":"\u0063"}"#, "c"),
        (
            &[],
            r#"{"prompt_cache_key":"","session_id":null,"metadata":{"x":[{}],"user_id":"u"}}"#,
            "u",
        ),
        (&[], r#"{"prompt_cache_key":7,"metadata":{"user_id":"u"}}"#, "u"),
        // Cut after the id.
        (&[], r#"{"metadata":{"user_id":"u"},"messages":[{"role":"user","content":"h"#, "u"),
    ];
    for (fields, body, expected) in cases {
        let found = conversation(&headers(fields), Some(body.as_bytes()));
        assert_eq!(found, named(expected), "{fields:?} {body}");
    }
    assert_eq!(conversation(&headers(&[("session_id", "s")]), None), named("s"));
}

/// Pairs of requests of one conversation.
#[test]
fn later_requests_belong_to_the_conversation_of_the_first() {
    let pairs = [
        (
            r#"{"model":"a","system":"be kind","messages":[{"role":"user","content":"hi"}],"stream":true}"#,
            r#"{"messages":[{"content":[{"type":"text","text":"hi"}],"role":"user"},{"role":"assistant","content":"x"},
               {"role":"user","content":"more"}],"system":[{"text":"be kind","type":"text"}],"max_tokens":1}"#,
        ),
        // The mark of the cache moves on.
        (
            r#"{"messages":[{"role":"user","content":[{"type":"text","text":"hi","cache_control":{"type":"ephemeral"}}]}]}"#,
            r#"{"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]},{"role":"user","content":
               [{"type":"text","text":"x","cache_control":{"type":"ephemeral","ttl":"1h"}}]}]}"#,
        ),
        (
            r#"{"messages":[{"role":"system","content":"be kind"},{"role":"user","content":"hi"}]}"#,
            r#"{"messages":[{"role":"system","content":"be kind"},{"role":"user","content":"hi"},
               {"role":"assistant","content":null,"tool_calls":[{"id":"1"}]},{"role":"tool","content":"x"},
               {"role":"system","content":"now hurry"}]}"#,
        ),
        (
            r#"{"input":"hi","instructions":"be kind"}"#,
            r#"{"instructions":"be kind","input":[{"role":"user","content":"hi"},{"type":"function_call_output","output":"x"}]}"#,
        ),
        (
            r#"{"input":[{"type":"message","role":"user","content":[{"type":"input_text","text":"hi"}]}]}"#,
            r#"{"input":[{"type":"message","id":"m1","status":"completed","role":"user","content":
               [{"type":"input_text","text":"hi"}]},{"role":"user","content":"x"}]}"#,
        ),
        (
            r#"{"contents":[{"parts":[{"text":"hi"}]}],"systemInstruction":{"parts":[{"text":"be kind"}]}}"#,
            r#"{"system_instruction":{"role":"user","parts":[{"text":"be kind"}]},"contents":[{"role":"user","parts":
               [{"text":"hi"}]},{"role":"model","parts":[{"text":"x"}]},{"role":"user","parts":[{"text":"y"}]}]}"#,
        ),
    ];
    for (first, later) in pairs {
        assert!(of(first).is_some(), "{first}");
        assert_eq!(of(first), of(later), "{first}\n{later}");
    }
}

#[test]
fn other_texts_are_other_conversations() {
    let bodies = [
        r#"{"system":"be kind","messages":[{"role":"user","content":"hi"}]}"#,
        r#"{"system":"be rude","messages":[{"role":"user","content":"hi"}]}"#,
        r#"{"system":"be kind","messages":[{"role":"user","content":"ho"}]}"#,
        r#"{"messages":[{"role":"user","content":"hi"}]}"#,
        r#"{"system":"hi","messages":[]}"#,
        r#"{"messages":[{"role":"user","content":[{"type":"text","text":"h"},{"type":"text","text":"i"}]}]}"#,
        r#"{"messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","data":"AA"}}]}]}"#,
        r#"{"messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","data":"AB"}}]}]}"#,
        r#"{"contents":[{"role":"model","parts":[{"text":"hi"}]},{"parts":[{"text":"huh"}]}]}"#,
    ];
    for (index, one) in bodies.iter().enumerate() {
        assert!(of(one).is_some(), "{one}");
        for other in &bodies[..index] {
            assert_ne!(of(one), of(other), "{one}\n{other}");
        }
    }
}

#[test]
fn requests_without_a_conversation() {
    for body in [
        "",
        "{",
        "{}",
        "[]",
        "null",
        "no json",
        "--boundary\r\n",
        r#"{"model":"m"}"#,
        r#"{"messages":[]}"#,
        r#"{"messages":[{"role":"assistant","content":"hi"}]}"#,
        r#"{"messages":{"role":"user"}}"#,
        r#"{"input":["a","b"]}"#,
        r#"{"messages":[7,null,"x"]}"#,
        r#"{"metadata":"user_id","prompt_cache_key":null}"#,
        r#"{"metadata":{}}"#,
        r#"{"requests":[{"custom_id":"1","params":{"messages":[{"role":"user","content":"hi"}]}}]}"#,
    ] {
        assert_eq!(of(body), None, "{body}");
    }
    assert_eq!(conversation(&Headers::new(), None), None);
}

#[test]
fn a_large_text_counts_up_to_its_limit() {
    let body = |length: usize, end: &str| {
        let text = "x".repeat(length);
        of(&format!(r#"{{"messages":[{{"role":"user","content":"{text}{end}"}}],"system":"s"}}"#))
    };
    assert_ne!(body(TEXT_MAX_BYTES - 1, "a"), body(TEXT_MAX_BYTES - 1, "b"));
    assert_eq!(body(TEXT_MAX_BYTES, "a"), body(TEXT_MAX_BYTES, "b"));
    assert_eq!(body(TEXT_MAX_BYTES, "a"), body(2 * TEXT_MAX_BYTES, "a"));
}

#[test]
fn every_cut_of_a_body_is_read_and_a_cut_after_the_first_message_changes_nothing() {
    let (system, rest) = (
        r#"{"system":"be kind","messages":[{"role":"user","content":"hi"}"#,
        r#",{"role":"assistant","content":"x"}],"tools":[{"name":"t"}],"stream":true}"#,
    );
    let whole = format!("{system}{rest}");
    for cut in 0..whole.len() {
        let (start, is_behind) = (&whole.as_bytes()[..cut], cut >= system.len());
        let found = conversation(&Headers::new(), Some(start));
        assert_eq!(is_told(&Headers::new(), start), is_behind, "{cut}");
        if is_behind {
            assert_eq!(found, of(&whole), "{cut}");
        }
    }
    let headers = headers(&[("session_id", "s")]);
    assert!(is_told(&headers, b"{"), "the header tells it");
    assert!(is_told(&Headers::new(), br#"{"prompt_cache_key":"c""#));
    assert!(is_told(&Headers::new(), br#"{"metadata":{"user_id":"c"},"messages":["#));
}

#[test]
fn deep_bodies_need_no_stack() {
    let deep = format!("{}1{}", "[".repeat(200_000), "]".repeat(200_000));
    for member in ["system", "messages", "contents", "metadata", "x"] {
        let body = format!(r#"{{"{member}":{deep},"session_id":"s"}}"#);
        assert_eq!(of(&body), named("s"), "{member}");
    }
    let body = format!(r#"{{"messages":[{{"role":"user","content":{deep}}}],"session_id":"s"}}"#);
    assert_eq!(of(&body), named("s"));
}

/// Another hash would move every conversation at an update.
#[test]
fn hashes_are_the_same_for_ever() {
    let hex =
        |body: &str| of(body).unwrap().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(
        hex(r#"{"prompt_cache_key":"abc"}"#),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    assert_eq!(
        hex(r#"{"system":"be kind","messages":[{"role":"user","content":"hi"}]}"#),
        "9b3e5f20f7245d6e20de05019b77c9fa2d4b9230405b29bf359a3fae85f5853c"
    );
}

/// Bodies with bytes changed, taken out and doubled: whatever a client sends, nothing panics.
#[test]
fn any_bytes_are_read() {
    let mut rng = fastrand::Rng::with_seed(21);
    for round in 0..20_000 {
        let mut body = [CLAUDE_CODE, CODEX][round % 2].as_bytes().to_vec();
        for _ in 0..rng.usize(1..4) {
            let at = rng.usize(..body.len());
            match rng.u8(..4) {
                0 => body[at] = rng.choice(*b"\"\\{}[]:, \0x").unwrap(),
                1 => drop(body.remove(at)),
                2 => body.insert(at, body[at]),
                _ => body.truncate(at.max(4)),
            }
        }
        let _ = conversation(&Headers::new(), Some(&body));
        let _ = is_told(&Headers::new(), &body);
    }
}
