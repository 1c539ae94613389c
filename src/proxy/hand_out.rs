//! Decides whether a client may have an access token itself (`/-/token/<slug>`). Pure.
//!
//! A token that leaves evertoken is out of its reach, so a request that may be forwarded with a token need not be one
//! that gets the token.

use std::fmt;

use crate::http::message::RequestHead;
use crate::http::refusal::{Code, Refusal};
use crate::peer::PeerProcess;

/// The client that asks for a token, after access was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker<'a> {
    /// A process at a unix socket; None if the system does not show it.
    Process(Option<PeerProcess>),
    /// Somebody with the key of this name, which lists the provider.
    Listing(&'a str),
    /// Somebody over TCP, with a key that lists no provider.
    Key,
    /// Anybody over TCP.
    Anybody,
}

/// `process 12 (user 1000)`, `a client with key "ci"`
impl fmt::Display for Asker<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(Some(process)) => {
                write!(f, "process {} (user {})", process.id, process.user)
            }
            Self::Process(None) => write!(f, "a process that the system does not show"),
            Self::Listing(name) => write!(f, "a client with key \"{name}\""),
            Self::Key => write!(f, "a client with a key"),
            Self::Anybody => write!(f, "a client over TCP"),
        }
    }
}

/// Refuses a token to whoever may not have it; `own_user` is the user of this process.
pub(crate) fn check(asker: Asker<'_>, head: &RequestHead, own_user: u32) -> Result<(), Refusal> {
    // No web page may have a token, whatever else it may do.
    if head.headers.contains("origin") || head.headers.contains("sec-fetch-site") {
        let message = "A browser gets no token, whichever page asks (Origin, Sec-Fetch-Site)";
        return Err(Refusal::new(Code::ForbiddenOrigin, message));
    }
    let why = match asker {
        Asker::Listing(_) => return Ok(()),
        Asker::Process(Some(process)) if process.user == own_user || process.user == 0 => {
            return Ok(());
        }
        Asker::Process(Some(process)) => format!(
            "Process {} belongs to user {}; tokens are for the user that runs evertoken ({own_user}) and root",
            process.id, process.user
        ),
        Asker::Process(None) => {
            "The system does not show whose process this is (another container?)".to_owned()
        }
        Asker::Key => "This key lists no provider, so it gets no token".to_owned(),
        Asker::Anybody => "Without a key, a port gets no token".to_owned(),
    };
    let message = format!(
        "{why}. A token goes over a unix socket (settings.listen) to the user that runs evertoken, also to its `evertoken token`, and anywhere to a client with a key of settings.auth.keys that lists the provider"
    );
    Err(Refusal::new(Code::NotAllowed, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::message::{BodyLength, Headers, Version};

    fn head(fields: &[(&str, &str)]) -> RequestHead {
        let mut headers = Headers::new();
        for (name, value) in fields {
            headers.push(*name, *value);
        }
        RequestHead {
            method: "GET".into(),
            target: "/-/token/p".into(),
            version: Version::Http11,
            authority: None,
            headers,
            body: BodyLength::Absent,
        }
    }

    #[test]
    fn our_user_and_root_get_a_token_over_a_unix_socket_and_nobody_else() {
        let of_user = |user| Asker::Process(Some(PeerProcess { id: 12, user }));
        for (asker, part) in [
            (of_user(1000), None),
            (of_user(0), None),
            (
                of_user(1001),
                Some(
                    "Process 12 belongs to user 1001; tokens are for the user that runs evertoken (1000)",
                ),
            ),
            (of_user(u32::MAX), Some("belongs to user")),
            (Asker::Process(None), Some("does not show")),
            (Asker::Key, Some("lists no provider")),
            (Asker::Anybody, Some("Without a key")),
            (Asker::Listing("ci"), None),
        ] {
            let told = check(asker, &head(&[]), 1000).err();
            assert_eq!(told.is_some(), part.is_some(), "{asker}");
            if let (Some(told), Some(part)) = (told, part) {
                assert_eq!(told.code, Code::NotAllowed);
                assert!(told.message.contains(part), "{}", told.message);
                // `evertoken token` prints this too, and must not be told to run itself.
                assert!(!told.message.contains("run: evertoken token"), "{}", told.message);
            }
        }
    }

    #[test]
    fn no_web_page_gets_a_token_not_even_one_of_ours() {
        let process = Asker::Process(Some(PeerProcess { id: 1, user: 0 }));
        for field in
            [("Origin", "http://localhost:8080"), ("Sec-Fetch-Site", "none"), ("Origin", "null")]
        {
            for asker in [process, Asker::Listing("ci")] {
                let told = check(asker, &head(&[field]), 0).unwrap_err();
                assert_eq!(told.code, Code::ForbiddenOrigin, "{field:?}");
            }
        }
    }
}
