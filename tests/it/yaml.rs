//! Mistakes in the YAML itself: one line each, with its place, in words.

use crate::support::binary::{run, text};

const GOOD: &str = "\
settings: {port: 0, state_dir: /tmp/state}
providers:
  - name: \"One\"
    type: \"generic\"
    base_url: \"http://127.0.0.1:9\"
    auth_type: \"none\"
";

/// The message of `check` about a file with these bytes; the variables `A` and `B` are set.
fn told(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("providers.yaml"), bytes).unwrap();
    let output =
        run(folder.path(), &["check"], &[("HOME", "/nonexistent"), ("A", "a"), ("B", "b")]);
    assert_eq!(output.status.code(), Some(78), "{}", text(&output.stderr));
    text(&output.stderr)
}

#[test]
fn a_mistake_in_the_yaml_is_told_once_where_it_is_and_in_words() {
    for (from, to, line) in [
        ("    type", "\ttype", "4:1: a tab; YAML wants spaces"),
        ("\"One\"", "\"One", "3:11: the quote opened at 3:11 is not closed"),
        (
            "    type",
            "   type",
            "4:4: 'type:' is indented by 3, where the lines above are indented by 2 or 4",
        ),
        ("  - name", "    name", "3:5: 'providers' must be a list"),
        ("state}", "state", "1:11: the '{' opened at 1:11 is not closed"),
        ("\"One\"", "42", "3:11: 'name' must be a text in quotes"),
        ("\"One\"", "@one", "3:11: a text that begins with '@' needs quotes around it"),
    ] {
        let told = told(GOOD.replacen(from, to, 1).as_bytes());
        assert_eq!(told.lines().count(), 1, "{to}: {told}");
        assert!(told.starts_with(&format!("providers.yaml:{line}")), "{to}: {told}");
    }
}

#[test]
fn a_key_that_is_indented_wrongly_is_told_where_it_belongs() {
    let refreshed = "    auto_refresh_config:\n    token_url: \"http://127.0.0.1:9/t\"\n";
    let told =
        told(format!("{}{refreshed}", GOOD.replace("    auth_type: \"none\"\n", "")).as_bytes());
    let words = "7:5: unknown key 'token_url' in a provider; it belongs to auto_refresh_config: is the line \
                 indented as it should be?";
    assert!(told.contains(words), "{told}");
}

#[test]
fn a_file_in_another_encoding_is_named() {
    let utf_16: Vec<u8> =
        [0xfeff_u16].into_iter().chain(GOOD.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    assert_eq!(told(&utf_16), "providers.yaml: this is UTF-16; save it as UTF-8\n");
    let latin_1 = [GOOD.as_bytes(), b"# Z\xfcrich\n"].concat();
    assert_eq!(
        told(&latin_1),
        "providers.yaml:7:4: the byte 0xfc is not UTF-8; save the file as UTF-8\n"
    );
}

#[test]
fn keys_that_all_stand_one_level_too_far_to_the_left_are_one_mistake() {
    let refreshed = "    auto_refresh_config:\n    token_url: \"http://127.0.0.1:9/t\"\n    client_id_env: \"A\"\n    \
                     refresh_token_env: \"B\"\n";
    let given = GOOD.replace("    auth_type: \"none\"\n", "");
    assert_eq!(
        told(format!("{given}{refreshed}").as_bytes()),
        "providers.yaml:7:5: unknown key 'token_url' in a provider; it belongs to auto_refresh_config, and so do \
         'client_id_env', 'refresh_token_env': are the lines indented as they should be?\n"
    );
    // The last one alone: that it is missing where it belongs is no second mistake.
    let last =
        refreshed.replacen("    token", "      token", 1).replacen("    client", "      client", 1);
    assert_eq!(
        told(format!("{given}{last}").as_bytes()),
        "providers.yaml:9:5: unknown key 'refresh_token_env' in a provider; it belongs to auto_refresh_config: is the \
         line indented as it should be?\n"
    );
    let settings = GOOD.replace(
        "settings: {port: 0, state_dir: /tmp/state}",
        "settings:\nport: 0\nstate_dir: /tmp/state",
    );
    assert_eq!(
        told(settings.as_bytes()),
        "providers.yaml:2:1: unknown key 'port' in the file; it belongs to settings, and so does 'state_dir': are the \
         lines indented as they should be?\n"
    );
}

#[test]
fn an_empty_auto_refresh_config_is_told_with_its_place() {
    let given = GOOD.replace("auth_type: \"none\"", "auto_refresh_config:");
    assert_eq!(
        told(given.as_bytes()),
        "providers.yaml:6:5: 'auto_refresh_config' is empty: its keys stand on the lines below, indented further\n"
    );
}

#[test]
fn a_url_with_something_stray_in_it_is_one_mistake() {
    for url in [
        "http://127.0.0.1:9\"",
        "' http://127.0.0.1:9'",
        "'http://api.example.com '",
        "'http://a b.com'",
    ] {
        let given = GOOD
            .replace("\"http://127.0.0.1:9\"", url)
            .replace("auth_type: \"none\"", "auth_value: k");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("providers.yaml");
        std::fs::write(&file, given).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        let output = run(folder.path(), &["check"], &[("HOME", "/nonexistent")]);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{url}: {told}");
        assert_eq!(told.lines().count(), 1, "{url}: {told}");
        assert!(
            told.contains(":5:15: 'base_url' must be an http or https URL, not "),
            "{url}: {told}"
        );
    }
}

#[test]
fn a_blank_of_another_kind_around_a_text_is_told() {
    for (given, code) in
        [("\u{a0}\"One\"", "00A0"), ("One\u{a0}", "00A0"), ("\"One\u{3000}\"", "3000")]
    {
        let told = told(GOOD.replacen("\"One\"", given, 1).as_bytes());
        let words = format!(
            "providers.yaml:3:11: 'name' begins or ends with a space of another kind (U+{code}); YAML wants plain spaces\n"
        );
        assert_eq!(told, words);
    }
}
