//! `settings.server: "tiny_http"`: a receive loop, a channel and workers over the same exchange.
//!
//! For loopback addresses only. What `tiny_http` 0.12 can't do, this server does not do: it can't
//! close a connection (a provider that breaks off leaves the client waiting), it has no limits on
//! heads, time or connections, it does not see a client leave before the answer, and bodies are read
//! whole before they are sent on. It carries no WebSockets.

use std::io::{Cursor, Read};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use log::warn;
use tiny_http::{HTTPVersion, Request as TinyRequest, Server};

use crate::config::Limits;
use crate::http::head::{BadHead, request};
use crate::http::message::{Headers, RequestHead, Version, method};
use crate::http::octets::{is_name, is_value};
use crate::http::refusal::{Code, Refusal};
use crate::http::rules::Rules;
use crate::ingress::bind::Listener;
use crate::ingress::pool::{Pool, WORKER_IDLE_MAX};
use crate::ingress::service::{Request, Service};
use crate::thread::{self, Thread};

/// Above this declared length a request is dropped without an answer: `tiny_http` allocates what a
/// client declares when an unread body is dropped, and the process would abort.
const DECLARED_MAX_BYTES: u64 = 1024 * 1024 * 1024;
/// The stack of the receiving thread.
const STACK_BYTES: usize = 128 * 1024;

/// A running `tiny_http`.
pub struct TinyServer {
    server: Arc<Server>,
    /// Disconnected once the receive loop and every worker have ended.
    ended: Receiver<()>,
    _receiving: Thread,
}

impl TinyServer {
    /// Starts to receive.
    pub fn start(
        listeners: &[Listener],
        limits: Limits,
        service: Arc<dyn Service>,
    ) -> std::io::Result<Self> {
        let first = listeners.first().ok_or(std::io::ErrorKind::InvalidInput)?;
        let listener: TcpListener = first.socket.try_clone()?.into();
        // The other server may have left it otherwise, if a service manager keeps it.
        listener.set_nonblocking(false)?;
        let server = Server::from_listener(listener, None).map_err(std::io::Error::other)?;
        let server = Arc::new(server);
        let (alive, ended) = bounded(0);
        let of_thread = server.clone();
        let receive = move || receive(&of_thread, &limits, &service, &alive);
        let receiving = thread::spawn("receive", STACK_BYTES, receive)?;
        Ok(Self { server, ended, _receiving: receiving })
    }

    /// Stops receiving and waits at most `grace` for requests in flight; 1 where some are left,
    /// since they can't be counted or cut off.
    pub fn stop(self, grace: Duration) -> usize {
        self.server.unblock();
        usize::from(self.ended.recv_timeout(grace) == Err(RecvTimeoutError::Timeout))
    }
}

impl Drop for TinyServer {
    fn drop(&mut self) {
        self.server.unblock();
    }
}

fn receive(server: &Server, limits: &Limits, service: &Arc<dyn Service>, alive: &Sender<()>) {
    let pool = Pool::new(limits.max_connections, WORKER_IDLE_MAX);
    let limits = Arc::new(limits.clone());
    // `recv` fails once it is unblocked for the stop.
    while let Ok(request) = server.recv() {
        let (limits, service, alive) = (limits.clone(), service.clone(), alive.clone());
        let job = Box::new(move || {
            serve(request, &limits, &*service);
            drop(alive);
        });
        if pool.run(job).is_err() {
            warn!("All settings.max_connections are in use; a request was dropped");
        }
    }
}

fn serve(mut request: TinyRequest, limits: &Limits, service: &dyn Service) {
    let declared = request.body_length().unwrap_or(0) as u64;
    if declared > DECLARED_MAX_BYTES {
        warn!("A request that declares {declared} bytes was dropped");
        // Not dropped in Rust's sense, which is what would abort the process; its connection leaks.
        std::mem::forget(request);
        return;
    }
    let head = read_head(&request);
    let body = read_body(&mut request, limits.max_body_bytes);
    let mut out = request.into_writer();
    match (head, body) {
        (Ok(head), Ok(body)) => {
            let mut body = Cursor::new(body);
            let request = Request {
                may_keep_alive: head.wants_keep_alive(),
                head: &head,
                body: &mut body,
                client: None,
                is_by_unix: false,
                switch: None,
            };
            service.serve(request, &mut out);
        }
        (Err(refusal), _) => service.refuse(&refusal, None, &mut out),
        (Ok(head), Err(refusal)) => service.refuse(&refusal, Some(&head), &mut out),
    }
}

fn read_head(request: &TinyRequest) -> Result<RequestHead, Refusal> {
    let version = match request.http_version() {
        HTTPVersion(1, 1) => Version::Http11,
        _ => Version::Http10,
    };
    let mut headers = Headers::new();
    for header in request.headers() {
        if headers.len() == Rules::STRICT.head_fields_max {
            return Err(BadHead::TooManyFields(headers.len()).into());
        }
        let (name, value) = (header.field.as_str().as_str(), header.value.as_str());
        if !is_name(name.as_bytes()) || !is_value(value.as_bytes()) {
            return Err(BadHead::Field.into());
        }
        headers.push(name, value);
    }
    request::check(method(request.method().as_str().as_bytes()), request.url(), version, headers)
}

/// Some for a request with `Connection: upgrade`, of which `tiny_http` yields all that follows as its body, without an
/// end; true if the body comes in chunks.
fn is_unframed(request: &TinyRequest) -> Option<bool> {
    let is = |one: &tiny_http::Header, name: &'static str| one.field.equiv(name);
    let is_upgrade = |one: &tiny_http::Header| {
        is(one, "Connection") && one.value.as_str().to_ascii_lowercase().contains("upgrade")
    };
    let headers = request.headers();
    let is_chunked = || headers.iter().any(|one| is(one, "Transfer-Encoding"));
    headers.iter().any(is_upgrade).then(is_chunked)
}

/// The whole body; one over the limit is read to its end, because it can't be left.
fn read_body(request: &mut TinyRequest, max_bytes: u64) -> Result<Vec<u8>, Refusal> {
    let mut body = Vec::new();
    let declared = request.body_length().unwrap_or(0) as u64;
    let unframed = is_unframed(request);
    let reader = request.as_reader();
    let unreadable = |_| Refusal::new(Code::BadRequest, "The request body can't be read");
    let reader: &mut dyn Read = match unframed {
        Some(true) => {
            let message = "With settings.server \"tiny_http\", a request with Connection: upgrade can't come in chunks";
            return Err(Refusal::new(Code::BadRequest, message));
        }
        Some(false) => &mut reader.take(declared),
        None => reader,
    };
    (&mut *reader).take(max_bytes.saturating_add(1)).read_to_end(&mut body).map_err(unreadable)?;
    if body.len() as u64 > max_bytes {
        std::io::copy(reader, &mut std::io::sink()).map_err(unreadable)?;
        let message = "The request body is over settings.max_body_bytes";
        return Err(Refusal::new(Code::BodyTooLarge, message));
    }
    Ok(body)
}
