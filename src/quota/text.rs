//! Sentences and words of the texts in refusals. Pure.

/// The sentences of `text`.
pub(crate) fn sentences(text: &str) -> impl Iterator<Item = &str> {
    text.split(". ").flat_map(|text| text.split([';', '!', '?', '\n']))
}

/// The words of a sentence in lower case; `TokenExpired` and `token_expired` have two.
pub(crate) fn words(sentence: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for character in sentence.chars() {
        let begins = before.is_ascii_lowercase() && character.is_ascii_uppercase();
        if begins || !character.is_alphanumeric() {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| character.is_alphanumeric()) {
            word.push(character.to_ascii_lowercase());
        }
        before = character;
    }
    words
}
