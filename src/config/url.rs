//! URLs in the configuration: their parts, and their mistakes. Pure.

use crate::config::loopback::is_loopback_host;
use crate::visible::is_unseen;

/// The longest wrong URL that is shown.
const SHOWN_MAX_CHARS: usize = 100;
/// The most typing errors that turn `https` into another scheme.
const SCHEME_DISTANCE_MAX: usize = 1;

/// A URL's scheme, host without brackets, and the rest after the authority; None if it is not an http URL, or
/// contains a user.
pub(crate) fn split_url(url: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let plain = |byte: u8| (0x21..=0x7e).contains(&byte) && !b"\"<>\\^`{|}".contains(&byte);
    if !matches!(scheme, "http" | "https") || authority.contains('@') || !url.bytes().all(plain) {
        return None;
    }
    let (host, port) = split_port(authority)?;
    let port_fine = port.is_none_or(|digits| digits.parse::<u16>().is_ok());
    (!host.is_empty() && port_fine).then_some((scheme, host, path))
}

/// Scheme and authority.
pub(crate) fn origin_of(url: &str) -> &str {
    let path = split_url(url).map_or("", |(_, _, path)| path);
    &url[..url.len() - path.len()]
}

/// The host of an authority, without brackets, and the text after its first colon, if there is one; None for brackets
/// that are not closed, or not followed by a colon or the end.
pub(crate) fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    let Some(rest) = authority.strip_prefix('[') else {
        let parts = authority.split_once(':').map(|(host, port)| (host, Some(port)));
        return Some(parts.unwrap_or((authority, None)));
    };
    let (host, rest) = rest.split_once(']')?;
    let port = rest.strip_prefix(':');
    (port.is_some() || rest.is_empty()).then_some((host, port))
}

/// True if `url` leads to this machine.
pub(crate) fn is_loopback(url: &str) -> bool {
    split_url(url).is_some_and(|(_, host, _)| is_loopback_host(host))
}

/// True if a secret that is sent to `url` is not read on the way.
pub(in crate::config) fn is_safe_for_secrets(url: &str) -> bool {
    split_url(url).is_some_and(|(scheme, host, path)| {
        (scheme == "https" || is_loopback_host(host)) && !path.contains('#')
    })
}

/// The message about `url`, the value of `key`, if [`split_url`] does not understand it.
pub(in crate::config) fn problem(key: &str, url: &str, wanted: &str) -> String {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        // The text before it may be a password, and is not shown.
        return format!("'{key}' must be {wanted} without a user or password before an '@'");
    }
    let shown = if url.chars().count() <= SHOWN_MAX_CHARS {
        format!("\"{}\"", url.escape_debug())
    } else {
        "what is written".to_owned()
    };
    let with_scheme = format!("https://{url}");
    let is_bare =
        !url.contains("://") && authority.contains(['.', ':']) || authority == "localhost";
    let hint = if is_bare && split_url(&with_scheme).is_some() {
        let scheme = if is_loopback(&with_scheme) { "http" } else { "https" };
        format!("; did you mean \"{scheme}://{url}\"?")
    } else {
        slip_in(url)
    };
    format!("'{key}' must be {wanted}, not {shown}{hint}")
}

/// The likely mistake in a URL: a typing error, or something that evertoken does not support.
fn slip_in(url: &str) -> String {
    if let Some(quote) = url.chars().find(|one| matches!(one, '“' | '”' | '„' | '‘' | '’'))
    {
        return format!("; {quote} is part of it: write plain quotes around it, \" or '");
    }
    if let Some(code) = url.chars().find(|one| is_unseen(*one)).map(u32::from) {
        return format!("; it holds a character that can't be seen (U+{code:04X}): type it anew");
    }
    if url.starts_with('$') || url.contains("${") {
        return "; variables are not replaced here: write the URL itself".to_owned();
    }
    if split_url(url.trim()).is_some() {
        return "; remove the space before or after it".to_owned();
    }
    let Some((scheme, rest)) = url.split_once("://") else { return String::new() };
    let distance = |meant: &str| strsim::damerau_levenshtein(&scheme.to_lowercase(), meant);
    let near = ["http", "https"].into_iter().min_by_key(|meant| distance(meant));
    let near = near.filter(|meant| distance(meant) <= SCHEME_DISTANCE_MAX);
    match near.map(|scheme| format!("{scheme}://{rest}")) {
        Some(meant) if split_url(&meant).is_some() => format!("; did you mean \"{meant}\"?"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_url_is_shown_unless_it_holds_a_password() {
        let cases = [
            ("api.x.com/v1", "not \"api.x.com/v1\"; did you mean \"https://api.x.com/v1\"?"),
            ("localhost:80", "not \"localhost:80\"; did you mean \"http://localhost:80\"?"),
            ("127.0.0.1/x", "not \"127.0.0.1/x\"; did you mean \"http://127.0.0.1/x\"?"),
            ("x", "not \"x\""),
            ("http://", "not \"http://\""),
            ("https:/x.com", "not \"https:/x.com\""),
            ("https://x:y", "not \"https://x:y\""),
            ("https://x y", "not \"https://x y\""),
            ("ftp://x.com", "not \"ftp://x.com\""),
            ("htps://x.com/v1", "; did you mean \"https://x.com/v1\"?"),
            ("HTTP://x.com", "; did you mean \"http://x.com\"?"),
            ("htp://x", "; did you mean \"http://x\"?"),
            ("hps://x", "not \"hps://x\""),
            ("“https://x”", "; “ is part of it: write plain quotes around it, \" or '"),
            ("https://x’", "; ’ is part of it: write plain quotes around it, \" or '"),
            ("https://x\u{200b}", "a character that can't be seen (U+200B): type it anew"),
            ("${BASE}", "; variables are not replaced here: write the URL itself"),
            ("$BASE/v1", "; variables are not replaced here: write the URL itself"),
            ("https://x/${V}", "; variables are not replaced here: write the URL itself"),
            ("https://x ", "; remove the space before or after it"),
            (" https://x", "; remove the space before or after it"),
            ("https://u:p@x", " without a user or password before an '@'"),
            ("u:p@x.com", " without a user or password before an '@'"),
        ];
        for (url, end) in cases {
            assert!(split_url(url).is_none(), "{url}");
            let told = problem("k", url, "a URL");
            assert!(told.starts_with("'k' must be a URL") && told.ends_with(end), "{url}: {told}");
            assert!(!url.contains('@') || !told.contains("u:p"), "{told}");
        }
        let long = |length: usize| "x".repeat(length);
        assert!(problem("k", &long(SHOWN_MAX_CHARS), "a URL").contains("xxx"));
        assert!(!problem("k", &long(SHOWN_MAX_CHARS + 1), "a URL").contains("xxx"));
    }
}
