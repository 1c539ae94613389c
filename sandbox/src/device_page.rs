//! The page on which a person accepts or refuses the login of a device (RFC 8628 §3.3). Pure.

use std::collections::HashMap;

use crate::manners::answer::Answer;

/// A person's action on the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Visit {
    /// Opens it, with this code filled in.
    Look(String),
    /// Accepts the login with this code, or refuses it.
    Decide(String, bool),
}

/// The action of a request to the page, from its URL's `query` and a form's `body`.
pub fn visit(method: &str, query: &str, body: &[u8]) -> Visit {
    let text = if method == "POST" { body } else { query.as_bytes() };
    let params: HashMap<_, _> = form_urlencoded::parse(text).into_owned().collect();
    let typed = params.get("user_code").map_or("", String::as_str);
    // As people type it: in small letters, with blanks or a dash.
    let letters = typed.chars().filter(char::is_ascii_alphanumeric);
    let code = letters.map(|letter| letter.to_ascii_uppercase()).collect();
    match params.get("decision").map(String::as_str).filter(|_| method == "POST") {
        Some(decision) => Visit::Decide(code, decision == "agree"),
        None => Visit::Look(code),
    }
}

/// The page with a form; `code` is filled in.
pub fn form(code: &str) -> Answer {
    html(200, &format!("<p>Type in the code that evertoken shows.</p>{}", fields(code)))
}

/// The page after a decision; `is_known` says whether the code exists.
pub fn decided(code: &str, agreed: bool, is_known: bool) -> Answer {
    match (is_known, agreed) {
        (false, _) => html(404, &format!("<p>Nobody waits with this code.</p>{}", fields(code))),
        (true, true) => html(200, "<p>Logged in. Go back to the terminal.</p>"),
        (true, false) => html(200, "<p>Refused. evertoken is told so.</p>"),
    }
}

/// `code` contains only letters and digits.
fn fields(code: &str) -> String {
    format!(
        "<form method=\"post\" action=\"/device\"><p><label>Code <input name=\"user_code\" value=\"{code}\" \
         autocomplete=\"off\" autofocus required></label></p><p><button name=\"decision\" value=\"agree\">Agree</button> \
         <button name=\"decision\" value=\"refuse\">Refuse</button></p></form>"
    )
}

fn html(status: u16, content: &str) -> Answer {
    let page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>Device login</title><h1>Device login at the sandbox</h1>{content}</html>\n"
    );
    let kind = ("Content-Type".to_owned(), "text/html; charset=utf-8".to_owned());
    Answer { status, headers: vec![kind], body: page.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_taken_as_people_type_it_and_nothing_else_gets_into_the_page() {
        for (method, query, body, expected) in [
            ("GET", "", "", Visit::Look(String::new())),
            ("GET", "user_code=ABCD", "", Visit::Look("ABCD".into())),
            ("GET", "user_code=ABCD&decision=agree", "", Visit::Look("ABCD".into())),
            (
                "POST",
                "user_code=X",
                "user_code=+ab-cd+&decision=agree",
                Visit::Decide("ABCD".into(), true),
            ),
            ("POST", "", "user_code=ABCD&decision=refuse", Visit::Decide("ABCD".into(), false)),
            ("POST", "", "user_code=ABCD", Visit::Look("ABCD".into())),
            ("GET", "user_code=%22%3E%3Cb%3E", "", Visit::Look("B".into())),
        ] {
            assert_eq!(visit(method, query, body.as_bytes()), expected, "{method} {query} {body}");
        }
        let page = String::from_utf8(form("ABCD").body).unwrap();
        assert!(
            page.contains("value=\"ABCD\"") && page.contains("<form method=\"post\""),
            "{page}"
        );
    }
}
