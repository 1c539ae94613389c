//! The addresses of metadata. Pure.

use crate::config::url::split_url;

/// The addresses at which the metadata of `issuer` may stand, in the order in which they are asked: RFC 8414 §3.1,
/// `OpenID` Connect Discovery §4, and `OpenID`'s name in RFC 8414's place, which some issuers use.
pub(crate) fn of_issuer(issuer: &str) -> Vec<String> {
    let Some((origin, path)) = origin_and_path(issuer) else { return Vec::new() };
    let path = path.trim_end_matches('/');
    let mut all = vec![
        format!("{origin}/.well-known/oauth-authorization-server{path}"),
        format!("{origin}{path}/.well-known/openid-configuration"),
        format!("{origin}/.well-known/openid-configuration{path}"),
    ];
    // Without a path, the last two are the same.
    all.dedup();
    all
}

/// The addresses at which the metadata of a protected resource may stand (RFC 9728 §3.1): for its path, and for its
/// whole origin.
pub(crate) fn of_resource(resource: &str) -> Vec<String> {
    let Some((origin, path)) = origin_and_path(resource) else { return Vec::new() };
    let path = if path == "/" { "" } else { path };
    let mut all = vec![
        format!("{origin}/.well-known/oauth-protected-resource{path}"),
        format!("{origin}/.well-known/oauth-protected-resource"),
    ];
    all.dedup();
    all
}

/// Scheme with authority, and the rest.
fn origin_and_path(url: &str) -> Option<(&str, &str)> {
    let (_, _, path) = split_url(url)?;
    Some(url.split_at(url.len() - path.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_an_issuer_comes_after_the_well_known_one() {
        let (oauth, openid) =
            ("/.well-known/oauth-authorization-server", "/.well-known/openid-configuration");
        for (issuer, expected) in [
            ("https://i", vec![format!("https://i{oauth}"), format!("https://i{openid}")]),
            ("https://i/", vec![format!("https://i{oauth}"), format!("https://i{openid}")]),
            (
                "https://i:8443/a/b",
                vec![
                    format!("https://i:8443{oauth}/a/b"),
                    format!("https://i:8443/a/b{openid}"),
                    format!("https://i:8443{openid}/a/b"),
                ],
            ),
            (
                "https://i/a/",
                vec![
                    format!("https://i{oauth}/a"),
                    format!("https://i/a{openid}"),
                    format!("https://i{openid}/a"),
                ],
            ),
            ("i.example", vec![]),
        ] {
            assert_eq!(of_issuer(issuer), expected, "{issuer}");
        }
    }

    #[test]
    fn the_metadata_of_a_resource_stands_at_its_path_or_at_its_origin() {
        let known = "/.well-known/oauth-protected-resource";
        for (resource, expected) in [
            ("https://r", vec![format!("https://r{known}")]),
            ("https://r/", vec![format!("https://r{known}")]),
            ("https://r/mcp", vec![format!("https://r{known}/mcp"), format!("https://r{known}")]),
            (
                "https://r/mcp?k=v",
                vec![format!("https://r{known}/mcp?k=v"), format!("https://r{known}")],
            ),
        ] {
            assert_eq!(of_resource(resource), expected, "{resource}");
        }
    }
}
