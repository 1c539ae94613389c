//! Mistakes in the YAML itself: one line each, with its place, in words.

use crate::support::binary::{run, text};

const GOOD: &str = "\
settings: {port: 0, state_dir: state}
providers:
  - name: \"One\"
    type: \"generic\"
    base_url: \"http://127.0.0.1:9\"
    auth_type: \"none\"
";

/// What `check` says about the file with these bytes.
fn told(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("providers.yaml"), bytes).unwrap();
    let output = run(folder.path(), &["check"], &[("HOME", "/nonexistent")]);
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
        "providers.yaml:7:4: the byte 0xfc is no UTF-8; save the file as UTF-8\n"
    );
}
