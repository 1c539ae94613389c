//! `evertoken login`: gets a provider's first refresh token and puts it into the state folder.
//!
//! ```text
//!   authorization ──► browser ──► loopback or pasted text ──► callback ──► code ─┐
//!                                                                               ├─► token endpoint ─► state file
//!   device ──► user code, said ──► polls, as the issuer asks ───────────────────┘
//! ```
//!
//! [`authorization`], [`callback`], [`device`] and [`page`] are pure; [`loopback`] listens for the
//! browser, [`terminal`] is the person's side. Time, randomness, the terminal and the way to the
//! issuer come in from outside.

use std::io;
use std::time::Duration;

use crossbeam_channel::select;

use crate::clock::{Due, Moment};
use crate::config::redirect::Loopback;
use crate::config::{GrantType, LoginEndpoints, Missing, Redirect};
use crate::secret::Secret;
use crate::token::assertion::{Assertions, SigningStamp};
use crate::token::discovery;
use crate::token::grant::{self, Grant, TokenRequest};
use crate::token::refresher::{Setup, TICK_MS, store_login};
use crate::token::scope;
use crate::token::sender::TokenAnswer;

pub(crate) mod authorization;
pub(crate) mod callback;
mod consent;
pub(crate) mod device;
pub(crate) mod discover;
mod error;
pub(crate) mod logout;
pub(crate) mod loopback;
pub(crate) mod page;
mod refused;
pub(crate) mod terminal;

use authorization::AuthorizationRequest;
use callback::{Callback, Expected};
use device::{DeviceAuthorization, DeviceError, Poll};
pub(crate) use error::LoginError;
use loopback::CallbackListener;

/// The longest time for a person to use the browser or paste something.
pub(crate) const PERSON_MAX: Duration = Duration::from_mins(10);
/// The longest time for a request to the issuer.
const REQUEST_MAX: Duration = Duration::from_secs(30);
/// The most pastes that make no sense.
const PASTES_MAX: u32 = 3;
/// Ports on which nobody is expected to listen, for a callback that must never arrive.
const UNUSED_PORTS: std::ops::Range<u16> = 49_152..65_535;

/// The way to log in, from the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoginOptions {
    /// Paste the browser's text.
    pub paste: bool,
    /// Use a device code.
    pub device: bool,
    /// Do not open a browser.
    pub no_browser: bool,
}

/// A way to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Method {
    /// The browser returns to evertoken.
    Browser(String, Loopback),
    /// The browser's address, or the code that it shows, is pasted: the URL to open, and the redirect.
    Paste(String, Option<Redirect>),
    /// A code is typed into any browser.
    Device(String),
}

/// Reads a line within a time; None if none came.
pub(crate) type ReadLine<'a> = &'a mut dyn FnMut(Duration) -> io::Result<Option<String>>;

/// The surroundings that a login needs.
pub(crate) struct LoginIo<'a> {
    /// Prints a message for the person at the terminal.
    pub say: &'a mut dyn FnMut(&str),
    /// Reads the person's line.
    pub ask: ReadLine<'a>,
    /// Tries to open a browser, if the person wants that.
    pub open: &'a mut dyn FnMut(&str),
    /// Fills the bytes with unpredictable values.
    pub random: &'a mut dyn FnMut(&mut [u8]) -> io::Result<()>,
}

/// Completes the configuration of `setup` with the metadata of its issuer, if it lacks an endpoint that the login needs.
/// Returns a warning about the metadata.
pub(crate) fn discover(
    setup: &mut Setup,
    options: LoginOptions,
) -> Result<Option<String>, LoginError> {
    let config = &mut setup.config;
    let Some(issuer) = config.login.issuer.clone() else { return Ok(None) };
    let has_browser = config.login.authorization_url.is_some();
    let has_device = config.login.device_authorization_url.is_some();
    let has_way = match options {
        LoginOptions { device: true, .. } => has_device,
        LoginOptions { paste: true, .. } => has_browser,
        _ => has_device || has_browser,
    };
    if has_way && !config.unwritten.token_url {
        return Ok(None);
    }
    let folder = setup.state.folder();
    let (kept, warning) = discovery::find(&issuer, folder, &setup.link.send, setup.clock.wall())?;
    discovery::complete(config, &kept.metadata)?;
    let is_written = config.login.authorization_url.is_some();
    let has_certificate = config.client_certificate.is_some();
    let wants = (options.paste, options.device);
    discovery::complete_login(&mut config.login, &kept.metadata, has_certificate, wants);
    if !is_written && let Some(url) = &mut config.login.authorization_url {
        consent::ask(url, config.scope.as_deref());
    }
    Ok(warning)
}

/// The login of `setup` lacks `key`: because there is nothing to log in to, if its grant needs no refresh token.
fn unconfigured(setup: &Setup, key: &'static str) -> LoginError {
    let name = setup.name.clone();
    match &setup.config.grant_type {
        GrantType::RefreshToken => LoginError::Unconfigured(name, key),
        other => LoginError::NotNeeded(name, other.name()),
    }
}

/// Logs in to the provider of `setup` and stores the result; returns the message about it.
pub(crate) fn run(
    setup: &Setup,
    options: LoginOptions,
    io: &mut LoginIo<'_>,
) -> Result<String, LoginError> {
    let method = choose(&setup.config.login, options).map_err(|key| unconfigured(setup, key))?;
    (io.say)(&format!("Logging in to provider: {}", setup.name));
    let stored = match method {
        Method::Browser(url, loopback) => by_browser(setup, &url, &loopback, io)?,
        Method::Paste(url, redirect) => by_paste(setup, &url, redirect, io)?,
        Method::Device(url) => by_device(setup, &url, io)?,
    };
    let unseen = match &setup.config.seed {
        Some(Err(missing)) => format!(
            "{missing}. If the service has it, and never used it so far, a chain would begin with it \
             at the next start: take it out of the service's environment.\n"
        ),
        Some(Ok(_)) | None => String::new(),
    };
    Ok(stored + &unseen)
}

/// Stores a login's tokens; returns the message about it.
fn store(setup: &Setup, (grant, sent): (Grant, Moment)) -> Result<String, LoginError> {
    let refresh_token = grant.refresh_token.clone().ok_or(LoginError::NoRefreshToken)?;
    let path = store_login(setup, &grant, &refresh_token, sent).map_err(LoginError::NotStored)?;
    let narrowed = narrowed(setup.config.scope.as_deref(), grant.scope.as_deref());
    Ok(format!(
        "Logged in. The tokens are in {}; an evertoken that runs on this state folder uses them within \
         {} seconds.\n{}",
        path.display(),
        TICK_MS / 1000,
        narrowed.unwrap_or_default()
    ))
}

/// The message about a grant that is smaller than the request.
fn narrowed(asked: Option<&str>, granted: Option<&str>) -> Option<String> {
    let (asked, granted) = (asked?, granted?);
    scope::lacks(granted, asked).then(|| {
        format!(
            "The issuer granted the scope '{}' and not all of '{asked}'; refreshes ask for no more than \
             was granted.\n",
            callback::printable(granted)
        )
    })
}

/// The method that the configuration and the command line choose; the error is the missing key.
fn choose(endpoints: &LoginEndpoints, options: LoginOptions) -> Result<Method, &'static str> {
    let device = endpoints.device_authorization_url.clone();
    let browser = endpoints.authorization_url.clone();
    if options.device || (device.is_some() && !options.paste) {
        return device.map(Method::Device).ok_or("a 'device_authorization_url'");
    }
    let Some(url) = browser else {
        let either = "an 'authorization_url' (or a 'device_authorization_url')";
        return Err(if options.paste { "an 'authorization_url'" } else { either });
    };
    Ok(match endpoints.redirect_uri.clone() {
        redirect if options.paste => Method::Paste(url, redirect),
        redirect @ Some(Redirect::Elsewhere(_)) => Method::Paste(url, redirect),
        Some(Redirect::Loopback(loopback)) => Method::Browser(url, loopback),
        None => Method::Browser(url, Loopback::default()),
    })
}

fn by_browser(
    setup: &Setup,
    url: &str,
    loopback: &Loopback,
    io: &mut LoginIo<'_>,
) -> Result<String, LoginError> {
    let listener = CallbackListener::bind(loopback)
        .map_err(|error| LoginError::Bind(loopback.uri(loopback.port.unwrap_or(0)), error))?;
    let redirect_uri = loopback.uri(listener.port);
    let attempt = begin(io)?;
    send_to_browser(setup, url, &attempt, &redirect_uri, io)?;
    (io.say)(&format!(
        "Waiting until the browser comes back to {redirect_uri}, at most {} minutes. Where it runs \
         on another machine, end this with Ctrl-C and use --paste.",
        PERSON_MAX.as_secs() / 60
    ));
    let expected = expected(setup, &attempt);
    let deadline = (setup.timer)(PERSON_MAX);
    loop {
        let visit = select! {
            recv(listener.visits) -> visit => visit.map_err(|_| LoginError::ListenerEnded)?,
            recv(deadline) -> _ => return Err(LoginError::BrowserLate),
        };
        let outcome = match callback::of_query(&visit.query, &expected) {
            Callback::NotOurs(why) => {
                (io.say)(&format!("A callback was ignored: {why}"));
                visit.answer(&page::ignored(why));
                continue;
            }
            Callback::Refused(why) => Err(LoginError::Refused(why)),
            Callback::Code(code) => exchange_code(setup, &attempt, &code, &redirect_uri)
                .and_then(|granted| store(setup, granted)),
        };
        visit.answer(&match &outcome {
            Ok(_) => page::done(&setup.name),
            Err(error) => page::failed(&error.to_string()),
        });
        return outcome;
    }
}

fn by_paste(
    setup: &Setup,
    url: &str,
    redirect: Option<Redirect>,
    io: &mut LoginIo<'_>,
) -> Result<String, LoginError> {
    let attempt = begin(io)?;
    let redirect_uri = match redirect {
        Some(Redirect::Elsewhere(uri)) => uri,
        Some(Redirect::Loopback(loopback)) => loopback.uri(loopback.port.unwrap_or(attempt.port)),
        None => Loopback::default().uri(attempt.port),
    };
    send_to_browser(setup, url, &attempt, &redirect_uri, io)?;
    (io.say)(&format!(
        "Log in there. At the end the browser shows a code, or goes to an address that begins with \
         {redirect_uri} and may not load. Paste the code, or the whole address, here:"
    ));
    let expected = expected(setup, &attempt);
    for _ in 0..PASTES_MAX {
        let line =
            (io.ask)(PERSON_MAX).map_err(LoginError::Terminal)?.ok_or(LoginError::PasteLate)?;
        if line.is_empty() {
            return Err(LoginError::InputEnded);
        }
        if callback::is_address_to_open(&line, url) {
            (io.say)(
                "That is the address to open; paste the one that the browser shows at the end. Once more:",
            );
            continue;
        }
        match callback::of_pasted(&line, &expected) {
            Callback::Code(code) => {
                return store(setup, exchange_code(setup, &attempt, &code, &redirect_uri)?);
            }
            Callback::Refused(why) => return Err(LoginError::Refused(why)),
            Callback::NotOurs(why) => (io.say)(&format!("That is not it: {why}. Once more:")),
        }
    }
    Err(LoginError::NotTheCode)
}

fn begin(io: &mut LoginIo<'_>) -> Result<AuthorizationRequest, LoginError> {
    let mut bytes = [0; authorization::RANDOM_BYTES];
    (io.random)(&mut bytes).map_err(LoginError::Random)?;
    Ok(AuthorizationRequest::new(&bytes, UNUSED_PORTS))
}

fn expected<'a>(setup: &'a Setup, attempt: &'a AuthorizationRequest) -> Expected<'a> {
    let login = &setup.config.login;
    let (issuer, iss_may_lack) = (login.issuer.as_deref(), login.iss_may_lack);
    Expected { state: &attempt.state, issuer, iss_may_lack }
}

fn send_to_browser(
    setup: &Setup,
    url: &str,
    attempt: &AuthorizationRequest,
    redirect_uri: &str,
    io: &mut LoginIo<'_>,
) -> Result<(), LoginError> {
    // Before the browser opens: a secret that is missing at the exchange would waste the code.
    if let Some(missing) = Missing::all(setup.config.missing_of_client()) {
        return Err(missing.into());
    }
    let client_id = setup.config.client_id.as_deref();
    let client_id = client_id.map_err(Clone::clone)?;
    let scope = setup.config.scope.as_deref();
    let params = &setup.config.extra_params;
    let resource = params.iter().find(|(name, _)| name == "resource");
    let resource = resource.map(|(_, value)| value.as_str());
    let address = attempt.url(url, client_id, redirect_uri, scope, resource);
    (io.say)(&format!("Open this address in a browser:\n\n  {address}\n"));
    (io.open)(&address);
    Ok(())
}

fn exchange_code(
    setup: &Setup,
    attempt: &AuthorizationRequest,
    code: &Secret,
    redirect_uri: &str,
) -> Result<(Grant, Moment), LoginError> {
    let assertions = Assertions::of_client(&setup.config, &SigningStamp::at(setup.clock.wall()))?;
    let request = attempt.token_request(&setup.config, code, redirect_uri, &assertions)?;
    let (answer, sent) = send(setup, &request);
    let answer = answer.map_err(LoginError::Unanswered)?;
    let granted = read(setup, &answer, sent).map_err(|failure| {
        LoginError::CodeRefused(failure.without(setup.config.secrets().chain([code])))
    })?;
    Ok((granted, sent))
}

fn by_device(setup: &Setup, url: &str, io: &mut LoginIo<'_>) -> Result<String, LoginError> {
    let config = &setup.config;
    // RFC 8628 §3.1.
    let assertions = || Assertions::of_client(config, &SigningStamp::at(setup.clock.wall()));
    let scope = config.scope.as_deref();
    let request = grant::request_with(config, url, Vec::new(), scope, &assertions()?)?;
    let (answer, asked) = send(setup, &request);
    let answer = answer.map_err(LoginError::Unanswered)?;
    let pending = DeviceAuthorization::read(&answer, asked.wall)
        .map_err(|error| error.without(config.secrets()))?;
    (io.say)(&pending.instructions());
    if let Some(address) = pending.address() {
        (io.open)(address);
    }
    let ends = Due::after(asked, pending.lifetime_ms);
    let mut poll = Poll { interval_ms: pending.interval_ms };
    let mut wait_ms = poll.interval_ms;
    loop {
        // Only the timer's end matters.
        let _ = (setup.timer)(Duration::from_millis(wait_ms)).recv();
        if ends.reached(setup.clock.now()) {
            return Err(DeviceError::Expired.into());
        }
        // An assertion serves once only (RFC 7523 §3).
        let request = device::token_request(config, &pending, &assertions()?)?;
        let (answer, sent) = send(setup, &request);
        let outcome = answer.map(|answer| read(setup, &answer, sent));
        match outcome {
            Ok(Ok(granted)) => return store(setup, (granted, sent)),
            Ok(Err(failure)) => {
                wait_ms = poll.after_error(&failure).map_err(|error| {
                    error.without(config.secrets().chain([&pending.device_code]))
                })?;
            }
            Err(_) => wait_ms = poll.after_silence(),
        }
    }
}

fn send(setup: &Setup, request: &TokenRequest) -> (Result<TokenAnswer, grant::Failure>, Moment) {
    let sent = setup.clock.now();
    ((setup.link.send)(request, REQUEST_MAX.into(), &|| false), sent)
}

fn read(setup: &Setup, answer: &TokenAnswer, sent: Moment) -> Result<Grant, grant::Failure> {
    let fields = &setup.config.token_fields;
    grant::read(answer.status, &answer.headers, &answer.body, fields, sent.wall)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_way_is_taken() {
        let browser = || Some("https://i/auth".to_owned());
        let device = || Some("https://i/device".to_owned());
        let here = || Redirect::parse("http://localhost:7/cb").unwrap();
        let there = || Redirect::parse("https://i/show").unwrap();
        let endpoints =
            |authorization_url, device_authorization_url, redirect_uri| LoginEndpoints {
                authorization_url,
                device_authorization_url,
                redirect_uri,
                ..LoginEndpoints::default()
            };
        let paste = LoginOptions { paste: true, ..LoginOptions::default() };
        let by_code = LoginOptions { device: true, ..LoginOptions::default() };
        let name = |endpoints: &LoginEndpoints, options| match choose(endpoints, options) {
            Ok(Method::Browser(_, loopback)) => format!("browser {:?}", loopback.port),
            Ok(Method::Paste(..)) => "paste".to_owned(),
            Ok(Method::Device(_)) => "device".to_owned(),
            Err(key) => key.to_owned(),
        };
        let any = LoginOptions::default();
        let cases = [
            (endpoints(browser(), None, None), any, "browser None"),
            (endpoints(browser(), None, Some(here())), any, "browser Some(7)"),
            (endpoints(browser(), None, Some(there())), any, "paste"),
            (endpoints(browser(), None, Some(here())), paste, "paste"),
            (endpoints(browser(), None, None), paste, "paste"),
            (endpoints(None, device(), None), any, "device"),
            (endpoints(browser(), device(), None), any, "device"),
            (endpoints(browser(), device(), None), paste, "paste"),
            (endpoints(browser(), device(), None), by_code, "device"),
        ];
        for (endpoints, options, expected) in cases {
            assert_eq!(name(&endpoints, options), expected, "{endpoints:?} {options:?}");
        }
        for (endpoints, options) in [
            (endpoints(None, None, None), any),
            (endpoints(browser(), None, None), by_code),
            (endpoints(None, device(), None), paste),
        ] {
            assert!(choose(&endpoints, options).is_err(), "{endpoints:?}");
        }
    }
}
