//! Listens on this machine for the browser's return (RFC 8252 §7.3), with `tiny_http`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use tiny_http::{Header, Method, Request, Response, Server};

use crate::config::redirect::Loopback;
use crate::login::page::{self, CallbackPage};
use crate::thread::{self, Thread};

/// The stack of a receiving thread.
const STACK_BYTES: usize = 128 * 1024;
/// The most visits that may wait.
const VISITS_MAX: usize = 16;
/// A request with a larger declared length is not dropped: when `tiny_http` drops an unread body it allocates the
/// declared length, and the process would abort.
const DECLARED_MAX_BYTES: usize = 1024 * 1024;

/// A listener for one callback address. Dropping it ends it.
pub(crate) struct CallbackListener {
    /// The listening port.
    pub(crate) port: u16,
    /// Browsers at the callback address.
    pub(crate) visits: Receiver<Visit>,
    servers: Vec<Arc<Server>>,
    /// Joined after `drop` has ended the servers.
    receiving: Vec<Thread>,
}

/// A browser at the callback address, waiting for its page.
pub(crate) struct Visit {
    /// The callback's query.
    pub(crate) query: String,
    request: Request,
}

impl CallbackListener {
    /// Listens on the address of `loopback`, on its port or on a free one.
    pub(crate) fn bind(loopback: &Loopback) -> io::Result<Self> {
        let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let named = loopback.host.parse::<IpAddr>().ok();
        let first = TcpListener::bind((named.unwrap_or(v4), loopback.port.unwrap_or(0)))?;
        let port = first.local_addr()?.port();
        let mut listeners = vec![first];
        if named.is_none() {
            // A browser may resolve `localhost` to either address. Without the other address it tries this one.
            listeners.extend(TcpListener::bind((Ipv6Addr::LOCALHOST, port)));
        }
        let path = loopback.request_path().to_owned();
        let (sender, visits) = bounded(VISITS_MAX);
        let mut listening = Self { port, visits, servers: Vec::new(), receiving: Vec::new() };
        for listener in listeners {
            let server = Server::from_listener(listener, None).map_err(io::Error::other)?;
            let server = Arc::new(server);
            listening.servers.push(server.clone());
            let (path, sender) = (path.clone(), sender.clone());
            let receive = move || receive(&server, &path, &sender);
            listening.receiving.push(thread::spawn("callback", STACK_BYTES, receive)?);
        }
        Ok(listening)
    }
}

impl Drop for CallbackListener {
    fn drop(&mut self) {
        self.servers.iter().for_each(|server| server.unblock());
        self.receiving.clear();
    }
}

impl Visit {
    /// Sends the browser its page.
    pub(crate) fn answer(self, page: &CallbackPage) {
        send(self.request, page);
    }
}

fn receive(server: &Server, path: &str, visits: &Sender<Visit>) {
    // `recv` fails once it is unblocked at the end.
    while let Ok(request) = server.recv() {
        if request.body_length().unwrap_or(0) > DECLARED_MAX_BYTES {
            // Forgotten rather than dropped, because the drop would abort the process.
            std::mem::forget(request);
            continue;
        }
        let (own, query) = match request.url().split_once('?') {
            Some((own, query)) => (own, query.to_owned()),
            None => (request.url(), String::new()),
        };
        if own != path || *request.method() != Method::Get {
            send(request, &page::elsewhere());
        } else if let Err(full) = visits.try_send(Visit { query, request }) {
            send(full.into_inner().request, &page::elsewhere());
        }
    }
}

fn send(request: Request, page: &CallbackPage) {
    let mut response = Response::from_string(&page.html).with_status_code(page.status);
    for (name, value) in page::FIELDS {
        if let Ok(header) = Header::from_bytes(name, value) {
            response.add_header(header);
        }
    }
    // A browser that left needs no page.
    let _ = request.respond(response);
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;

    fn ask(address: (IpAddr, u16), request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    fn get(path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    }

    #[test]
    fn a_visit_gets_its_page_and_others_get_none() {
        let loopback = Loopback { host: "localhost".into(), port: None, path: "/cb?x=1".into() };
        let listener = CallbackListener::bind(&loopback).unwrap();
        let port = listener.port;
        let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
        for request in [get("/"), get("/cb/"), get("/cb").replace("GET", "POST")] {
            assert!(ask((v4, port), &request).starts_with("HTTP/1.1 404 "), "{request}");
        }
        assert!(listener.visits.is_empty());
        let asking = std::thread::Builder::new();
        let asking = asking.spawn(move || ask((v4, port), &get("/cb?x=1&code=c"))).unwrap();
        let visit = listener.visits.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(visit.query, "x=1&code=c");
        visit.answer(&page::done("P"));
        let answer = asking.join().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("Logged in"), "{answer}");
        for field in
            ["Cache-Control: no-store", "default-src 'none'", "Referrer-Policy: no-referrer"]
        {
            assert!(answer.contains(field), "{field} in {answer}");
        }
    }

    #[test]
    fn a_port_in_use_is_an_error() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let loopback = Loopback { port: Some(port), ..Loopback::default() };
        assert!(CallbackListener::bind(&loopback).is_err());
    }
}
