//! The configuration's bytes as text: UTF-8, or an error that names the likely encoding. Pure.

use crate::config::problem::Position;

/// The text, or the mistake and its place.
pub(crate) fn text_of(bytes: Vec<u8>) -> Result<String, (Option<Position>, String)> {
    if let Some(name) = other_encoding(&bytes) {
        return Err((None, format!("this is {name}; save it as UTF-8")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let bytes = error.into_bytes();
        let before = String::from_utf8_lossy(&bytes[..valid]);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
        let message =
            format!("the byte {:#04x} is not UTF-8; save the file as UTF-8", bytes[valid]);
        (Some((line, column)), message)
    })
}

/// The encoding that the first bytes suggest, if not UTF-8: a byte order mark, or every second byte zero.
pub(super) fn other_encoding(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => Some("UTF-32"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("UTF-16"),
        [first, 0, second, 0, ..] | [0, first, 0, second, ..] if *first > 0 && *second > 0 => {
            Some("UTF-16")
        }
        [0x1f, 0x8b, ..] => Some("compressed with gzip"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_utf_8_is_named() {
        let text = "a: b\nname: \"Zürich\"\n";
        let utf_16 = |swap: bool| -> Vec<u8> {
            let bytes = |unit: u16| if swap { unit.to_be_bytes() } else { unit.to_le_bytes() };
            text.encode_utf16().flat_map(bytes).collect()
        };
        let with_mark = |mark: &[u8], swap| [mark, &utf_16(swap)].concat();
        for bytes in [
            with_mark(&[0xff, 0xfe], false),
            with_mark(&[0xfe, 0xff], true),
            utf_16(false),
            utf_16(true),
        ] {
            let told = text_of(bytes).unwrap_err();
            assert_eq!(told, (None, "this is UTF-16; save it as UTF-8".to_owned()));
        }
        let latin_1: Vec<u8> =
            text.chars().map(|one| u8::try_from(u32::from(one)).unwrap()).collect();
        let words = "the byte 0xfc is not UTF-8; save the file as UTF-8".to_owned();
        assert_eq!(text_of(latin_1), Err((Some((2, 9)), words)));
        assert!(text_of(vec![0x1f, 0x8b, 8]).unwrap_err().1.contains("gzip"));
        for fine in [text, "", "a", "\u{feff}a: b"] {
            assert_eq!(text_of(fine.as_bytes().to_vec()).as_deref(), Ok(fine));
        }
    }
}
