//! What providers say of their limits: the fields of their answers, and the bodies of their refusals. Pure.

pub(crate) mod account;
pub(crate) mod fields;
pub(crate) mod standing;
pub(crate) mod stored;
