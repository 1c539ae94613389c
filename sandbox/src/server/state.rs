//! The answers to all requests: the issuer's endpoints, the person's page, controls for tests, and the provider's API.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tiny_http::{Header, Request, Response};

use crate::device_page::{self, Visit};
use crate::discovery;
use crate::exchange::{Asked, Exchange};
use crate::faults::{Fault, Faults};
use crate::issuer::{Issuer, Outcome};
use crate::manners::answer::{Answer, Values, fill, of_api};
use crate::manners::request::TokenRequest;
use crate::manners::{Manners, Template};
use crate::provider::{self, PromptCache, Reply};
use crate::refusals::Refusals;
use crate::server::Clock;

/// The largest accepted request body.
const BODY_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// The answer to a request for a WebSocket: clients such as Codex go on with plain requests then.
const NO_UPGRADE: &[u8] =
    b"HTTP/1.1 426 Upgrade Required\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// The place of the metadata of the provider's API.
const RESOURCE_METADATA: &str = "/.well-known/oauth-protected-resource";

/// What every request is answered with.
pub(super) struct State {
    /// `http://127.0.0.1:PORT`.
    pub(super) url: String,
    pub(super) event_delay: Duration,
    pub(super) manners: Manners,
    pub(super) clock: Clock,
    pub(super) issuer: Mutex<Issuer>,
    pub(super) faults: Mutex<Faults>,
    /// The prompt cache of each account.
    pub(super) caches: Mutex<HashMap<usize, PromptCache>>,
    pub(super) requests: AtomicU64,
    pub(super) refused: AtomicU64,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(clippy::disallowed_methods, reason = "a stall is what a slow server does")]
fn stall(duration: Duration) {
    if !duration.is_zero() {
        std::thread::sleep(duration);
    }
}

impl State {
    fn now_ms(&self) -> u64 {
        (self.clock)()
    }

    pub(super) fn login(&self) -> String {
        lock(&self.issuer).login(self.now_ms())
    }

    /// Makes the next token requests meet the answers under `name` in the manners; returns their number.
    fn queue(&self, name: &str) -> usize {
        let all = self.manners.templates().into_iter();
        let named: Vec<_> = all.filter(|(own, _)| *own == name).collect();
        for (_, template) in &named {
            lock(&self.faults).at_token(self.fault(template));
        }
        named.len()
    }

    /// `template` as a fault.
    pub(super) fn fault(&self, template: &Template) -> Fault {
        Fault::of(fill(&self.manners, template, &Values::default(), "application/json"))
    }

    pub(super) fn serve(&self, mut request: Request) {
        if is_upgrade(&request) {
            // tiny_http takes all that follows for the body, which has no end then.
            let _ = request.into_writer().write_all(NO_UPGRADE);
            return;
        }
        let mut body = Vec::new();
        if request.as_reader().take(BODY_MAX_BYTES).read_to_end(&mut body).is_err() {
            return;
        }
        let path = request.url().split('?').next().unwrap_or_default().to_owned();
        match path.as_str() {
            "/oauth/token" => self.token(request, &body),
            "/oauth/authorize" => self.authorize(request),
            "/oauth/device" => {
                let params = token_request(&request, &body).params;
                let own = self.url.clone();
                let (status, answer) = lock(&self.issuer).device(&params, &own, self.now_ms());
                send(request, json_answer(status, &answer));
            }
            "/oauth/revoke" => {
                let asked = token_request(&request, &body).params;
                let (status, answer) = lock(&self.issuer).revoke(&asked, self.now_ms());
                send(request, json_answer(status, &answer));
            }
            "/oauth/register" => {
                let asked = serde_json::from_slice(&body).unwrap_or_default();
                let (status, answer) = lock(&self.issuer).register(&asked);
                send(request, json_answer(status, &answer));
            }
            "/.well-known/oauth-authorization-server" | "/.well-known/openid-configuration" => {
                let methods: Vec<_> =
                    self.manners.request.client_auth.iter().map(|one| one.as_str()).collect();
                send(request, json_answer(200, &discovery::of_issuer(&self.url, &methods)));
            }
            "/device" => self.device_page(request, &body),
            "/control/faults" => {
                let list = serde_json::from_slice(&body).unwrap_or_default();
                let taken = lock(&self.faults).take_up(&list);
                let status = if taken.is_ok() { 200 } else { 400 };
                send(request, json_answer(status, &json!({"result": format!("{taken:?}")})));
            }
            "/control/refuse" => {
                let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
                let text = |name: &str| asked[name].as_str().unwrap_or_default();
                let is_known = self.refuse(text("refusal"), text("model"));
                let status = if is_known { 200 } else { 400 };
                send(request, json_answer(status, &json!({ "known": is_known })));
            }
            "/control/login" => {
                send(request, json_answer(200, &json!({ "refresh_token": self.login() })));
            }
            "/control/answer" => {
                let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
                let queued = self.queue(asked["name"].as_str().unwrap_or(""));
                send(request, json_answer(200, &json!({ "queued": queued })));
            }
            "/control/revoke-access-tokens" => {
                lock(&self.issuer).revoke_access_tokens();
                send(request, json_answer(200, &json!({})));
            }
            "/control/revoke-logins" => {
                lock(&self.issuer).revoke_logins();
                send(request, json_answer(200, &json!({})));
            }
            "/control/stats" => {
                let counts = lock(&self.issuer).counts;
                let value = json!({
                    "granted": counts.granted, "refused": counts.refused, "reused": counts.reused,
                    "overlapped": counts.overlapped, "revoked": counts.revoked,
                    "requests": self.requests.load(Ordering::SeqCst),
                    "requests_without_valid_token": self.refused.load(Ordering::SeqCst),
                });
                send(request, json_answer(200, &value));
            }
            path if let Some(endpoint) = Exchange::at(path) => {
                let header = |name: &str| field(&request, name).map(str::to_owned);
                let method = request.method().as_str().to_owned();
                let query = request.url().split_once('?').map_or("", |(_, query)| query);
                let asked = Asked { method: &method, header: &header, query };
                let now_ms = self.now_ms();
                let (status, answer) = lock(&self.issuer).exchange(endpoint, &asked, now_ms);
                send(request, json_answer(status, &answer));
            }
            _ => match path.strip_prefix(RESOURCE_METADATA) {
                Some(path) => {
                    send(request, json_answer(200, &discovery::of_resource(&self.url, path)));
                }
                None => self.provider(request, &path, &body),
            },
        }
    }

    fn token(&self, request: Request, body: &[u8]) {
        let fault = lock(&self.faults).next_at_token().unwrap_or_default();
        stall(fault.stall);
        let hidden = fault.status.is_some() || fault.body.is_some();
        if hidden && !fault.after_processing {
            return send(request, fault.instead_of(json_answer(200, &Value::Null)));
        }
        let asked = token_request(&request, body);
        let has_header = |name: &str| field(&request, name).is_some_and(|value| !value.is_empty());
        let outcome = lock(&self.issuer).token(&asked, has_header, self.now_ms());
        let accept = field(&request, "accept").unwrap_or("").to_owned();
        let is_refresh =
            asked.params.get("grant_type").is_some_and(|grant| grant == "refresh_token");
        let answer = self.answer(&outcome, is_refresh, &accept);
        send(request, fault.instead_of(answer));
    }

    /// The manners' answer for an outcome; `is_refresh` says that a refresh token was presented.
    fn answer(&self, outcome: &Outcome, is_refresh: bool, accept: &str) -> Answer {
        let answers = &self.manners.answers;
        let none = Values::default();
        let (template, values) = match outcome {
            Outcome::Granted(values) => {
                let refreshed = answers.refreshed.as_ref().filter(|_| is_refresh);
                (refreshed.unwrap_or(&answers.granted), values)
            }
            Outcome::WrongClient => (&answers.wrong_client, &none),
            Outcome::WrongRequest => (&answers.wrong_request, &none),
            Outcome::HeaderMissing => {
                (answers.header_missing.as_ref().unwrap_or(&answers.wrong_request), &none)
            }
            Outcome::Dead => (&answers.dead_refresh_token, &none),
            Outcome::Used => {
                let used = answers.used_refresh_token.as_ref();
                (used.unwrap_or(&answers.dead_refresh_token), &none)
            }
            Outcome::Other((status, body)) => return json_answer(*status, body),
        };
        fill(&self.manners, template, values, accept)
    }

    fn authorize(&self, request: Request) {
        let query = request.url().split_once('?').map_or("", |(_, query)| query);
        let params = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let target = lock(&self.issuer).authorize(&params, &self.url, self.now_ms());
        let answer = |status: u16, headers: Vec<(String, String)>, body: &str| Answer {
            status,
            headers,
            body: body.into(),
        };
        match target {
            Ok(target) => send(request, answer(302, vec![("Location".to_owned(), target)], "")),
            Err(why) => send(request, answer(400, Vec::new(), why)),
        }
    }

    fn device_page(&self, request: Request, body: &[u8]) {
        let query = request.url().split_once('?').map_or("", |(_, query)| query);
        let answer = match device_page::visit(request.method().as_str(), query, body) {
            Visit::Look(code) => device_page::form(&code),
            Visit::Decide(code, agreed) => {
                let is_known = lock(&self.issuer).answer_device(&code, agreed);
                device_page::decided(&code, agreed, is_known)
            }
        };
        send(request, answer);
    }

    /// Answers the next request to the API with a refusal of a real API; false if none has this name.
    pub(super) fn refuse(&self, name: &str, model: &str) -> bool {
        let Some(refusal) = Refusals::all().get(name) else { return false };
        let fault = refusal.fault(model, self.now_ms() / 1000);
        lock(&self.faults).at_provider(fault);
        true
    }

    fn provider(&self, request: Request, path: &str, body: &[u8]) {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let fault = lock(&self.faults).next_at_provider().unwrap_or_default();
        // Before a stall, during which the token may expire.
        let account = credential(&request)
            .and_then(|token| lock(&self.issuer).account(&token, self.now_ms()));
        stall(fault.stall);
        if account.is_none() {
            self.refused.fetch_add(1, Ordering::SeqCst);
        }
        if fault.status.is_some() {
            return send(request, fault.instead_of(json_answer(200, &json!({}))));
        }
        if account.is_none()
            && let Some(template) = &self.manners.api.stale_token
        {
            return send(request, of_api(template));
        }
        let reply = if field(&request, "upgrade").is_some() {
            provider::no_websocket(path)
        } else if let Some(account) = account.filter(|_| self.has_headers(&request)) {
            let method = request.method().as_str().to_owned();
            let mut caches = lock(&self.caches);
            provider::answer(&method, path, body, caches.entry(account).or_default())
        } else {
            provider::unauthorized(path)
        };
        match reply {
            Reply::Json(status, value) => {
                let mut answer = json_answer(status, &value);
                if status == 401 {
                    let challenge = discovery::challenge(&self.url, path);
                    answer.headers.push(("WWW-Authenticate".to_owned(), challenge));
                }
                send(request, fault.instead_of(answer));
            }
            // A client that leaves ends the stream.
            Reply::Events(events) => drop(self.stream(request, &events, &fault)),
        }
    }

    /// True if the request has the header fields that the API requires.
    fn has_headers(&self, request: &Request) -> bool {
        let mut wanted = self.manners.api.headers.iter();
        wanted.all(|(name, part)| field(request, name).is_some_and(|value| value.contains(part)))
    }

    /// Sends events in our own chunks, because `tiny_http` would hold them back until it has 8 KiB.
    fn stream(&self, request: Request, events: &[String], fault: &Fault) -> std::io::Result<()> {
        let mut out = request.into_writer();
        write!(
            out,
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n\
             transfer-encoding: chunked\r\n\r\n"
        )?;
        for (index, event) in events.iter().enumerate() {
            if fault.stop_after_events == Some(index) {
                return out.flush();
            }
            write!(out, "{:x}\r\n{event}\r\n", event.len())?;
            out.flush()?;
            stall(if index == 0 { fault.stall_in_stream } else { Duration::ZERO });
            stall(self.event_delay);
        }
        write!(out, "0\r\n\r\n")?;
        out.flush()
    }
}

/// True if the client asks for another protocol.
fn is_upgrade(request: &Request) -> bool {
    request.headers().iter().any(|header| {
        let value = header.value.as_str().to_ascii_lowercase();
        header.field.equiv("Connection") && value.contains("upgrade")
    })
}

fn json_answer(status: u16, body: &Value) -> Answer {
    let kind = ("Content-Type".to_owned(), "application/json".to_owned());
    Answer { status, headers: vec![kind], body: body.to_string().into() }
}

fn send(request: Request, answer: Answer) {
    let mut response = Response::from_data(answer.body).with_status_code(answer.status);
    for (name, value) in answer.headers {
        if let Ok(header) = Header::from_bytes(name, value) {
            response.add_header(header);
        }
    }
    // A client that left needs no answer.
    let _ = request.respond(response);
}

fn field<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    let is_it = |header: &&Header| header.field.as_str().as_str().eq_ignore_ascii_case(name);
    request.headers().iter().find(is_it).map(|header| header.value.as_str())
}

/// The token in a request.
fn credential(request: &Request) -> Option<String> {
    let bearer = field(request, "authorization").and_then(|value| value.strip_prefix("Bearer "));
    bearer.or_else(|| field(request, "x-api-key")).map(str::to_owned)
}

fn token_request(request: &Request, body: &[u8]) -> TokenRequest {
    let value = |name: &str| field(request, name).unwrap_or("");
    TokenRequest::read(value("content-type"), value("authorization"), body)
}
