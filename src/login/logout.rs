//! `evertoken logout`: revokes a provider's tokens (RFC 7009), and deletes them from the state folder and the token
//! store.

use std::path::Path;
use std::time::Duration;

use crate::config::Missing;
use crate::record::SavedAccess;
use crate::secret::Secret;
use crate::token::assertion::{Assertions, SigningStamp};
use crate::token::discovery;
use crate::token::grant::codes::without_detail;
use crate::token::grant::{self, What};
use crate::token::refresher::{EndingTokens, NotStored, Setup, TICK_MS, log_out};

/// The longest time for a revocation. The chain is locked meanwhile.
const REQUEST_MAX: Duration = Duration::from_secs(10);

/// The reason why a logout changed nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogoutError {
    /// A revocation needs the client, which is missing.
    #[error("{0}")]
    Missing(#[from] Missing),
    /// The end of the chain could not be stored.
    #[error("{0}")]
    NotStored(#[from] NotStored),
}

/// The outcome of a logout.
#[derive(Debug, Default)]
pub(crate) struct LoggedOut {
    /// The outcome for each token, one per line.
    pub lines: Vec<String>,
    /// False if a token could not be revoked though the issuer has an endpoint for that, or its endpoints are unknown.
    pub is_complete: bool,
}

/// The revocation endpoint.
enum RevocationEndpoint {
    At(String),
    /// There is none.
    None,
    /// The issuer's metadata, which names it, is not known for this reason.
    Unknown(String),
}

/// Logs out of the provider of `setup`.
pub(crate) fn run(setup: &mut Setup) -> Result<LoggedOut, LogoutError> {
    let endpoint = find_endpoint(setup);
    if let (RevocationEndpoint::At(_), Some(missing)) =
        (&endpoint, Missing::all(setup.config.missing_of_client()))
    {
        return Err(missing.into());
    }
    let mut report = LoggedOut { is_complete: true, ..LoggedOut::default() };
    let path = log_out(setup, |tokens| revoke_all(setup, &endpoint, tokens, &mut report))?;
    report.lines.push(end_of(path.as_deref(), &setup.name));
    report.lines.extend(told_of_seed(setup));
    Ok(report)
}

/// The written revocation endpoint, else that of the issuer's metadata, which then also completes the client.
fn find_endpoint(setup: &mut Setup) -> RevocationEndpoint {
    let config = &mut setup.config;
    if config.login.revocation_url.is_none() || config.unwritten.token_url {
        // An issuer that is no address only tells answers of logins apart.
        let issuer = config.login.issuer.clone().filter(|issuer| issuer.contains("://"));
        let Some(issuer) = issuer else { return RevocationEndpoint::None };
        let now = setup.clock.wall();
        match discovery::find(&issuer, setup.state.folder(), &setup.link.send, now) {
            Ok((kept, _)) => {
                // A revocation needs no token endpoint.
                let _ = discovery::complete(config, &kept.metadata);
                let has_certificate = config.client_certificate.is_some();
                let (login, found) = (&mut config.login, &kept.metadata);
                discovery::complete_login(login, found, has_certificate, (false, false));
            }
            Err(error) if config.login.revocation_url.is_none() => {
                return RevocationEndpoint::Unknown(error.to_string());
            }
            // The endpoint is written; the client authenticates as configured.
            Err(_) => {}
        }
    }
    config.login.revocation_url.clone().map_or(RevocationEndpoint::None, RevocationEndpoint::At)
}

fn revoke_all(
    setup: &Setup,
    endpoint: &RevocationEndpoint,
    tokens: &EndingTokens,
    report: &mut LoggedOut,
) {
    let refresh = tokens.refresh.iter().map(|token| ("refresh_token", token, None));
    let access = tokens.access.as_ref().map(|access| ("access_token", &access.token, Some(access)));
    let mut is_refresh_revoked = false;
    // RFC 7009 §2.1: with the refresh token, an issuer also ends the access tokens of its grant, as far as it can.
    for (kind, token, access) in refresh.chain(access) {
        let outcome = match endpoint {
            RevocationEndpoint::At(url) => revoke(setup, url, (token, kind), tokens),
            RevocationEndpoint::None => {
                Err(NotRevoked::Unsupported("the issuer has no known revocation endpoint".into()))
            }
            RevocationEndpoint::Unknown(why) => Err(NotRevoked::Failed(why.clone())),
        };
        let is_revoked = outcome.is_ok();
        report.note(kind, access, outcome, is_refresh_revoked);
        is_refresh_revoked |= is_revoked;
    }
    if tokens.refresh.is_empty() && tokens.access.is_none() {
        report.lines.push("There was no token to revoke.".to_owned());
    }
    if tokens.come_again {
        report.lines.push(
            "Its grant needs no login: a running evertoken gets a new token by itself. Disable the provider to end that."
                .to_owned(),
        );
    }
}

/// The time at which a token was revoked.
enum Revoked {
    /// By this request.
    Now,
    /// Before it. Keycloak, Google and others then answer `invalid_token`, above all for the access token of a refresh token
    /// that was just revoked. RFC 7009 §2.2 takes that for a success.
    Before,
}

/// The reason why a token was not revoked.
enum NotRevoked {
    /// The issuer can't revoke tokens of this kind.
    Unsupported(String),
    /// The request failed.
    Failed(String),
}

/// Revokes `token`, one of `all`, at `url` (RFC 7009 §2.1).
fn revoke(
    setup: &Setup,
    url: &str,
    (token, kind): (&Secret, &'static str),
    all: &EndingTokens,
) -> Result<Revoked, NotRevoked> {
    let stamp = SigningStamp::at(setup.clock.wall());
    let request = Assertions::of_client(&setup.config, &stamp)
        .and_then(|signed| grant::revocation(&setup.config, url, token, kind, &signed))
        .map_err(|missing| NotRevoked::Failed(missing.to_string()))?;
    let sent = setup.clock.wall();
    let answer = (setup.link.send)(&request, REQUEST_MAX.into(), &|| false)
        .map_err(|failure| NotRevoked::Failed(format!("{url}: {}", failure.what)))?;
    let fields = &setup.config.token_fields;
    let read = grant::read(answer.status, &answer.headers, &answer.body, fields, sent);
    // An answer without an error is a success, whatever its content (RFC 7009 §2.2).
    let Err(failure) = read else { return Ok(Revoked::Now) };
    let what = failure.without(setup.config.secrets().chain(all.secrets())).what;
    let What::Status(_, code) = &what else { return Ok(Revoked::Now) };
    match code.as_deref().map(without_detail) {
        Some("unsupported_token_type") => {
            Err(NotRevoked::Unsupported("the issuer revokes no tokens of this kind".into()))
        }
        Some("invalid_token") => Ok(Revoked::Before),
        _ => Err(NotRevoked::Failed(format!("{url} answers {what}"))),
    }
}

impl LoggedOut {
    fn note(
        &mut self,
        kind: &str,
        access: Option<&SavedAccess>,
        outcome: Result<Revoked, NotRevoked>,
        is_refresh_revoked: bool,
    ) {
        let kind = kind.replace('_', " ");
        let (why, has_failed) = match outcome {
            Ok(Revoked::Now) => return self.lines.push(format!("Revoked the {kind}.")),
            Ok(Revoked::Before) => {
                return self.lines.push(format!("The {kind} had ended already."));
            }
            Err(NotRevoked::Unsupported(why)) => (why, false),
            Err(NotRevoked::Failed(why)) => (why, true),
        };
        self.is_complete &= !has_failed;
        let rest = match access {
            Some(_) if is_refresh_revoked => {
                " Most issuers end it together with its refresh token.".to_owned()
            }
            Some(access) => format!(" Who has it can use it until {}.", access.expires_at),
            None => " End the session in the account's settings at the issuer.".to_owned(),
        };
        self.lines.push(format!("The {kind} was not revoked: {why}.{rest}"));
    }
}

fn end_of(path: Option<&Path>, name: &str) -> String {
    match path {
        Some(path) => format!(
            "Logged out of provider: {name}. {} holds no token any more; an evertoken that runs on this state folder \
             drops its tokens within {} seconds.",
            path.display(),
            TICK_MS / 1000
        ),
        None => format!("Provider {name} was not logged in: nothing is stored for it."),
    }
}

/// The note about a configured refresh token.
fn told_of_seed(setup: &Setup) -> Option<String> {
    let key =
        if setup.config.files.seed.is_some() { "refresh_token_file" } else { "refresh_token_env" };
    match setup.config.seed.as_ref()? {
        Ok(_) => Some(format!(
            "The configured refresh token ({key}) is still set. evertoken does not begin with it again; take it out."
        )),
        Err(missing) => Some(format!(
            "{missing}. If the service has it, and never used it so far, a chain would begin with it at the next \
             start: take it out of the service's environment."
        )),
    }
}
