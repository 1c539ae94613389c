//! What providers say of their limits: the fields of their answers, and the bodies of their refusals. Pure.

pub(crate) mod fields;
