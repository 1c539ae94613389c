//! The browser's callback (RFC 6749 §4.1.2): a code, a refusal, or something unrelated.

use crate::secret::Secret;

/// The longest code that is accepted.
const CODE_MAX_BYTES: usize = 4096;
/// The longest text of an issuer that is shown.
const WORDS_MAX_CHARS: usize = 300;

/// The values that an answer must match.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected<'a> {
    /// The state that was sent.
    pub state: &'a str,
    /// The required `iss` (RFC 9207), if the configuration names one.
    pub issuer: Option<&'a str>,
    /// True if an answer without `iss` is fine, because the issuer's metadata promises none.
    pub iss_may_lack: bool,
}

/// The content of a callback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Callback {
    /// A code for this login.
    Code(Secret),
    /// The login failed, with the reason in words.
    Refused(String),
    /// The callback has nothing to do with this login, for this reason.
    NotOurs(&'static str),
}

/// Reads the query of a callback.
pub(crate) fn of_query(query: &str, expected: &Expected<'_>) -> Callback {
    let parameters = match Parameters::read(query) {
        Ok(parameters) => parameters,
        Err(why) => return Callback::NotOurs(why),
    };
    match parameters.state.as_deref() {
        // Anyone on this machine, and any page in its browser, can send a callback.
        None => return Callback::NotOurs("it has no 'state'"),
        Some(state) if !Secret::new(state).matches(expected.state.as_bytes()) => {
            return Callback::NotOurs("its 'state' is not that of this login");
        }
        Some(_) => {}
    }
    if let Some(issuer) = expected.issuer {
        match parameters.iss.as_deref() {
            Some(iss) if iss == issuer => {}
            Some(iss) => {
                let iss = printable(iss);
                return Callback::Refused(format!(
                    "The answer comes from '{iss}' and not from '{issuer}' (auto_refresh_config.issuer)"
                ));
            }
            None if expected.iss_may_lack => {}
            None => {
                return Callback::Refused(format!(
                    "The answer does not say that it comes from '{issuer}'; if this issuer sends no \
                     'iss', leave auto_refresh_config.issuer out"
                ));
            }
        }
    }
    if let Some(error) = &parameters.error {
        return Callback::Refused(refusal(error, parameters.error_description.as_deref()));
    }
    match parameters.code {
        Some(code) => checked(&code),
        None => Callback::NotOurs("it has no 'code'"),
    }
}

/// Reads pasted text: the whole address, its query, `code#state`, or the code alone.
pub(crate) fn of_pasted(text: &str, expected: &Expected<'_>) -> Callback {
    let text = text.trim().trim_matches(['"', '\'', '<', '>']);
    if text.contains("://")
        || text.starts_with('?')
        || text.contains("code=")
        || text.contains("error=")
    {
        let query = text.split_once('?').map_or(text, |(_, query)| query);
        return of_query(query.split('#').next().unwrap_or_default(), expected);
    }
    match text.split_once('#') {
        Some((_, state)) if !Secret::new(state).matches(expected.state.as_bytes()) => {
            Callback::NotOurs("its 'state' is not that of this login")
        }
        Some((code, _)) => checked(code),
        // The person who pastes it vouches for it, and the verifier ties it to this login.
        None => checked(text),
    }
}

/// RFC 6749 appendix A.11: visible ASCII.
fn checked(code: &str) -> Callback {
    let visible = code.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
    if code.is_empty() || code.len() > CODE_MAX_BYTES || !visible {
        return Callback::NotOurs("it is not a code");
    }
    Callback::Code(Secret::new(code))
}

/// The parameters that matter here.
#[derive(Default)]
struct Parameters {
    code: Option<String>,
    state: Option<String>,
    iss: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

impl Parameters {
    fn read(query: &str) -> Result<Self, &'static str> {
        let mut parameters = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let field = match &*name {
                "code" => &mut parameters.code,
                "state" => &mut parameters.state,
                "iss" => &mut parameters.iss,
                "error" => &mut parameters.error,
                "error_description" => &mut parameters.error_description,
                _ => continue,
            };
            if field.replace(value.into_owned()).is_some() {
                // RFC 6749 §3.1.
                return Err("it names a parameter twice");
            }
        }
        Ok(parameters)
    }
}

/// True if `line` is the address to open, `url` with the parameters of the request.
pub(crate) fn is_address_to_open(line: &str, url: &str) -> bool {
    let base = |url: &str| url.split(['?', '#']).next().unwrap_or_default().to_owned();
    base(line.trim()) == base(url) && line.contains("response_type=")
}

/// RFC 6749 §4.1.2.1 in words.
fn refusal(error: &str, description: Option<&str>) -> String {
    let meaning = match error {
        "access_denied" => "it was refused, by you or by the issuer",
        "invalid_request" => {
            "the issuer does not understand the request; look at authorization_url"
        }
        "unauthorized_client" => "this client id may not log in this way",
        "unsupported_response_type" => "the issuer gives no codes",
        "invalid_scope" => "the issuer does not know the scope",
        "server_error" => "the issuer is broken",
        "temporarily_unavailable" => "the issuer is busy; try again later",
        _ => "the issuer says no more than this",
    };
    let mut told = format!("The login failed: {} ({meaning})", printable(error));
    if let Some(description) = description.filter(|text| !text.is_empty()) {
        told.push_str(": ");
        told.push_str(&printable(description));
    }
    told
}

/// A foreign text made fit for a terminal: without control characters, and not too long.
pub(crate) fn printable(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(WORDS_MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: Expected<'static> = Expected { state: "s1", issuer: None, iss_may_lack: false };
    const WITH_ISSUER: Expected<'static> = Expected { issuer: Some("https://i"), ..EXPECTED };

    fn code(text: &str) -> Callback {
        Callback::Code(Secret::new(text))
    }

    #[test]
    fn the_address_that_was_to_be_opened_is_known_again() {
        let url = "https://i/authorize?tenant=t";
        let open = "https://i/authorize?tenant=t&response_type=code&client_id=a\n";
        assert!(is_address_to_open(open, url));
        assert!(!is_address_to_open("https://i/authorize?code=c&state=s1", url));
        assert!(!is_address_to_open("http://127.0.0.1:1/callback?code=c", url));
        assert!(!is_address_to_open("a-code", url));
    }

    #[test]
    fn callbacks() {
        let cases = [
            ("code=c1&state=s1", code("c1")),
            ("state=s1&x=y&code=a%2Fb%3D", code("a/b=")),
            ("code=c1", Callback::NotOurs("it has no 'state'")),
            ("code=c1&state=", Callback::NotOurs("its 'state' is not that of this login")),
            ("code=c1&state=s2", Callback::NotOurs("its 'state' is not that of this login")),
            (
                "error=access_denied&state=s2",
                Callback::NotOurs("its 'state' is not that of this login"),
            ),
            ("state=s1", Callback::NotOurs("it has no 'code'")),
            ("state=s1&code=", Callback::NotOurs("it is not a code")),
            ("state=s1&code=a%20b", Callback::NotOurs("it is not a code")),
            ("state=s1&state=s1&code=c", Callback::NotOurs("it names a parameter twice")),
            ("state=s1&code=c&code=d", Callback::NotOurs("it names a parameter twice")),
            ("", Callback::NotOurs("it has no 'state'")),
        ];
        for (query, expected) in cases {
            assert_eq!(of_query(query, &EXPECTED), expected, "{query}");
        }
    }

    #[test]
    fn a_code_on_both_sides_of_its_limit() {
        let query = |length: usize| format!("state=s1&code={}", "c".repeat(length));
        assert!(matches!(of_query(&query(CODE_MAX_BYTES), &EXPECTED), Callback::Code(_)));
        assert!(matches!(of_query(&query(CODE_MAX_BYTES + 1), &EXPECTED), Callback::NotOurs(_)));
    }

    #[test]
    fn where_the_answer_comes_from() {
        let answer = |query: &str| of_query(query, &WITH_ISSUER);
        assert_eq!(answer("state=s1&code=c&iss=https%3A%2F%2Fi"), code("c"));
        for (query, part) in [
            ("state=s1&code=c&iss=https%3A%2F%2Fi%2F", "comes from 'https://i/' and not"),
            ("state=s1&code=c", "does not say that it comes from 'https://i'"),
            ("state=s1&error=access_denied&iss=x", "comes from 'x'"),
        ] {
            let Callback::Refused(why) = answer(query) else { panic!("{query}") };
            assert!(why.contains(part), "{why}");
        }
        let lenient = Expected { iss_may_lack: true, ..WITH_ISSUER };
        assert_eq!(of_query("state=s1&code=c", &lenient), code("c"));
        assert!(matches!(of_query("state=s1&code=c&iss=x", &lenient), Callback::Refused(_)));
        // Without a configured issuer there is nothing to compare.
        assert_eq!(of_query("state=s1&code=c&iss=x", &EXPECTED), code("c"));
    }

    #[test]
    fn refusals_in_words() {
        let told = |query: &str| match of_query(query, &EXPECTED) {
            Callback::Refused(why) => why,
            other => panic!("{query}: {other:?}"),
        };
        assert_eq!(
            told("state=s1&error=access_denied&error_description=You+said+no%1b%5B2J"),
            "The login failed: access_denied (it was refused, by you or by the issuer): You said no[2J"
        );
        for error in [
            "invalid_request",
            "unauthorized_client",
            "unsupported_response_type",
            "invalid_scope",
            "server_error",
            "temporarily_unavailable",
            "login_required",
        ] {
            assert!(told(&format!("state=s1&error={error}")).contains(error));
        }
        // An error takes precedence over a code beside it.
        assert!(told("state=s1&error=server_error&code=c").contains("broken"));
        let long = told(&format!("state=s1&error=x&error_description={}", "y".repeat(400)));
        assert_eq!(
            long.matches('y').count(),
            WORDS_MAX_CHARS + "the issuer says no more than this".matches('y').count()
        );
    }

    #[test]
    fn what_people_paste() {
        let cases = [
            ("http://127.0.0.1:5/callback?code=c1&state=s1\n", code("c1")),
            ("  \"https://i/show?state=s1&code=c1#top\"  ", code("c1")),
            ("?code=c1&state=s1", code("c1")),
            ("code=c1&state=s1", code("c1")),
            ("c1#s1", code("c1")),
            ("'c1'", code("c1")),
            ("4/0Ab_c-1", code("4/0Ab_c-1")),
            ("c1#s2", Callback::NotOurs("its 'state' is not that of this login")),
            (
                "http://x/?code=c1&state=s2",
                Callback::NotOurs("its 'state' is not that of this login"),
            ),
            ("http://x/?code=c1", Callback::NotOurs("it has no 'state'")),
            ("two words", Callback::NotOurs("it is not a code")),
            ("   ", Callback::NotOurs("it is not a code")),
            ("#s1", Callback::NotOurs("it is not a code")),
        ];
        for (text, expected) in cases {
            assert_eq!(of_pasted(text, &EXPECTED), expected, "{text:?}");
        }
        assert!(matches!(
            of_pasted("http://x/?error=access_denied&state=s1", &EXPECTED),
            Callback::Refused(_)
        ));
    }
}
