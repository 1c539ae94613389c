//! Pure decisions after an upstream failure.

use crate::http::body::BodyFault;
use crate::http::message::path_of;
use crate::http::refusal::{Code, Refusal};
use crate::proxy::cooldown::Proof;
use crate::upstream::UpstreamError;

/// True if a request that was refused with `code` may be tried elsewhere; `is_held` says that its whole body can be
/// sent again.
pub(crate) fn may_move_on(code: Code, is_held: bool) -> bool {
    match code {
        // Nothing was sent, and nothing of the body was read.
        Code::UpstreamUnreachable => true,
        Code::UpstreamBroken | Code::UpstreamTimeout => is_held,
        _ => is_before_sending(code),
    }
}

/// True if a request that is refused with `code` was not sent to the provider, and no connection was tried.
pub(crate) fn is_before_sending(code: Code) -> bool {
    matches!(code, Code::TokenUnavailable | Code::LoginNeeded | Code::Overloaded)
}

/// True if the provider itself failed with `code`, so that it cools down.
pub(crate) fn cools_down(code: Code) -> bool {
    matches!(code, Code::UpstreamUnreachable | Code::UpstreamBroken | Code::UpstreamTimeout)
}

/// The proof that a good answer to a request gives. Lists, files that are read, and counts of tokens use nothing of the account's
/// quota, and are served even if nothing is left.
pub(crate) fn proof(method: &str, target: &str) -> Proof {
    const COUNTS: [&str; 2] = ["/count_tokens", ":countTokens"];
    let path = path_of(target);
    let is_free = matches!(method, "GET" | "HEAD" | "OPTIONS")
        || COUNTS.iter().any(|counts| path.ends_with(counts));
    if is_free { Proof::Service } else { Proof::Quota }
}

/// True if an answer with `status` shows that the request was served: an answer about the request's own mistake (400,
/// 404, 413) may come from a check before that of the account, and shows no more than that the provider is there.
pub(crate) fn is_served(status: u16) -> bool {
    matches!(status, 200..=399)
}

/// The refusal for the client after an upstream failure; None if the client is gone.
pub(crate) fn refusal_for(error: &UpstreamError, provider: &str) -> Option<Refusal> {
    let (code, message) = match error {
        UpstreamError::ClientGone => return None,
        UpstreamError::RequestBody(error) => return refusal_for_body(error),
        UpstreamError::Unreachable(why) => {
            (Code::UpstreamUnreachable, format!("No connection to {provider}: {why}"))
        }
        UpstreamError::NoTls { why, remedy } => {
            (Code::UpstreamUnreachable, format!("No connection to {provider}: {why}{remedy}"))
        }
        UpstreamError::Short(shortage) => {
            (Code::OutOfResources, format!("No connection to {provider}: {shortage}"))
        }
        UpstreamError::Broken(why) => {
            (Code::UpstreamBroken, format!("{provider} did not answer as HTTP asks for: {why}"))
        }
        UpstreamError::TimedOut(why) => {
            (Code::UpstreamTimeout, format!("{provider} did not answer: {why}"))
        }
        UpstreamError::Unsendable(why) => {
            (Code::BadRequest, format!("The request can't be sent on: {why}"))
        }
    };
    Some(Refusal::new(code, message))
}

/// The refusal for the client about its own body; None if the client is gone.
pub(crate) fn refusal_for_body(error: &std::io::Error) -> Option<Refusal> {
    let too_large = "The request body is over settings.max_body_bytes";
    let too_late = "The request body did not come within settings.timeouts.client_idle";
    match BodyFault::of(error)? {
        BodyFault::Malformed(why) => {
            Some(Refusal::new(Code::BadRequest, format!("The request body is malformed: {why}")))
        }
        BodyFault::TooLarge => Some(Refusal::new(Code::BodyTooLarge, too_large)),
        BodyFault::Timeout => Some(Refusal::new(Code::ClientTimeout, too_late)),
        BodyFault::Gone => None,
    }
}

/// True if the client gets this candidate's refusal, `now`, and not that of the candidates `before` it: a message
/// that a person is needed does not replace one from a provider that may serve in a moment.
pub(crate) fn is_preferred(now: Code, before: Option<Code>) -> bool {
    before.is_none() || now != Code::LoginNeeded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::chunked::BadFraming;
    use crate::shortage::Shortage;

    #[test]
    fn failures_and_their_codes() {
        let text = || "x".to_owned();
        let body = |fault| UpstreamError::RequestBody(BodyFault::into_io(fault));
        let cases = [
            (UpstreamError::Unreachable(text()), Some(Code::UpstreamUnreachable)),
            (UpstreamError::NoTls { why: text(), remedy: "" }, Some(Code::UpstreamUnreachable)),
            (UpstreamError::Short(Shortage::Descriptors), Some(Code::OutOfResources)),
            (UpstreamError::Broken(text()), Some(Code::UpstreamBroken)),
            (UpstreamError::TimedOut(text()), Some(Code::UpstreamTimeout)),
            (UpstreamError::Unsendable(text()), Some(Code::BadRequest)),
            (UpstreamError::ClientGone, None),
            (body(BodyFault::Malformed(BadFraming::Size)), Some(Code::BadRequest)),
            (body(BodyFault::TooLarge), Some(Code::BodyTooLarge)),
            (body(BodyFault::Timeout), Some(Code::ClientTimeout)),
            (body(BodyFault::Gone), None),
        ];
        for (error, code) in cases {
            assert_eq!(refusal_for(&error, "P").map(|refusal| refusal.code), code, "{error:?}");
        }
    }

    #[test]
    fn what_moves_on_and_what_cools_down() {
        // Code, moves on with a held body, moves on without one, cools down.
        let cases = [
            (Code::UpstreamUnreachable, true, true, true),
            (Code::UpstreamBroken, true, false, true),
            (Code::UpstreamTimeout, true, false, true),
            (Code::TokenUnavailable, true, true, false),
            (Code::LoginNeeded, true, true, false),
            (Code::Overloaded, true, true, false),
            // evertoken's own shortage is not a provider's failure.
            (Code::OutOfResources, false, false, false),
            (Code::BadRequest, false, false, false),
            (Code::BodyTooLarge, false, false, false),
            (Code::ClientTimeout, false, false, false),
            (Code::UnknownProvider, false, false, false),
        ];
        for (code, held, streamed, cools) in cases {
            assert_eq!(may_move_on(code, true), held, "{code:?}");
            assert_eq!(may_move_on(code, false), streamed, "{code:?}");
            assert_eq!(cools_down(code), cools, "{code:?}");
        }
    }

    #[test]
    fn requests_that_use_a_quota() {
        for (method, target, expected) in [
            ("POST", "/v1/messages?beta=true", Proof::Quota),
            ("POST", "/v1/chat/completions", Proof::Quota),
            ("PUT", "/x", Proof::Quota),
            ("POST", "/v1/messages/count_tokens?beta=true", Proof::Service),
            ("POST", "/v1beta/models/g:countTokens", Proof::Service),
            ("POST", "/v1/messages?x=/count_tokens", Proof::Quota),
            ("GET", "/v1/models", Proof::Service),
            ("HEAD", "/", Proof::Service),
        ] {
            assert_eq!(proof(method, target), expected, "{method} {target}");
        }
    }

    #[test]
    fn statuses_of_requests_that_were_served() {
        for (status, expected) in [
            (200, true),
            (204, true),
            (304, true),
            (399, true),
            (101, false),
            (400, false),
            (404, false),
            (413, false),
            (501, false),
        ] {
            assert_eq!(is_served(status), expected, "{status}");
        }
    }

    #[test]
    fn that_a_person_is_needed_for_one_is_not_said_where_another_may_serve_soon() {
        for (before, now, told) in [
            (None, Code::LoginNeeded, Code::LoginNeeded),
            (Some(Code::LoginNeeded), Code::LoginNeeded, Code::LoginNeeded),
            (Some(Code::UpstreamUnreachable), Code::LoginNeeded, Code::UpstreamUnreachable),
            (Some(Code::LoginNeeded), Code::Overloaded, Code::Overloaded),
            (Some(Code::TokenUnavailable), Code::UpstreamUnreachable, Code::UpstreamUnreachable),
        ] {
            let preferred = if is_preferred(now, before) { Some(now) } else { before };
            assert_eq!(preferred, Some(told));
        }
    }
}
