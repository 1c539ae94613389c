//! The texts in XML and HTML pages that explain refusals. Pure.

/// Elements with such texts: those of XML errors, and the headings and paragraphs of a page.
const ELEMENTS: [&str; 18] = [
    "code", "message", "error", "errorcode", "errormessage", "error_description", "reason",
    "detail", "faultcode", "faultstring", "title", "h1", "h2", "h3", "p", "pre", "body", "center",
];
/// A longer page is meant for people.
const PAGE_MAX_BYTES: usize = 4096;

/// The texts of `page` that may explain its refusal. A session mentioned on a page for people is theirs.
pub(super) fn texts(page: &str) -> Vec<&str> {
    if page.len() > PAGE_MAX_BYTES {
        return Vec::new();
    }
    let is_for_people = page.to_ascii_lowercase().contains("<html");
    let texts = page.split('<').filter_map(|piece| {
        let (tag, text) = piece.split_once('>')?;
        let name = tag.split_whitespace().next()?.rsplit(':').next()?.to_ascii_lowercase();
        ELEMENTS.contains(&name.as_str()).then_some(text.trim())
    });
    let is_theirs = |text: &&str| is_for_people && text.to_ascii_lowercase().contains("session");
    texts.filter(|text| !text.is_empty() && !is_theirs(text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_by_their_elements() {
        let cases = [
            ("<a><b>x</b><Code>y</Code></a>", vec!["y"]),
            ("<?xml v='1'?>\n<n:Error x='y'><n:Message>z</n:Message></n:Error>", vec!["z"]),
            ("<HTML><H1 class='a'> b <i>c</i> d</H1><script>e</script>", vec!["b"]),
            ("<html><p>your session ended</p><p>x", vec!["x"]),
            ("<message>your session ended</message>", vec!["your session ended"]),
            ("<", vec![]),
            ("<p", vec![]),
        ];
        for (page, expected) in cases {
            assert_eq!(texts(page), expected, "{page}");
        }
    }

    #[test]
    fn the_length_of_a_page_on_both_sides_of_its_limit() {
        let page = |length: usize| format!("<p>{}", "x".repeat(length - 3));
        assert_eq!(texts(&page(PAGE_MAX_BYTES)).len(), 1);
        assert!(texts(&page(PAGE_MAX_BYTES + 1)).is_empty());
    }
}
