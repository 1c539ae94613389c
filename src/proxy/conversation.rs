//! The conversation that a request belongs to, so that one provider serves all of it from its prompt cache: an id that
//! the client names, else a hash of the text that every request of the conversation begins with. Pure.
//!
//! A body is read from left to right, without a tree of it, and may be only the beginning of one.

use std::ops::Range;

use ring::digest::{Context, SHA256, digest};

use crate::http::message::Headers;
use crate::proxy::skim::Skimmer;

/// The header fields for the id of a session, the most important first: Codex's, others', Claude Code's.
const SESSION_FIELDS: [&str; 5] =
    ["session_id", "session-id", "x-session-id", "x-claude-code-session-id", "conversation_id"];
/// The members with the system prompt: of Messages, Responses and Gemini.
const SYSTEM_MEMBERS: [&str; 4] =
    ["system", "instructions", "systemInstruction", "system_instruction"];
/// The members with the messages: of Messages and Chat Completions, Responses, Gemini.
const TURNS_MEMBERS: [&str; 3] = ["messages", "input", "contents"];
/// Members of a message that are no text of it, or that differ between two requests with the same message: clients move
/// the marks for the cache to later messages.
const NO_TEXT: [&[u8]; 5] = [b"cache_control", b"role", b"type", b"id", b"status"];
/// The most bytes of the system prompt that count, and of the first message.
const TEXT_MAX_BYTES: usize = 64 * 1024;

/// The hash of a conversation's id or first text, the same on every host.
pub(crate) type Conversation = [u8; 32];

/// The conversation of a request with these `headers` and the `start` of its body, inflated: the first of
/// `prompt_cache_key`, the id of a session (header or body) and `metadata.user_id`; else system prompt and first message
/// of the user. None if the request has none of them.
// Not inlined: keeps worker stacks small.
#[inline(never)]
pub(crate) fn conversation(headers: &Headers, start: Option<&[u8]>) -> Option<Conversation> {
    let mut found = start.map_or_else(Found::default, found);
    let id = found.cache_key.take().or_else(|| session(headers).map(<[u8]>::to_vec));
    if let Some(id) = id.or(found.session).or(found.user) {
        return Some(finished(digest(&SHA256, &id).as_ref()));
    }
    if found.system.is_empty() && found.first.is_empty() {
        return None;
    }
    let texts = [found.system.hash(), found.first.hash()].concat();
    Some(finished(digest(&SHA256, &texts).as_ref()))
}

/// True if more of the body than this `start` would hardly tell the conversation better.
pub(crate) fn is_told(headers: &Headers, start: &[u8]) -> bool {
    if session(headers).is_some() {
        return true;
    }
    let found = found(start);
    found.cache_key.is_some() || found.session.is_some() || found.user.is_some() || found.has_first
}

fn finished(hash: &[u8]) -> Conversation {
    // SHA-256 has 32 bytes.
    hash.first_chunk().copied().unwrap_or_default()
}

/// The id of a session in the header.
fn session(headers: &Headers) -> Option<&[u8]> {
    let rank = |name: &[u8]| {
        SESSION_FIELDS.iter().position(|field| name.eq_ignore_ascii_case(field.as_bytes()))
    };
    let named = headers.iter().filter_map(|(name, value)| Some((rank(name)?, value)));
    named.filter(|(_, value)| !value.is_empty()).min_by_key(|(rank, _)| *rank).map(|(_, id)| id)
}

fn found(start: &[u8]) -> Found {
    let mut found = Found::default();
    // A cut or invalid text ends the search; earlier findings count.
    let _ = found.members(&mut Skimmer::new(start));
    found
}

/// The findings in a body.
#[derive(Default)]
struct Found {
    cache_key: Option<Vec<u8>>,
    session: Option<Vec<u8>>,
    user: Option<Vec<u8>>,
    system: Texts,
    first: Texts,
    /// True once the first message of the user was read to its end.
    has_first: bool,
}

impl Found {
    fn members(&mut self, skim: &mut Skimmer<'_>) -> Option<()> {
        skim.expect(b'{')?;
        loop {
            let key = skim.key()?;
            let is_one_of = |names: &[&str]| names.iter().any(|name| skim.is(&key, name));
            if is_one_of(&["prompt_cache_key"]) {
                self.cache_key = id(skim)?;
                if self.cache_key.is_some() {
                    return Some(());
                }
            } else if is_one_of(&["session_id"]) {
                self.session = id(skim)?;
            } else if is_one_of(&["metadata"]) {
                self.metadata(skim)?;
            } else if is_one_of(&SYSTEM_MEMBERS) {
                self.system.add(skim)?;
            } else if is_one_of(&TURNS_MEMBERS) {
                let is_gemini = is_one_of(&["contents"]);
                self.turns(skim, is_gemini)?;
            } else {
                skim.skip_value()?;
            }
            skim.expect(b',')?;
        }
    }

    fn metadata(&mut self, skim: &mut Skimmer<'_>) -> Option<()> {
        if skim.peek()? != b'{' {
            return skim.skip_value();
        }
        each_member(skim, |skim, key| {
            if skim.is(key, "user_id") {
                self.user = id(skim)?;
                return Some(());
            }
            skim.skip_value()
        })
    }

    /// A text, or a list of messages: adds those with the system prompt before the first one of the user, and that one.
    fn turns(&mut self, skim: &mut Skimmer<'_>, is_gemini: bool) -> Option<()> {
        match skim.peek()? {
            b'"' => {
                self.first.add(skim)?;
                self.has_first = true;
                return Some(());
            }
            b'[' => skim.expect(b'[')?,
            _ => return skim.skip_value(),
        }
        if skim.expect(b']').is_some() {
            return Some(());
        }
        loop {
            if self.has_first {
                skim.skip_value()?;
            } else {
                self.turn(skim, is_gemini)?;
            }
            if skim.expect(b']').is_some() {
                return Some(());
            }
            skim.expect(b',')?;
        }
    }

    fn turn(&mut self, skim: &mut Skimmer<'_>, is_gemini: bool) -> Option<()> {
        let start = skim.place();
        // The role may stand after the text, or after the end of what is at hand.
        let (mut role, mut has_role) = (Role::Other, false);
        let end = if skim.peek()? == b'{' {
            each_member(skim, |skim, key| {
                if !skim.is(key, "role") || skim.peek()? != b'"' {
                    return skim.skip_value();
                }
                let place = skim.string()?;
                (role, has_role) = (Role::of(skim, &place), true);
                Some(())
            })
        } else {
            skim.skip_value()
        };
        if is_gemini && !has_role {
            role = Role::User;
        }
        let texts = match role {
            Role::User => &mut self.first,
            Role::System => &mut self.system,
            Role::Other => return end,
        };
        skim.back_to(start);
        texts.add(skim)?;
        self.has_first = role == Role::User;
        Some(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    User,
    System,
    Other,
}

impl Role {
    fn of(skim: &Skimmer<'_>, place: &Range<usize>) -> Self {
        let is_one_of = |names: &[&str]| names.iter().any(|name| skim.is(place, name));
        match () {
            () if is_one_of(&["user"]) => Self::User,
            () if is_one_of(&["system", "developer"]) => Self::System,
            () => Self::Other,
        }
    }
}

/// Passes an object; `member` passes the value of each key.
fn each_member<'a>(
    skim: &mut Skimmer<'a>,
    mut member: impl FnMut(&mut Skimmer<'a>, &Range<usize>) -> Option<()>,
) -> Option<()> {
    skim.expect(b'{')?;
    if skim.expect(b'}').is_some() {
        return Some(());
    }
    loop {
        let key = skim.key()?;
        member(skim, &key)?;
        if skim.expect(b'}').is_some() {
            return Some(());
        }
        skim.expect(b',')?;
    }
}

/// Passes a value; `Some(None)` unless it is a text that is not empty.
#[expect(
    clippy::option_option,
    reason = "the outer one is the end of the text, as everywhere here"
)]
fn id(skim: &mut Skimmer<'_>) -> Option<Option<Vec<u8>>> {
    if skim.peek()? != b'"' {
        skim.skip_value()?;
        return Some(None);
    }
    let place = skim.string()?;
    Some(skim.text(&place).filter(|id| !id.is_empty()).map(String::into_bytes))
}

/// The texts of a message, or of the system prompt, as one hash. A text counts the same alone and as a block of a list.
struct Texts {
    digest: Context,
    left_bytes: usize,
}

impl Default for Texts {
    fn default() -> Self {
        Self { digest: Context::new(&SHA256), left_bytes: TEXT_MAX_BYTES }
    }
}

impl Texts {
    fn is_empty(&self) -> bool {
        self.left_bytes == TEXT_MAX_BYTES
    }

    fn hash(self) -> Conversation {
        finished(self.digest.finish().as_ref())
    }

    /// Passes a value, and adds its texts, as they are escaped. If the value is cut, the part of it that is there counts.
    fn add(&mut self, skim: &mut Skimmer<'_>) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match skim.peek()? {
                b'"' => self.add_string(skim)?,
                open @ (b'{' | b'[') => {
                    depth += 1;
                    skim.expect(open)?;
                }
                close @ (b'}' | b']') => {
                    depth = depth.checked_sub(1)?;
                    skim.expect(close)?;
                }
                b',' if depth > 0 => skim.expect(b',')?,
                _ => skim.skip_word()?,
            }
            if depth == 0 {
                return Some(());
            }
        }
    }

    /// Passes a string, which is a text unless it is a key. The value of a key in [`NO_TEXT`] is passed over.
    fn add_string(&mut self, skim: &mut Skimmer<'_>) -> Option<()> {
        let rest = skim.rest();
        let Some(place) = skim.string() else {
            self.add_text(rest.get(1..).unwrap_or_default());
            return None;
        };
        let text = skim.raw(&place);
        if skim.expect(b':').is_none() {
            self.add_text(text);
            return Some(());
        }
        if NO_TEXT.contains(&text) { skim.skip_value() } else { Some(()) }
    }

    fn add_text(&mut self, text: &[u8]) {
        let counting = &text[..text.len().min(self.left_bytes)];
        self.digest.update(counting);
        self.left_bytes -= counting.len();
        if self.left_bytes > 0 {
            // Ends the text: `ab`, `c` differ from `a`, `bc`.
            self.digest.update(&[0]);
            self.left_bytes -= 1;
        }
    }
}

#[cfg(test)]
mod tests;
