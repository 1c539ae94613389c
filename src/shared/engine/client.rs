//! A connection of the `redis` crate: opening, commands and published messages.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::{
    Client, Connection, ConnectionAddr, ConnectionLike, IntoConnectionInfo, PubSub,
    RedisConnectionInfo, RedisError, TlsCertificates, Value,
};

use crate::config::SharedStore;
use crate::config::store_address::Servers;
use crate::shared::engine::reply::{EngineReply, StoreError};
use crate::shared::engine::words::server_words;

/// The time limit of a connection, and of an answer on it.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// A connection. After an error it can't be used any more.
pub(super) struct Link {
    connection: Connection,
    store: SharedStore,
}

impl Link {
    /// Connects, through the Sentinels if there are some.
    pub(super) fn open(store: &SharedStore) -> Result<Self, StoreError> {
        match &store.place.servers {
            Servers::One(host, port) => Self::to_host(store, host, *port),
            Servers::Socket(path) => {
                let address = ConnectionAddr::Unix(path.into());
                Self::connect(store, address, Some(store.place.database))
            }
            Servers::Sentinels(sentinels, name) => Self::by_sentinels(store, sentinels, name),
        }
    }

    fn to_host(store: &SharedStore, host: &str, port: u16) -> Result<Self, StoreError> {
        Self::connect(store, address(store, host, port), Some(store.place.database))
    }

    /// Asks one Sentinel after the other for the master, and checks with that server that it is the master.
    fn by_sentinels(
        store: &SharedStore,
        sentinels: &[(String, u16)],
        name: &str,
    ) -> Result<Self, StoreError> {
        let mut failed = Vec::new();
        for (host, port) in sentinels {
            match Self::by_sentinel(store, address(store, host, *port), name) {
                Ok(link) => return Ok(link),
                Err(error) => failed.push((host.clone(), *port, error)),
            }
        }
        Err(StoreError::Sentinels(failed))
    }

    fn by_sentinel(
        store: &SharedStore,
        sentinel: ConnectionAddr,
        name: &str,
    ) -> Result<Self, StoreError> {
        let mut link = Self::connect(store, sentinel, None)?;
        let reply = link.ask_here(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", name])?;
        let found = match reply.list() {
            [host, port] => host.text().zip(port.text().and_then(|port| port.parse().ok())),
            _ => None,
        };
        let (host, port) = found.ok_or(StoreError::NoMaster)?;
        let mut master = Self::to_host(store, host, port)?;
        // A replaced master may not know it yet.
        match master.ask_here(&["ROLE"])?.list().first().and_then(EngineReply::text) {
            Some("master") => Ok(master),
            _ => Err(StoreError::Demoted(host.to_owned(), port)),
        }
    }

    /// Connects to a server, or without a database to a Sentinel: Sentinels often ask for no password, and then
    /// refuse one.
    fn connect(
        store: &SharedStore,
        address: ConnectionAddr,
        database: Option<u32>,
    ) -> Result<Self, StoreError> {
        let place = &store.place;
        // The library would log in by itself, and report every refusal as a wrong password.
        let own = RedisConnectionInfo::default().set_skip_set_lib_name();
        let info = address.into_connection_info().map_err(|error| told(&error))?;
        let info = info.set_redis_settings(own);
        let client = if place.tls {
            let root_cert = store.ca_pem.clone().map(String::into_bytes);
            Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })
        } else {
            Client::open(info)
        };
        let connection = client
            .and_then(|client| client.get_connection_with_timeout(ANSWER_MAX))
            .and_then(|connection| {
                connection.set_read_timeout(Some(ANSWER_MAX))?;
                connection.set_write_timeout(Some(ANSWER_MAX))?;
                Ok(connection)
            });
        let connection = connection.map_err(|error| told(&error))?;
        let mut link = Self { connection, store: store.clone() };
        let logged_in = link.log_in();
        let Some(database) = database else {
            // A Sentinel without a password refuses one, but still answers.
            return Ok(link);
        };
        logged_in?;
        if database > 0 {
            link.ask_here(&["SELECT", &database.to_string()])?;
        }
        Ok(link)
    }

    /// Sends user and password, if there is a password.
    fn log_in(&mut self) -> Result<(), StoreError> {
        let Some(password) = self.store.place.password.clone() else { return Ok(()) };
        let user = self.store.place.user.clone();
        let words = match &user {
            Some(user) => vec!["AUTH", user, password.expose()],
            None => vec!["AUTH", password.expose()],
        };
        let refused = |error: StoreError| {
            let StoreError::Refused(words) = error else { return error };
            let words = words.replace(password.expose(), "…");
            // Any other refusal (such as too many clients) is not about the password.
            let is_wrong = words.starts_with("WRONGPASS") || words.contains("AUTH");
            if is_wrong { StoreError::LoginRefused(words) } else { StoreError::Refused(words) }
        };
        self.ask_here(&words).map(drop).map_err(refused)
    }

    /// Sends a command and waits for its answer. If the connection broke (the server was restarted, or the process
    /// was halted, since the last command), the command is sent again on a new one: each command here may run twice.
    pub(super) fn ask(&mut self, words: &[&str]) -> Result<EngineReply, StoreError> {
        match self.connection.req_command(&command(words)) {
            Ok(value) => read(value),
            Err(error) if error.is_io_error() && !error.is_timeout() => {
                *self = Self::open(&self.store)?;
                self.ask_here(words)
            }
            Err(error) => Err(told(&error)),
        }
    }

    fn ask_here(&mut self, words: &[&str]) -> Result<EngineReply, StoreError> {
        self.connection.req_command(&command(words)).map_err(|error| told(&error)).and_then(read)
    }

    /// Subscribes to `channel`.
    pub(super) fn listen(&mut self, channel: &str) -> Result<Hearing<'_>, StoreError> {
        let mut subscription = self.connection.as_pubsub();
        subscription.subscribe(channel).map_err(|error| told(&error))?;
        Ok(Hearing(subscription))
    }
}

/// A subscription.
pub(super) struct Hearing<'a>(PubSub<'a>);

impl Hearing<'_> {
    /// The next message, waiting at most `allowed`.
    pub(super) fn next(&mut self, allowed: Duration) -> Result<Option<String>, StoreError> {
        self.0.set_read_timeout(Some(allowed)).map_err(|error| told(&error))?;
        match self.0.get_message() {
            Ok(message) => Ok(message.get_payload().ok()),
            Err(error) if error.is_timeout() || is_interrupted(&error) => Ok(None),
            Err(error) => Err(told(&error)),
        }
    }

    /// Waits for an answer from the server.
    pub(super) fn ping(&mut self) -> Result<(), StoreError> {
        let answered = self.0.set_read_timeout(Some(ANSWER_MAX));
        answered.and_then(|()| self.0.ping::<Value>()).map(drop).map_err(|error| told(&error))
    }
}

fn address(store: &SharedStore, host: &str, port: u16) -> ConnectionAddr {
    if store.place.tls {
        // The certificates are added when the client is made.
        ConnectionAddr::TcpTls { host: host.to_owned(), port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(host.to_owned(), port)
    }
}

fn command(words: &[&str]) -> redis::Cmd {
    let mut command = redis::Cmd::new();
    for word in words {
        command.arg(*word);
    }
    command
}

fn read(value: Value) -> Result<EngineReply, StoreError> {
    Ok(match value {
        Value::Nil => EngineReply::Nothing,
        Value::Int(number) => EngineReply::Number(number),
        Value::BulkString(bytes) => EngineReply::Text(String::from_utf8_lossy(&bytes).into_owned()),
        Value::SimpleString(text) => EngineReply::Text(text),
        Value::Okay => EngineReply::Text("OK".to_owned()),
        Value::Array(values) => {
            EngineReply::List(values.into_iter().map(read).collect::<Result<_, _>>()?)
        }
        Value::ServerError(error) => {
            let words = server_words(error.code(), error.details().unwrap_or_default());
            return Err(StoreError::Refused(words));
        }
        _ => return Err(StoreError::Unexpected),
    })
}

type Wrapped = Arc<dyn Error + Send + Sync>;

/// True if the process was halted and continues.
fn is_interrupted(error: &RedisError) -> bool {
    // The library wraps the system's error.
    let wrapped = error.source().and_then(|cause| cause.downcast_ref::<Wrapped>());
    let cause = wrapped.and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::Interrupted)
}

/// The error in words: the server's own, or the connection's failure.
fn told(error: &RedisError) -> StoreError {
    if error.is_timeout() {
        return StoreError::NoAnswer;
    }
    if let Some(code) = error.code() {
        return StoreError::Refused(server_words(code, error.detail().unwrap_or_default()));
    }
    let text = error.to_string();
    StoreError::Connection(text.trim_end_matches([' ', '-']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_halted_process_is_told_from_a_broken_connection() {
        let error = |kind: io::ErrorKind| RedisError::from(io::Error::from(kind));
        assert!(is_interrupted(&error(io::ErrorKind::Interrupted)));
        for other in [io::ErrorKind::UnexpectedEof, io::ErrorKind::TimedOut] {
            assert!(!is_interrupted(&error(other)));
        }
    }
}
