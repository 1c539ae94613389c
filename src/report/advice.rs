//! Advice for a provider's problem; commands stand in backticks. Pure.

use crate::report::{CredentialKind, ProviderReport, State};
use crate::token::history::{ASSERTION_KEYS, REQUEST_KEYS, Trouble};

/// The commands that help with a provider's problem.
#[derive(Clone, Debug, Default)]
pub(crate) struct Commands {
    /// Logs in, if a login is configured.
    pub login: Option<String>,
    /// Tests its endpoints.
    pub check_online: String,
}

/// Advice for the provider's problem; None without a problem.
pub(crate) fn advice(provider: &ProviderReport, commands: &Commands) -> Option<String> {
    let trouble = provider.refresh.trouble;
    if let Some(waiting) = provider.waiting.as_ref().filter(|_| provider.enabled) {
        return Some(waiting.advice.clone());
    }
    match (provider.state, trouble, provider.credential) {
        (State::Disabled, _, _) => None,
        (_, Some(trouble), _) => Some(about(trouble, commands)),
        (State::CoolingDown, None, _) if provider.has_nothing_left() => Some(
            "Its quota is used up; until the reset requests go to the next provider that fits. Nothing to do."
                .to_owned(),
        ),
        (State::CoolingDown, None, _) => Some(
            "The provider failed or asked to wait, or its credit or quota is used up, as the log says; meanwhile \
             requests go to the next provider that fits. Nothing to do unless it lasts."
                .to_owned(),
        ),
        (State::Unavailable, None, CredentialKind::Missing) => {
            Some(about(Trouble::Missing, &Commands::default()))
        }
        (State::Unavailable, None, CredentialKind::Stored) => Some(
            "Set auto_refresh_config.enabled to true, or give the provider an auth_value; then reload."
                .to_owned(),
        ),
        (State::Unavailable, None, CredentialKind::File) => Some(
            "Check the program that keeps this file; evertoken reads the file again when it changes.".to_owned(),
        ),
        (State::Unavailable, None, _) => {
            Some("Wait a moment; the log has the details.".to_owned())
        }
        (State::Ready | State::Refreshing | State::Failing, None, _) => None,
    }
}

/// Advice for a new refresh token; `login` is the command, if a login is configured.
pub(crate) fn login_again(login: Option<&str>) -> String {
    match login {
        Some(login) => format!("Log in again: `{login}`"),
        None => {
            "Log in again with the provider's own tool, and give evertoken the new refresh token."
                .to_owned()
        }
    }
}

fn about(trouble: Trouble, commands: &Commands) -> String {
    let login = commands.login.as_ref().map(|login| format!("`{login}`"));
    let again = login_again(commands.login.as_deref());
    let text = match trouble {
        Trouble::Missing => {
            let set = "Set it in evertoken's environment and restart; evertoken reads a secret file again by itself.";
            return login
                .map_or_else(|| set.to_owned(), |login| format!("{set} Or log in: {login}"));
        }
        Trouble::LoginNeeded => {
            return login.map_or(again, |login| format!("Log in: {login}"));
        }
        Trouble::Unreachable => {
            return format!(
                "Check the network and token_url; `{}` tries every step. evertoken retries by itself.",
                commands.check_online
            );
        }
        Trouble::NoMetadata => {
            return format!(
                "Check the network and issuer, or write token_url; `{}` shows the metadata. evertoken retries by \
                 itself.",
                commands.check_online
            );
        }
        Trouble::OutOfResources => {
            "Raise the limit that the log names, or lower settings.max_connections."
        }
        Trouble::NoAnswer | Trouble::IssuerFails => {
            "The fault is on the issuer's side. evertoken retries by itself; nothing to do unless it \
             lasts."
        }
        Trouble::NotAToken => {
            "Something else answers at token_url: a captive portal, a proxy, or another page. Check \
             the URL and the network."
        }
        Trouble::NoBearer => {
            "See the provider that bearer_provider names: it has no token. evertoken retries by itself."
        }
        Trouble::CommandFails => {
            "Run the token_command by hand, as the user that evertoken runs as and without a terminal. evertoken \
             runs it again by itself."
        }
        Trouble::Throttled => {
            "The issuer asks to wait. evertoken retries by itself; refreshing by hand makes the wait \
             longer."
        }
        Trouble::TokenDead => {
            return format!(
                "If it happens again, somebody else uses the same refresh token. {again}"
            );
        }
        Trouble::AnswerLost => {
            return format!(
                "The issuer replaced the refresh token, but its answer was lost. {again}"
            );
        }
        Trouble::ClientRefused => {
            "Compare client_id, client_auth and the client's secret, key or certificate with the issuer's registration."
        }
        Trouble::RequestRefused => {
            return format!("The issuer rejects the form of the request: {REQUEST_KEYS}.");
        }
        Trouble::ScopeRefused => {
            "Compare scope and extra_params with the scopes that the issuer grants."
        }
        Trouble::AssertionRefused => {
            return format!("The issuer rejects the assertion: {ASSERTION_KEYS}.");
        }
        Trouble::ClockOff => {
            "Set this machine's clock, for example with NTP. evertoken retries by itself."
        }
        Trouble::SubjectEnded => {
            "Check the program that keeps the token. evertoken reads it again and retries by itself."
        }
        Trouble::StoreAway => {
            "Check the token store; `evertoken check --online` tests it. evertoken retries by itself, and \
             every host waits for it."
        }
        Trouble::WrongUrl => "Check token_url: that address accepts no token requests.",
        Trouble::NoReason => {
            "A firewall answered, or the issuer gave no reason. evertoken retries by itself; if it lasts, check \
             the network, client_id and client_secret."
        }
        Trouble::Refused => {
            "The issuer rejects this client or account. Correct it there, then refresh."
        }
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::words::sample;

    #[test]
    fn each_trouble_has_its_advice_and_none_needs_none() {
        use CredentialKind::{File, Missing, Refreshed, Static, Stored};
        let with = |state, trouble, credential| {
            let mut provider = sample("One");
            (provider.state, provider.credential) = (state, credential);
            provider.refresh.trouble = trouble;
            let check_online = "evertoken check --online".to_owned();
            let none = Commands { login: None, check_online: check_online.clone() };
            let without = advice(&provider, &none);
            assert!(!without.as_deref().unwrap_or("").contains("evertoken login"));
            let login = Some("evertoken login --provider one".to_owned());
            advice(&provider, &Commands { login, check_online })
        };
        let cases = [
            (State::Failing, Some(Trouble::Missing), Refreshed, "Or log in: `evertoken login"),
            (State::Unavailable, Some(Trouble::LoginNeeded), Refreshed, "Log in: `evertoken"),
            (State::Failing, Some(Trouble::Unreachable), Refreshed, "check --online"),
            (State::Failing, Some(Trouble::NoMetadata), Refreshed, "write token_url"),
            (State::Failing, Some(Trouble::NoAnswer), Refreshed, "issuer's side"),
            (State::Failing, Some(Trouble::IssuerFails), Refreshed, "issuer's side"),
            (State::Failing, Some(Trouble::NotAToken), Refreshed, "captive portal"),
            (State::Failing, Some(Trouble::CommandFails), Refreshed, "by hand"),
            (State::Failing, Some(Trouble::NoBearer), Refreshed, "bearer_provider"),
            (State::Failing, Some(Trouble::Throttled), Refreshed, "asks to wait"),
            (State::Unavailable, Some(Trouble::TokenDead), Refreshed, "login --provider one`"),
            (State::Unavailable, Some(Trouble::AnswerLost), Refreshed, "login --provider one`"),
            (State::Failing, Some(Trouble::ClientRefused), Refreshed, "client_auth"),
            (State::Failing, Some(Trouble::RequestRefused), Refreshed, "request_format"),
            (State::Failing, Some(Trouble::ScopeRefused), Refreshed, "scope"),
            (State::Failing, Some(Trouble::AssertionRefused), Refreshed, "key_id"),
            (State::Failing, Some(Trouble::ClockOff), Refreshed, "clock"),
            (State::Failing, Some(Trouble::SubjectEnded), Refreshed, "keeps the token"),
            (State::Failing, Some(Trouble::WrongUrl), Refreshed, "token_url"),
            (State::Unavailable, Some(Trouble::StoreAway), Refreshed, "token store"),
            (State::Failing, Some(Trouble::NoReason), Refreshed, "firewall"),
            (State::CoolingDown, Some(Trouble::Refused), Refreshed, "account"),
            (State::CoolingDown, None, Static, "next provider"),
            (State::Unavailable, None, Missing, "restart"),
            (State::Unavailable, None, File, "keeps this file"),
            (State::Unavailable, None, Stored, "enabled to true"),
            (State::Unavailable, None, Refreshed, "Wait"),
        ];
        for (state, trouble, credential, part) in cases {
            let text = with(state, trouble, credential).unwrap();
            assert!(text.contains(part), "{state:?} {trouble:?}: {text}");
        }
        for state in [State::Ready, State::Refreshing, State::Failing, State::Disabled] {
            assert_eq!(with(state, None, Refreshed), None);
        }
        assert_eq!(with(State::Disabled, Some(Trouble::TokenDead), Refreshed), None);
    }
}
