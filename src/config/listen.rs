//! One address to listen on: TCP, or a unix socket. Pure.

use std::fmt;
use std::path::PathBuf;

use crate::config::listen_host;
use crate::config::loopback::is_loopback_host;

/// The most addresses: each has a thread.
pub(crate) const ADDRESSES_MAX: usize = 16;
/// The longest path of a unix socket: the system's field has room for 108 bytes, one of them for the end (unix(7)).
pub(crate) const UNIX_PATH_MAX_BYTES: usize = 107;
/// The mode of a socket file: its owner may connect.
const USUAL_MODE: u32 = 0o600;
/// All modes, as they are written: the owner may connect, the group too, everybody.
const MODES: [(&str, u32); 3] = [("600", USUAL_MODE), ("660", 0o660), ("666", 0o666)];
/// The right forms, for messages.
const FORMS: &str = "\"127.0.0.1:8080\", \"[::1]:8080\" or \"unix:/run/evertoken.sock\"";

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// TCP.
    Tcp {
        /// A name or an address, without brackets.
        host: String,
        /// 0 lets the system choose.
        port: u16,
    },
    /// A unix socket.
    Unix {
        /// Its file.
        path: PathBuf,
        /// The mode of the file.
        mode: u32,
    },
}

impl ListenAddress {
    /// The address that `text` means, or the correction.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(rest) => parse_unix(rest),
            None => parse_tcp(text),
        }
    }

    /// The host of an address with a port.
    pub(crate) fn host(&self) -> Option<&str> {
        match self {
            Self::Tcp { host, .. } => Some(host),
            Self::Unix { .. } => None,
        }
    }

    /// True if only this machine can connect.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Tcp { host, .. } => is_loopback_host(host),
            Self::Unix { .. } => true,
        }
    }
}

/// `127.0.0.1:8080`, `[::1]:8080`, `unix:/run/evertoken.sock`
impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

fn parse_tcp(text: &str) -> Result<ListenAddress, String> {
    let wrong = || format!("write {FORMS}, not \"{}\"", text.escape_debug());
    if let Some(port) = text.strip_prefix("*:") {
        let port = port.escape_debug();
        return Err(format!(
            "write \"0.0.0.0:{port}\" for every IPv4 address of this machine, or \"[::]:{port}\" for every address"
        ));
    }
    if text.starts_with('/') {
        return Err(format!("write a unix socket as \"unix:{}\"", text.escape_debug()));
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once("]:").ok_or_else(wrong)?,
        None => text.split_once(':').ok_or_else(wrong)?,
    };
    // More than one colon without brackets: where the address ends is not clear.
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|_| digits).ok_or_else(wrong)?;
    if listen_host::problem(host).is_some() {
        return Err(wrong());
    }
    Ok(ListenAddress::Tcp { host: host.to_owned(), port })
}

/// The text after `unix:`.
fn parse_unix(text: &str) -> Result<ListenAddress, String> {
    let (path, query) =
        text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
    if path.starts_with('@') {
        return Err("a unix socket needs a file; abstract names (@…) have no owner that could be \
                    checked, and are not supported"
            .to_owned());
    }
    // `unix:///run/x` is `unix:/run/x`.
    let name = path.trim_start_matches('/');
    if name.len() == path.len() || name.is_empty() || name.ends_with('/') {
        return Err(format!(
            "write the absolute path of a socket file, such as \"unix:/run/evertoken.sock\", not \"unix:{}\"",
            text.escape_debug()
        ));
    }
    let path = format!("/{name}");
    if path.contains('\0') {
        return Err("a path has no NUL byte".to_owned());
    }
    if path.len() > UNIX_PATH_MAX_BYTES {
        return Err(format!(
            "the path of a unix socket has at most {UNIX_PATH_MAX_BYTES} bytes, and this one has {}",
            path.len()
        ));
    }
    Ok(ListenAddress::Unix { path: path.into(), mode: query.map_or(Ok(USUAL_MODE), parse_mode)? })
}

fn parse_mode(query: &str) -> Result<u32, String> {
    let digits = query.strip_prefix("mode=").map(|mode| match mode.len() {
        4 => mode.strip_prefix('0').unwrap_or(mode),
        _ => mode,
    });
    // Others would lock out a client that seems to be let in: who connects has to be able to write (unix(7)).
    let mode = MODES.into_iter().find(|(written, _)| digits == Some(*written));
    mode.map(|(_, mode)| mode).ok_or_else(|| {
        format!(
            "after '?' stands mode=0600, 0660 or 0666 (who may connect: the owner, the group, all), not \"{}\"",
            query.escape_debug()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> ListenAddress {
        ListenAddress::Tcp { host: host.into(), port }
    }

    fn unix(path: &str, mode: u32) -> ListenAddress {
        ListenAddress::Unix { path: path.into(), mode }
    }

    #[test]
    fn addresses_and_how_they_are_shown() {
        for (text, expected, shown) in [
            ("127.0.0.1:8080", tcp("127.0.0.1", 8080), "127.0.0.1:8080"),
            ("[::1]:0", tcp("::1", 0), "[::1]:0"),
            ("localhost:80", tcp("localhost", 80), "localhost:80"),
            ("unix:/run/a.sock", unix("/run/a.sock", 0o600), "unix:/run/a.sock"),
            ("unix:///run/a.sock", unix("/run/a.sock", 0o600), "unix:/run/a.sock"),
            ("unix:/run/a b?mode=0660", unix("/run/a b", 0o660), "unix:/run/a b"),
            ("unix:/a?mode=666", unix("/a", 0o666), "unix:/a"),
        ] {
            let parsed = ListenAddress::parse(text).unwrap();
            assert_eq!(parsed, expected, "{text}");
            assert_eq!(parsed.to_string(), shown);
        }
    }

    #[test]
    fn mistakes_name_the_right_form() {
        for (text, part) in [
            ("", "write \"127.0.0.1:8080\""),
            ("8080", "not \"8080\""),
            (":8080", "not \":8080\""),
            ("127.0.0.1", "write \"127.0.0.1:8080\""),
            ("127.0.0.1:", "write \"127.0.0.1:8080\""),
            ("127.0.0.1:65536", "not \"127.0.0.1:65536\""),
            ("127.0.0.1:+80", "not"),
            ("::1:8080", "\"[::1]:8080\""),
            ("[::1]", "\"[::1]:8080\""),
            ("http://127.0.0.1:8080", "not \"http://"),
            ("a b:80", "not"),
            ("*:80", "write \"0.0.0.0:80\" for every IPv4 address of this machine, or \"[::]:80\""),
            ("/run/a.sock", "\"unix:/run/a.sock\""),
            ("unix:", "absolute path"),
            ("unix:/", "absolute path"),
            ("unix:/run/", "absolute path"),
            ("unix:a.sock", "absolute path"),
            ("unix:@a", "abstract names"),
            ("unix:/a?mode=0770", "mode=0600"),
            ("unix:/a?mode=0060", "mode=0600"),
            ("unix:/a?mode=384", "mode=0600"),
            ("unix:/a?mode=66", "mode=0600"),
            ("unix:/a?mode=00600", "mode=0600"),
            // These were taken: the group could read and not connect, others could connect and the group could not.
            ("unix:/a?mode=0640", "mode=0600, 0660 or 0666"),
            ("unix:/a?mode=0620", "mode=0600, 0660 or 0666"),
            ("unix:/a?mode=0606", "mode=0600, 0660 or 0666"),
            ("unix:/a?mode=0664", "mode=0600, 0660 or 0666"),
            ("unix:/a?mode=1660", "mode=0600"),
            ("unix:/a?", "mode=0600"),
            ("unix:/a?user=x", "mode=0600"),
        ] {
            let told = ListenAddress::parse(text).unwrap_err();
            assert!(told.contains(part), "{text}: {told}");
        }
    }

    #[test]
    fn a_path_fits_into_the_system_s_field() {
        let of_length = |length: usize| format!("unix:/{}", "x".repeat(length - 1));
        assert!(ListenAddress::parse(&of_length(UNIX_PATH_MAX_BYTES)).is_ok());
        let told = ListenAddress::parse(&of_length(UNIX_PATH_MAX_BYTES + 1)).unwrap_err();
        assert!(told.contains("107") && told.contains("108"), "{told}");
    }
}
