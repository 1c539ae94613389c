//! What providers say of their limits: the fields of their answers, and the bodies of their refusals. Pure.
//!
//! [`refusal`] judges a whole answer: by its status, by the texts of its [`body`] ([`words`]), by the wait that it
//! names ([`wait`]), by the model that it concerns
//! ([`model_limit`]), and by whether it concerns more than its own request ([`own_limit`]). [`first_event`] finds the refusal with which
//! an event stream begins.

pub(crate) mod account;
pub(crate) mod body;
pub(crate) mod fields;
pub(crate) mod first_event;
mod markup;
mod model_limit;
mod own_limit;
pub(crate) mod refusal;
pub(crate) mod standing;
pub(crate) mod stored;
pub(crate) mod text;
mod wait;
mod words;
