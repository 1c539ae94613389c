//! `token_fields`: the places of values in a token answer.

use crate::config::raw::Section;
use crate::config::token_fields::{TOKEN_FIELDS, TokenFields};

/// Reads the section.
pub(super) fn read(section: &Section<'_>) -> TokenFields {
    let fields = section.section("token_fields");
    let read = |name| path_in(&fields, name).map(|path| (name, path));
    let read = TOKEN_FIELDS.into_iter().filter_map(read).collect();
    fields.finish(&[]);
    TokenFields::new(read)
}

/// The path to a value, written with dots between the names.
pub(super) fn path_in(fields: &Section<'_>, name: &'static str) -> Option<Vec<String>> {
    let path = fields.text(name)?;
    if path.split('.').any(str::is_empty) {
        fields.error(name, format!("'{name}' must be names with dots between them"));
    }
    Some(path.split('.').map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use crate::config::Credential;
    use crate::config::resolve::resolve;
    use crate::config::resolve::tests::{document, sources};

    #[test]
    fn places_are_read_and_mistakes_are_shown_with_the_nearest_key() {
        let with = |fields: &str| {
            let lines = format!(
                "auto_refresh_config:\n  token_url: https://i/t\n  client_id_env: ID\n  refresh_token_env: TOKEN\n  \
                 token_fields: {fields}\n"
            );
            let resolved = resolve(&document("", &lines), "f", &sources());
            resolved
                .map_err(|problems| problems.iter().map(ToString::to_string).collect::<String>())
        };
        let (config, _) = with("{access_token: authed_user.access_token, error: problem}").unwrap();
        let Credential::Refreshed(refresh) = &config.providers[0].credential else { panic!() };
        let path = |name| refresh.token_fields.path(name);
        assert_eq!(path("access_token").as_deref(), Some("authed_user.access_token"));
        assert_eq!((path("error").as_deref(), path("expires_in")), (Some("problem"), None));
        let cases = [
            (
                "{acces_token: a}",
                "unknown key 'acces_token' in token_fields, did you mean 'access_token'?",
            ),
            ("{access_token: a..b}", "'access_token' must be names with dots between them"),
            ("{access_token: ''}", "'access_token' must be names with dots between them"),
            ("{access_token: [a, b]}", "'access_token' must be a text in quotes"),
            ("authed_user.access_token", "token_fields"),
        ];
        for (fields, part) in cases {
            let problem = with(fields).unwrap_err();
            assert!(problem.contains(part), "{fields}: {problem}");
        }
    }
}
