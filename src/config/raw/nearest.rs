//! The known word that a misspelt one probably means. Pure.

/// The one of `known` that is most similar to `word`, if any is similar.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let distance = |other: &str| strsim::damerau_levenshtein(&word, &other.to_lowercase());
    let near = known.map(|other| (distance(other), other)).min()?;
    let length = word.chars().count();
    // A word of one letter is similar to everything.
    (near.0 <= length.max(3) / 3 && near.0 < length).then_some(near.1)
}
