//! Addresses on the command line. Pure.

use crate::config::ListenAddress;

/// `http://…` or `https://…`, or `HOST:PORT`, which means HTTP.
pub(super) fn http_url(text: &str) -> Result<String, String> {
    if text.starts_with("unix:") {
        return ListenAddress::parse(text).map(|address| address.to_string());
    }
    if ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme)) {
        return Ok(text.to_owned());
    }
    match listen(text) {
        Ok(_) if !text.contains("://") => Ok(format!("http://{text}")),
        _ => Err("write a URL, such as http://127.0.0.1:8080 or unix:/PATH".to_owned()),
    }
}

/// `HOST:PORT`, an IPv6 address in brackets, or `unix:/PATH`.
pub(super) fn listen(text: &str) -> Result<ListenAddress, String> {
    const WRONG: &str = "write HOST:PORT, such as 127.0.0.1:8080";
    if text.starts_with("unix:") {
        return ListenAddress::parse(text);
    }
    let (host, port) = text.rsplit_once(':').ok_or(WRONG)?;
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().map_err(|_| WRONG)?;
    if host.is_empty() {
        return Err(WRONG.to_owned());
    }
    Ok(ListenAddress::Tcp { host: host.to_owned(), port })
}
