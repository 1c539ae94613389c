//! A raw HTTP client: bytes out, answers in.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::PATIENCE;

/// One connection to the proxy.
pub(crate) struct Client {
    reader: BufReader<TcpStream>,
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: u16,
    /// All header fields, names in lower case.
    pub(crate) fields: Vec<(String, String)>,
    /// The body without its framing.
    pub(crate) body: String,
    /// True if the body came whole, by its own framing.
    pub(crate) whole: bool,
}

impl Answer {
    /// The first field called `name`.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// `x-evertoken-error`.
    pub(crate) fn code(&self) -> &str {
        self.field("x-evertoken-error").unwrap_or("")
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).expect("JSON")
    }
}

impl Client {
    /// Connects.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).expect("a connection"))
    }

    /// Connects over the unix socket at `path`.
    pub(crate) fn connect_unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).expect("a connection");
        Self::over(TcpStream::from(OwnedFd::from(stream)))
    }

    /// Uses a connection that was made already.
    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        stream.set_write_timeout(Some(PATIENCE)).expect("an option");
        // A unix socket has no such option.
        let _ = stream.set_nodelay(true);
        Self { reader: BufReader::new(stream) }
    }

    /// Connects, and waits for no answer longer than `patience`.
    #[cfg(feature = "slow-tests")]
    pub(crate) fn connect_within(address: SocketAddr, patience: std::time::Duration) -> Self {
        let client = Self::connect(address);
        client.reader.get_ref().set_read_timeout(Some(patience)).expect("an option");
        client
    }

    /// The status of the answer to `request`; None where none comes.
    pub(crate) fn try_ask(address: SocketAddr, request: &str) -> Option<u16> {
        let mut client = Self::connect(address);
        client.send(request);
        let mut line = String::new();
        client.reader.read_line(&mut line).ok()?;
        line.split(' ').nth(1)?.parse().ok()
    }

    /// Sends bytes; a peer that closed is not an error here.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.reader.get_mut().write_all(bytes.as_ref());
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(self) {
        let socket = socket2::SockRef::from(self.reader.get_ref());
        socket.set_linger(Some(std::time::Duration::ZERO)).expect("an option");
    }

    /// Ends our side.
    pub(crate) fn half_close(&self) {
        self.reader.get_ref().shutdown(Shutdown::Write).expect("a connection");
    }

    /// Reads one line without its end; None at the end of the connection.
    pub(crate) fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(count) if count > 0 => Some(line.trim_end().to_owned()),
            Ok(_) => None,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("nothing came: {error}"),
        }
    }

    /// Reads a head.
    #[track_caller]
    pub(crate) fn head(&mut self) -> Answer {
        let line = self.line().expect("an answer");
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status line: {line}"));
        let mut fields = Vec::new();
        while let Some(field) = self.line().filter(|field| !field.is_empty()) {
            let (name, value) = field.split_once(':').expect("a field");
            fields.push((name.to_lowercase(), value.trim().to_owned()));
        }
        Answer { status, fields, body: String::new(), whole: true }
    }

    /// Reads one chunk; None for the last one, and where the connection ends.
    pub(crate) fn chunk(&mut self) -> Option<String> {
        let size = usize::from_str_radix(&self.line()?, 16).expect("a size");
        let mut piece = vec![0; size + 2];
        self.reader.read_exact(&mut piece).ok()?;
        piece.truncate(size);
        (size > 0).then(|| String::from_utf8(piece).expect("text"))
    }

    /// Reads so many bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes).expect("so many bytes");
        bytes
    }

    /// Reads a whole answer.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> Answer {
        let mut answer = self.head();
        if let Some(length) = answer.field("content-length") {
            let mut body = Vec::new();
            let length: u64 = length.parse().expect("a length");
            let read = (&mut self.reader).take(length).read_to_end(&mut body);
            answer.whole = read.is_ok() && body.len() as u64 == length;
            answer.body = String::from_utf8(body).expect("text");
        } else if answer.field("transfer-encoding") == Some("chunked") {
            answer.whole = false;
            while let Some(line) = self.line() {
                let size = usize::from_str_radix(&line, 16).expect("a size");
                let mut piece = vec![0; size + 2];
                if self.reader.read_exact(&mut piece).is_err() {
                    break;
                }
                answer.body.push_str(std::str::from_utf8(&piece[..size]).expect("text"));
                if size == 0 {
                    answer.whole = true;
                    break;
                }
            }
        } else if answer.status >= 200 && answer.status != 204 && answer.status != 304 {
            answer.whole = self.reader.read_to_string(&mut answer.body).is_ok();
        }
        answer
    }

    /// Reads until the connection ends, or breaks off.
    pub(crate) fn rest(&mut self, into: &mut Vec<u8>) {
        let _ = self.reader.read_to_end(into);
    }

    /// True if an answer, or the connection's end, can be read.
    pub(crate) fn has_word(&self) -> bool {
        let stream = self.reader.get_ref();
        stream.set_nonblocking(true).expect("an option");
        let seen = stream.peek(&mut [0]);
        stream.set_nonblocking(false).expect("an option");
        !seen.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// True if the proxy closes the connection now, without sending more.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.reader.read_to_end(&mut rest) {
            Ok(_) => rest.is_empty(),
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// Sends `request` on a new connection and reads the answer.
#[track_caller]
pub(crate) fn ask(address: SocketAddr, request: impl AsRef<[u8]>) -> Answer {
    let mut client = Client::connect(address);
    client.send(request);
    client.answer()
}

/// A GET of `target`, as text.
pub(crate) fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// A POST of `body` to `target`, as text.
pub(crate) fn post(target: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}")
}
