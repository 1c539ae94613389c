//! The person's consent to a refresh token, which a login with found endpoints asks for. Pure.

use crate::token::scope::OFFLINE;

/// Hosts of Microsoft Entra, which gives a refresh token without. Where only an administrator may consent, and has done so for
/// all, `prompt=consent` would ask for one again.
const ENTRA: [&str; 4] = [
    "https://login.microsoftonline.com/",
    "https://login.microsoftonline.us/",
    "https://login.partner.microsoftonline.cn/",
    "https://login.microsoft.com/",
];

/// Adds `prompt=consent` to `url`, without which `offline_access` is ignored (`OpenID` Connect Core §11).
pub(super) fn ask(url: &mut String, scope: Option<&str>) {
    let is_offline = scope.is_some_and(|scope| scope.split(' ').any(|one| one == OFFLINE));
    let is_of_entra = ENTRA.iter().any(|host| url.starts_with(host));
    if is_offline && !is_of_entra && !url.contains("prompt=") {
        let joint = if url.contains('?') { '&' } else { '?' };
        url.push(joint);
        url.push_str("prompt=consent");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At Entra, a login that an administrator had consented to for all ended with "Need admin approval".
    #[test]
    fn consent_is_asked_for_where_a_refresh_token_needs_it() {
        let asked = |url: &str, scope| {
            let mut url = url.to_owned();
            ask(&mut url, scope);
            url
        };
        let offline = Some("openid offline_access");
        assert_eq!(asked("https://i/a", offline), "https://i/a?prompt=consent");
        assert_eq!(asked("https://i/a?b=c", offline), "https://i/a?b=c&prompt=consent");
        for url in [
            "https://i/a?prompt=login",
            "https://login.microsoftonline.com/t/oauth2/v2.0/authorize",
        ] {
            assert_eq!(asked(url, offline), url);
        }
        assert_eq!(asked("https://i/a", Some("openid")), "https://i/a");
    }
}
