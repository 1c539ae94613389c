//! `settings.token_store`: the server's address, read from its URL.

use percent_encoding::percent_decode_str;

use crate::config::url::split_port;
use crate::secret::Secret;

/// The default port.
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26_379;
/// The highest number of a database.
const DATABASE_MAX: u32 = 65_535;

/// The server's address, and evertoken's user on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreAddress {
    /// The servers to connect to.
    pub servers: Servers,
    /// True for TLS.
    pub tls: bool,
    /// The user; None for the default one.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// The database's number.
    pub database: u32,
}

/// The servers to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Servers {
    /// Host (a name or an address, without brackets) and port.
    One(String, u16),
    /// The path of a socket on this machine.
    Socket(String),
    /// Sentinels, asked in order, and the name of the master.
    Sentinels(Vec<(String, u16)>, String),
}

impl StoreAddress {
    /// Parses a URL. The error names the mistake and contains nothing of the URL.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = url.split_once("://").ok_or(FORMS)?;
        match scheme {
            "redis" | "valkey" => Self::one(rest, false),
            "rediss" | "valkeys" => Self::one(rest, true),
            "unix" | "redis+unix" => Self::socket(rest),
            "redis+sentinel" => Self::sentinels(rest, false),
            "rediss+sentinel" => Self::sentinels(rest, true),
            _ => Err(FORMS),
        }
    }

    fn one(rest: &str, tls: bool) -> Result<Self, &'static str> {
        let (user, password, rest) = split_user(rest)?;
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.contains(',') {
            return Err("several addresses are for Sentinel: \
                        redis+sentinel://host1:26379,host2:26379/NAME, with the master's NAME");
        }
        let (host, port) = split_host(authority, PORT)?;
        let database = read_database(database)?;
        Ok(Self { servers: Servers::One(host, port), tls, user, password, database })
    }

    fn socket(rest: &str) -> Result<Self, &'static str> {
        let (user, password, rest) = split_user(rest)?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        if !path.starts_with('/') || path.len() < 2 {
            return Err("a socket's path begins with '/': unix:///run/valkey/valkey.sock");
        }
        let database = match query {
            "" => 0,
            query => read_database(query.strip_prefix("db=").ok_or("only '?db=N' may follow")?)?,
        };
        let servers = Servers::Socket(decode(path)?);
        Ok(Self { servers, tls: false, user, password, database })
    }

    fn sentinels(rest: &str, tls: bool) -> Result<Self, &'static str> {
        const NAME: &str = "after the Sentinels comes the master's name: \
                            redis+sentinel://host1:26379,host2:26379/NAME";
        let (user, password, rest) = split_user(rest)?;
        let (authorities, path) = rest.split_once('/').ok_or(NAME)?;
        let (name, database) = path.split_once('/').unwrap_or((path, ""));
        if name.is_empty() {
            return Err(NAME);
        }
        let each = authorities.split(',').map(|one| split_host(one, SENTINEL_PORT));
        let sentinels = each.collect::<Result<Vec<_>, _>>()?;
        let servers = Servers::Sentinels(sentinels, decode(name)?);
        Ok(Self { servers, tls, user, password, database: read_database(database)? })
    }

    /// True if others could read the traffic: no TLS, and not on this machine.
    pub fn is_open_on_the_way(&self) -> bool {
        let remote = |host: &str| !crate::config::loopback::is_loopback_host(host);
        !self.tls
            && match &self.servers {
                Servers::One(host, _) => remote(host),
                Servers::Socket(_) => false,
                Servers::Sentinels(all, _) => all.iter().any(|(host, _)| remote(host)),
            }
    }
}

/// The URL without user and password.
impl std::fmt::Display for StoreAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "rediss" } else { "redis" };
        let address = |(host, port): &(String, u16)| {
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
        };
        match &self.servers {
            Servers::One(host, port) => {
                write!(f, "{scheme}://{}/{}", address(&(host.clone(), *port)), self.database)
            }
            Servers::Socket(path) => write!(f, "unix://{path}?db={}", self.database),
            Servers::Sentinels(all, name) => {
                let all: Vec<String> = all.iter().map(address).collect();
                write!(f, "{scheme}+sentinel://{}/{name}/{}", all.join(","), self.database)
            }
        }
    }
}

const FORMS: &str = "'token_store' must be redis://host:6379/0, rediss://… (TLS), unix:///path, or \
                     redis+sentinel://host1:26379,host2:26379/NAME";

const WRONG_ADDRESS: &str = "every address is a host, with ':' and a port from 1 to 65535 where it is \
                             not the usual one; a '/', '@' or ':' in a password is written %2F, %40, %3A";

type UserAndRest<'a> = (Option<String>, Option<Secret>, &'a str);

fn split_user(rest: &str) -> Result<UserAndRest<'_>, &'static str> {
    // A path may contain an '@'; a user comes before the first '/'.
    let end = rest.find('/').unwrap_or(rest.len());
    let Some(at) = rest[..end].rfind('@') else { return Ok((None, None, rest)) };
    let (user, password) = match rest[..at].split_once(':') {
        Some((user, password)) => (user, Some(Secret::new(decode(password)?))),
        None => (&rest[..at], None),
    };
    let user = decode(user)?;
    let password = password.filter(|password| !password.is_empty());
    Ok(((!user.is_empty()).then_some(user), password, &rest[at + 1..]))
}

fn split_host(authority: &str, default: u16) -> Result<(String, u16), &'static str> {
    let (host, port) = split_port(authority).ok_or(WRONG_ADDRESS)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte);
    let port = match port {
        None => default,
        Some(digits) => digits.parse().ok().filter(|port| *port > 0).ok_or(WRONG_ADDRESS)?,
    };
    if host.is_empty() || !host.bytes().all(plain) {
        return Err(WRONG_ADDRESS);
    }
    Ok((host.to_owned(), port))
}

fn read_database(text: &str) -> Result<u32, &'static str> {
    if text.is_empty() {
        return Ok(0);
    }
    if text.contains('@') {
        return Err(WRONG_ADDRESS);
    }
    let number = text.parse().ok().filter(|number| *number <= DATABASE_MAX);
    number.ok_or("what follows the last '/' is the database's number, from 0 to 65535")
}

fn decode(text: &str) -> Result<String, &'static str> {
    let decoded = percent_decode_str(text).decode_utf8().map(std::borrow::Cow::into_owned);
    decoded.map_err(|_| "percent-encoded text must be UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_are_understood() {
        // The URL, its shown form, user, password.
        let cases = [
            ("redis://h", "redis://h:6379/0", None, None),
            ("valkey://h/", "redis://h:6379/0", None, None),
            ("redis://u:p@h:1/2", "redis://h:1/2", Some("u"), Some("p")),
            ("redis://:p%40%3a%2f@h", "redis://h:6379/0", None, Some("p@:/")),
            ("redis://u@h", "redis://h:6379/0", Some("u"), None),
            ("redis://a@b:c@h", "redis://h:6379/0", Some("a@b"), Some("c")),
            ("rediss://[::1]:7/65535", "rediss://[::1]:7/65535", None, None),
            ("rediss://[fe80::1%25eth0]", "rediss://[fe80::1%25eth0]:6379/0", None, None),
            ("unix:///run/v.sock", "unix:///run/v.sock?db=0", None, None),
            ("redis+unix://u:p@/run/a%20b?db=3", "unix:///run/a b?db=3", Some("u"), Some("p")),
            (
                "redis+sentinel://u:p@a,b:5/mymaster/1",
                "redis+sentinel://a:26379,b:5/mymaster/1",
                Some("u"),
                Some("p"),
            ),
            ("rediss+sentinel://a/m", "rediss+sentinel://a:26379/m/0", None, None),
        ];
        for (url, shown, user, password) in cases {
            let place = StoreAddress::parse(url).unwrap_or_else(|why| panic!("{url}: {why}"));
            assert_eq!(place.to_string(), shown, "{url}");
            assert_eq!(place.user.as_deref(), user, "{url}");
            assert_eq!(place.password, password.map(Secret::new), "{url}");
        }
    }

    #[test]
    fn urls_that_are_not() {
        let cases = [
            ("", "must be redis://"),
            ("h:6379", "must be redis://"),
            ("http://h", "must be redis://"),
            ("redis://", "every address"),
            ("redis://h:0", "every address"),
            ("redis://h:65536", "every address"),
            ("redis://h:1:2", "every address"),
            ("redis://[::1", "every address"),
            ("redis://[::1]x", "every address"),
            ("redis://h h", "every address"),
            ("redis://p/ss@h", "every address"),
            ("redis://u:p/w@h", "every address"),
            ("redis://h/x", "number"),
            ("redis://h/65536", "number"),
            ("redis://h/-1", "number"),
            ("redis://h?db=1", "every address"),
            ("redis://a,b/0", "redis+sentinel://host1"),
            ("redis+sentinel://a,b", "master's name"),
            ("redis+sentinel://a,b/", "master's name"),
            ("redis+sentinel://a,,b/m", "every address"),
            ("redis+sentinel://a/m/x", "number"),
            ("unix://run/x", "begins with '/'"),
            ("unix:///", "begins with '/'"),
            ("unix:///x?y=1", "?db=N"),
            ("redis://:%ff@h", "UTF-8"),
        ];
        for (url, part) in cases {
            let why =
                StoreAddress::parse(url).map_or_else(|why| why, |place| panic!("{url}: {place}"));
            assert!(why.contains(part), "{url}: {why}");
        }
    }

    #[test]
    fn who_could_listen() {
        let open = |url| StoreAddress::parse(url).unwrap().is_open_on_the_way();
        assert!(open("redis://h") && open("redis+sentinel://localhost,h/m"));
        assert!(!open("rediss://h") && !open("redis://127.0.0.1") && !open("unix:///x"));
    }
}
