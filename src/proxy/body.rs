//! A client's request body: held if it can be sent again, streamed if it is larger, with the model that it names.

use std::io::{self, ErrorKind, Read};

use crate::http::message::{BodyLength, Headers};
use crate::proxy::conversation;
use crate::proxy::held::{HeldBytes, Permit};
use crate::proxy::model::{self, ModelField};

/// The first part of a body that is read before a search for its model, and its growth.
const FIRST_LOOK_BYTES: u64 = 16 * 1024;
const LOOK_GROWTH: u64 = 8;

/// The parts of a body that decide about its provider.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted<'a> {
    /// True if the model does.
    pub model: bool,
    /// The header of a request whose conversation does.
    pub conversation: Option<&'a Headers>,
}

impl Wanted<'_> {
    fn is_some(self) -> bool {
        self.model || self.conversation.is_some()
    }

    /// True if more than this `start` of the body need not be read for them.
    fn is_told_by(self, start: &[u8]) -> bool {
        let is_told = |headers| !is_object(start) || conversation::is_told(headers, start);
        (!self.model || model::find(start).is_some()) && self.conversation.is_none_or(is_told)
    }
}

/// A request's body as it is sent.
#[derive(Debug)]
pub(crate) enum TakenBody {
    /// No body.
    Absent,
    /// The whole body, so that it can be sent again.
    Held(HeldBytes),
    /// The declared length, and the part that was already read.
    Streamed(Option<u64>, Vec<u8>),
    /// Compressed and held as it came, with the inflated bytes.
    Coded {
        /// The bytes to send.
        sent: HeldBytes,
        /// The inflated bytes.
        plain: Vec<u8>,
        /// Counts the body if only its inflated bytes exceed the limit.
        #[expect(dead_code, reason = "held until the body is sent")]
        permit: Option<Permit>,
    },
    /// Compressed and sent as it came; its model is in the inflated part of it.
    Glimpsed {
        /// The body to send, held or streamed.
        sent: Box<Self>,
        /// The model; its place is in the inflated bytes.
        model: ModelField,
    },
    /// Held, and no longer compressed because its model was renamed.
    Recoded(HeldBytes),
}

impl TakenBody {
    /// Takes a body framed by `length` from `body`: held up to `held_max` bytes. Of a larger body it reads as much as
    /// tells what is `wanted`. Errors carry a `BodyFault`.
    pub(crate) fn take(
        length: BodyLength,
        body: &mut dyn Read,
        held_max: u64,
        wanted: Wanted<'_>,
    ) -> io::Result<Self> {
        let mut bytes = Vec::new();
        match length {
            BodyLength::Absent => Ok(Self::Absent),
            BodyLength::Sized(declared) if declared > held_max => {
                let mut look_at = FIRST_LOOK_BYTES.min(held_max);
                while wanted.is_some() && (bytes.len() as u64) < look_at {
                    let more = look_at - bytes.len() as u64;
                    if body.take(more).read_to_end(&mut bytes)? == 0 {
                        break;
                    }
                    if !wanted.is_told_by(&bytes) {
                        look_at = (look_at * LOOK_GROWTH).min(held_max);
                    }
                }
                if wanted.model && hides_model(&bytes) {
                    let length = usize::try_from(declared).map_err(|_| ErrorKind::OutOfMemory)?;
                    if let Some(held) = HeldBytes::beyond(&bytes, length, body)? {
                        return Ok(Self::Held(held));
                    }
                }
                Ok(Self::Streamed(Some(declared), bytes))
            }
            BodyLength::Sized(declared) => {
                let length = usize::try_from(declared).map_err(|_| ErrorKind::OutOfMemory)?;
                HeldBytes::read(length, body).map(Self::Held)
            }
            BodyLength::Chunked => {
                body.take(held_max.saturating_add(1)).read_to_end(&mut bytes)?;
                let is_whole = bytes.len() as u64 <= held_max;
                if is_whole {
                    return HeldBytes::joined(&[&bytes]).map(Self::Held);
                }
                if wanted.model
                    && hides_model(&bytes)
                    && let Some(held) = HeldBytes::beyond_of_any_length(&mut bytes, body)?
                {
                    return Ok(Self::Held(held));
                }
                Ok(Self::Streamed(None, bytes))
            }
        }
    }

    /// True if it can be sent again.
    pub(crate) fn is_held(&self) -> bool {
        !matches!(self.sent(), Self::Streamed(..))
    }

    /// The body for the provider.
    pub(crate) fn sent(&self) -> &Self {
        if let Self::Glimpsed { sent, .. } = self { sent } else { self }
    }

    /// The uncompressed bytes, if all of them are held. Those of a body that was not looked into are as it came.
    pub(crate) fn plain(&self) -> Option<&[u8]> {
        match self {
            Self::Held(bytes) | Self::Recoded(bytes) => Some(bytes),
            Self::Coded { plain, .. } => Some(plain),
            Self::Absent | Self::Streamed(..) | Self::Glimpsed { .. } => None,
        }
    }

    /// The model that it names.
    pub(crate) fn model(&self) -> Option<ModelField> {
        match self {
            Self::Absent => None,
            Self::Held(bytes) | Self::Recoded(bytes) => model::find(bytes),
            Self::Coded { plain, .. } => model::find(plain),
            Self::Streamed(_, bytes) => model::find(bytes),
            Self::Glimpsed { model, .. } => Some(model.clone()),
        }
    }

    /// The part of it that is held and not compressed; None if there is none.
    pub(crate) fn plain_start(&self) -> Option<&[u8]> {
        match self {
            Self::Absent | Self::Glimpsed { .. } => None,
            Self::Held(bytes) | Self::Recoded(bytes) => Some(bytes),
            Self::Coded { plain: bytes, .. } | Self::Streamed(_, bytes) => Some(bytes),
        }
    }

    /// The body with the model in `field` renamed to `name`; None if that is not possible.
    pub(crate) fn renamed(&self, field: &ModelField, name: &str) -> Option<Self> {
        Some(match self {
            Self::Absent | Self::Glimpsed { .. } => return None,
            Self::Held(bytes) => Self::Held(renamed(bytes, field, name)),
            Self::Coded { plain: bytes, .. } => Self::Recoded(renamed(bytes, field, name)),
            Self::Recoded(bytes) => Self::Recoded(renamed(bytes, field, name)),
            Self::Streamed(declared, start) => {
                let renamed = model::rename(start, field, name);
                let rest = declared.map(|declared| declared - start.len() as u64);
                Self::Streamed(rest.map(|rest| rest + renamed.len() as u64), renamed)
            }
        })
    }
}

fn renamed(bytes: &[u8], field: &ModelField, name: &str) -> HeldBytes {
    let value = model::quoted(name);
    let parts = model::parts(bytes, field, &value);
    HeldBytes::joined(&parts).unwrap_or_else(|_| HeldBytes::Small(parts.concat().into()))
}

/// True if `bytes` begin like a JSON object.
pub(super) fn is_object(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().first() == Some(&b'{')
}

/// True if a model may follow after this first part of a body.
fn hides_model(start: &[u8]) -> bool {
    is_object(start) && model::find(start).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: Wanted<'_> = Wanted { model: true, conversation: None };

    fn take(length: BodyLength, text: &str, held_max: u64) -> TakenBody {
        TakenBody::take(length, &mut text.as_bytes(), held_max, MODEL).unwrap()
    }

    #[test]
    fn held_and_streamed_on_both_sides_of_the_limit() {
        let held = |body: &TakenBody, text: &str| matches!(body, TakenBody::Held(held) if **held == *text.as_bytes());
        assert!(matches!(take(BodyLength::Absent, "", 5), TakenBody::Absent));
        assert!(held(&take(BodyLength::Sized(5), "hello", 5), "hello"));
        assert!(
            matches!(take(BodyLength::Sized(5), "hello", 4), TakenBody::Streamed(Some(5), start) if start == b"hell")
        );
        assert!(held(&take(BodyLength::Chunked, "hello", 5), "hello"));
        assert!(
            matches!(take(BodyLength::Chunked, "hello", 4), TakenBody::Streamed(None, start) if start == b"hello")
        );
    }

    #[test]
    fn the_model_of_a_streamed_body_is_found_within_the_limit_and_its_length_follows() {
        let held_max = 200_000;
        for before in [0, 20_000, 190_000] {
            let text = format!(
                r#"{{"x":"{}","model":"old","y":"{}"}}"#,
                "x".repeat(before),
                "y".repeat(300_000)
            );
            let length = text.len() as u64;
            let mut rest = text.as_bytes();
            let taken =
                TakenBody::take(BodyLength::Sized(length), &mut rest, held_max, MODEL).unwrap();
            let field = taken.model().unwrap();
            let Some(TakenBody::Streamed(declared, start)) = taken.renamed(&field, "longer") else {
                panic!()
            };
            let whole = [start.as_slice(), rest].concat();
            assert_eq!(declared, Some(whole.len() as u64));
            assert_eq!(whole, text.replace("\"old\"", "\"longer\"").as_bytes());
        }
        let text = r#"{"model":"a"}"#;
        let nothing = Wanted::default();
        let taken =
            TakenBody::take(BodyLength::Sized(99), &mut text.as_bytes(), 9, nothing).unwrap();
        assert!(
            matches!(taken, TakenBody::Streamed(_, start) if start.is_empty()),
            "nobody wants it"
        );
    }

    #[test]
    fn a_model_that_stands_after_the_limit_is_found_and_renamed() {
        let text = format!(r#"{{"x":"{}","model":"old"}}"#, "x".repeat(200_000));
        for length in [BodyLength::Sized(text.len() as u64), BodyLength::Chunked] {
            let taken = take(length, &text, 1000);
            assert!(taken.is_held(), "{length:?}");
            let field = taken.model().unwrap();
            let Some(TakenBody::Held(renamed)) = taken.renamed(&field, "new") else { panic!() };
            assert_eq!(&*renamed, text.replace("\"old\"", "\"new\"").as_bytes());
        }
        // A body that is not a JSON object is not held for that.
        let file = "x".repeat(200_000);
        for length in [BodyLength::Sized(file.len() as u64), BodyLength::Chunked] {
            assert!(!take(length, &file, 1000).is_held());
        }
    }

    /// A large body is read only as far as it tells its conversation, and no file is.
    #[test]
    fn the_start_of_a_streamed_body_tells_its_conversation() {
        let headers = Headers::new();
        let wanted = Wanted { model: false, conversation: Some(&headers) };
        let read = |before: usize, wanted: Wanted<'_>| {
            let text = format!(
                r#"{{"x":"{}","messages":[{{"role":"user","content":"hi"}}],"y":"{}"}}"#,
                "x".repeat(before),
                "y".repeat(600_000)
            );
            let length = BodyLength::Sized(text.len() as u64);
            match TakenBody::take(length, &mut text.as_bytes(), 500_000, wanted).unwrap() {
                TakenBody::Streamed(_, start) => start.len() as u64,
                _ => panic!("held"),
            }
        };
        assert_eq!(read(0, wanted), FIRST_LOOK_BYTES);
        assert_eq!(read(20_000, wanted), FIRST_LOOK_BYTES * LOOK_GROWTH);
        assert_eq!(read(550_000, wanted), 500_000, "no more than may be held");
        assert_eq!(read(20_000, Wanted::default()), 0);
        let mut headers = Headers::new();
        headers.push("session_id", "s");
        let wanted = Wanted { conversation: Some(&headers), ..wanted };
        assert_eq!(read(550_000, wanted), FIRST_LOOK_BYTES);
        let file = "x".repeat(600_000);
        let length = BodyLength::Sized(600_000);
        let taken = TakenBody::take(length, &mut file.as_bytes(), 500_000, wanted).unwrap();
        assert!(
            matches!(taken, TakenBody::Streamed(_, start) if start.len() as u64 == FIRST_LOOK_BYTES)
        );
    }
}
