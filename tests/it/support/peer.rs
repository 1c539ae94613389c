//! A server that does what a script says, and records what it saw.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::PATIENCE;

/// A request as the peer saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The request line.
    pub(crate) line: String,
    /// All header fields, names in lower case.
    pub(crate) fields: Vec<(String, String)>,
    /// The body without its framing.
    pub(crate) body: Vec<u8>,
    /// The number of its connection, from 0.
    pub(crate) connection: usize,
}

impl Seen {
    /// The first field called `name`.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// One connection of a peer, in the hands of its script.
pub(crate) struct Conversation {
    reader: BufReader<TcpStream>,
    connection: usize,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Conversation {
    /// Reads a request with its body; None where the client is gone.
    pub(crate) fn request(&mut self) -> Option<Seen> {
        let mut seen = self.head()?;
        seen.body = self.body(&seen);
        self.seen.lock().unwrap().push(seen.clone());
        Some(seen)
    }

    /// Reads a request's head and leaves the body.
    pub(crate) fn head(&mut self) -> Option<Seen> {
        let line = self.line()?;
        let mut fields = Vec::new();
        loop {
            let field = self.line()?;
            if field.is_empty() {
                break;
            }
            let (name, value) = field.split_once(':').expect("a field");
            fields.push((name.to_lowercase(), value.trim().to_owned()));
        }
        Some(Seen { line, fields, body: Vec::new(), connection: self.connection })
    }

    fn body(&mut self, seen: &Seen) -> Vec<u8> {
        let mut body = Vec::new();
        if let Some(length) = seen.field("content-length") {
            body.resize(length.parse().expect("a length"), 0);
            self.reader.read_exact(&mut body).expect("the whole body");
        } else if seen.field("transfer-encoding") == Some("chunked") {
            loop {
                let size = usize::from_str_radix(&self.line().expect("a size"), 16).expect("hex");
                let start = body.len();
                body.resize(start + size, 0);
                self.reader.read_exact(&mut body[start..]).expect("a chunk");
                self.line().expect("its end");
                if size == 0 {
                    break;
                }
            }
        }
        body
    }

    fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        match self.reader.read_until(b'\n', &mut line) {
            Ok(count) if count > 0 => Some(String::from_utf8_lossy(&line).trim_end().to_owned()),
            _ => None,
        }
    }

    /// Reads so many bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes).expect("so many bytes");
        bytes
    }

    /// Sends `bytes`; false where the client is gone.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.reader.get_mut().write_all(bytes.as_ref()).is_ok()
    }

    /// Sends a whole answer.
    pub(crate) fn answer(&mut self, status: u16, body: &str) -> bool {
        self.send(answer(status, body))
    }

    /// The connection itself.
    #[cfg(feature = "slow-tests")]
    pub(crate) fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// Reads one byte; None at the end of the connection.
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        self.reader.read_exact(&mut byte).ok().map(|()| byte[0])
    }

    /// Ends our side.
    pub(crate) fn half_close(&self) {
        self.reader.get_ref().shutdown(std::net::Shutdown::Write).expect("a connection");
    }

    /// Reads to the end of the connection, or to where it breaks off.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.reader.read_to_end(&mut rest);
        rest
    }

    /// Waits until the client closes.
    pub(crate) fn wait_for_close(&mut self) {
        let mut rest = Vec::new();
        let _ = self.reader.read_to_end(&mut rest);
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(self) {
        let socket = socket2::SockRef::from(self.reader.get_ref());
        socket.set_linger(Some(std::time::Duration::ZERO)).expect("an option");
    }
}

/// A sized answer as bytes.
pub(crate) fn answer(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// A running peer.
pub(crate) struct Peer {
    /// Its address.
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    stopped: Arc<AtomicBool>,
}

impl Peer {
    /// Runs `script` on each connection, on a thread of its own; the connection ends with it.
    pub(crate) fn start(script: impl Fn(Conversation) + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("a port"), script)
    }

    /// The same for connections to `listener`.
    pub(crate) fn on(
        listener: TcpListener,
        script: impl Fn(Conversation) + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().expect("an address");
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let stopped: Arc<AtomicBool> = Arc::default();
        let script = Arc::new(script);
        let (of_thread, until) = (seen.clone(), stopped.clone());
        spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                if until.load(Ordering::SeqCst) {
                    return;
                }
                let stream = stream.expect("a connection");
                stream.set_read_timeout(Some(PATIENCE)).expect("an option");
                stream.set_write_timeout(Some(PATIENCE)).expect("an option");
                stream.set_nodelay(true).expect("an option");
                let reader = BufReader::new(stream);
                let (script, seen) = (script.clone(), of_thread.clone());
                spawn(move || script(Conversation { reader, connection, seen }));
            }
        });
        Self { address, seen, stopped }
    }

    /// Answers every request on every connection with what `answer` makes of it.
    pub(crate) fn answering(answer: impl Fn(&Seen) -> String + Send + Sync + 'static) -> Self {
        Self::answering_bytes(move |seen| answer(seen).into_bytes())
    }

    /// The same with answers of any bytes.
    pub(crate) fn answering_bytes(
        answer: impl Fn(&Seen) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        Self::start(move |mut talk| {
            while let Some(seen) = talk.request() {
                if !talk.send(answer(&seen)) {
                    return;
                }
            }
        })
    }

    /// Answers every request with the credential that it came with.
    pub(crate) fn telling_the_credential() -> Self {
        Self::answering(|seen| answer(200, seen.field("authorization").unwrap_or("none")))
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which looks at the flag then.
        drop(TcpStream::connect(self.address));
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's peers are threads without ceremony")]
fn spawn(body: impl FnOnce() + Send + 'static) {
    std::thread::spawn(body);
}
