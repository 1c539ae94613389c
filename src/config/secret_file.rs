//! Reads files that hold a secret.

use std::io::{self, Read};
use std::path::Path;

use crate::config::encoding;
use crate::config::missing::{Missing, SecretLookup};
use crate::regular_file;
use crate::secret::Secret;

/// The largest file to read.
pub(crate) const SECRET_FILE_MAX_BYTES: u64 = 1024 * 1024;

/// The text of the regular file at `path`. Any other kind of file could block the reader for ever.
pub fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    regular_file::open(path)?.take(SECRET_FILE_MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SECRET_FILE_MAX_BYTES {
        return Err(invalid("it is larger than 1 MiB"));
    }
    text_of(bytes)
}

/// The file's bytes as text, without a byte order mark.
pub(crate) fn text_of(bytes: Vec<u8>) -> io::Result<String> {
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(without_mark(&text).to_owned()),
        Ok(text) => Err(invalid(no_text(text.as_bytes()))),
        Err(error) => Err(invalid(no_text(error.as_bytes()))),
    }
}

/// Names the format of `bytes` that are not UTF-8 text, and the remedy.
fn no_text(bytes: &[u8]) -> &'static str {
    match encoding::other_encoding(bytes) {
        // Written by PowerShell 5's `>` and by Notepad's "Unicode".
        Some("UTF-16") => "it is UTF-16, as PowerShell's '>' writes it; save it as UTF-8",
        Some("UTF-32") => "it is UTF-32; save it as UTF-8",
        Some(_) => "it is compressed with gzip; gunzip it",
        // Keys, certificates and PKCS#12 begin with a sequence (X.690 §8.9).
        None if bytes.starts_with(&[0x30]) => {
            "it is binary (DER or PKCS#12), and PEM is needed: 'openssl pkey -inform DER' converts a key, 'openssl x509 \
             -inform DER' a certificate, 'openssl pkcs12 -nodes' a .p12 or .pfx file"
        }
        None if bytes.contains(&0) => "it is binary and not a text",
        None => "it is not UTF-8",
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// `text` without the byte order mark of some editors.
pub(crate) fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// The secret in the text that was `read` from `path`, without its line end.
pub(crate) fn secret_of_file(path: &Path, read: io::Result<String>) -> SecretLookup {
    let missing = |why: String| Missing::File(path.display().to_string(), why);
    let text = read.map_err(|error| missing(error.to_string()))?;
    let text = without_mark(&text).trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(missing("it is empty".to_owned()));
    }
    Ok(Secret::new(text))
}

/// A part of a text that probably does not belong to a secret. `Display` continues after the name of the file or
/// variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Oddity {
    /// Blanks around it.
    #[error("has spaces around it, which are sent with it")]
    Blanks,
    /// Quotes around it.
    #[error(
        "stands in quotes, which are sent with it; a shell takes them away, docker's --env-file does not"
    )]
    Quotes,
}

impl Oddity {
    /// The oddity of a text from a file or a variable; None if it looks like a secret.
    pub(crate) fn of(text: &str) -> Option<Self> {
        let text = text.trim_end_matches(['\r', '\n']);
        let is_in =
            |quote: char| text.len() > 1 && text.starts_with(quote) && text.ends_with(quote);
        if text.trim() != text {
            Some(Self::Blanks)
        } else if is_in('"') || is_in('\'') {
            Some(Self::Quotes)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_files() {
        let cases: [(&[u8], Result<&str, &str>); 13] = [
            (b"secret\n", Ok("secret\n")),
            (b"\xef\xbb\xbfsecret\r\n", Ok("secret\r\n")),
            (b"", Ok("")),
            (b"\xff\xfes\0e\0", Err("UTF-16")),
            (b"\xfe\xff\0s\0e", Err("UTF-16")),
            (b"s\0e\0", Err("UTF-16")),
            (b"s\0\0\0e\0\0\0", Err("binary and not")),
            (b"\xff\xfe\0\0s\0\0\0", Err("UTF-32")),
            (b"\x1f\x8b\x08\0", Err("gunzip")),
            // A key, an Ed25519 key, and a PKCS#12 file, said to be UTF-16 once.
            (b"\x30\x82\x04\xbe\x02\x01\x00\x30", Err("openssl pkey -inform DER")),
            (b"\x30\x2e\x02\x01\x00\x30\x05\x06", Err("DER or PKCS#12")),
            (b"\x7fELF\x02\x01\x01\0", Err("binary and not")),
            (b"\xe9", Err("not UTF-8")),
        ];
        for (bytes, expected) in cases {
            match (text_of(bytes.to_vec()), expected) {
                (Ok(text), Ok(expected)) => assert_eq!(text, expected),
                (Err(why), Err(part)) => assert!(why.to_string().contains(part), "{why}"),
                (got, expected) => panic!("{got:?} {expected:?}"),
            }
        }
    }

    #[test]
    fn secrets_of_files() {
        let found = |text: &str| {
            secret_of_file(Path::new("/f"), Ok(text.to_owned()))
                .map(|secret| secret.expose().to_owned())
        };
        for text in ["s", "s\n", "s\r\n", "s\n\n", "\u{feff}s\r\n"] {
            assert_eq!(found(text), Ok("s".to_owned()), "{text:?}");
        }
        for text in ["", "\n", "\r\n", "\u{feff}"] {
            assert!(found(text).is_err(), "{text:?}");
        }
        assert_eq!(found(" s "), Ok(" s ".to_owned()));
    }

    #[test]
    fn only_regular_files_of_a_size_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let most = usize::try_from(SECRET_FILE_MAX_BYTES).unwrap();
        std::fs::write(&path, "k".repeat(most)).unwrap();
        assert_eq!(read(&path).unwrap().len(), most);
        std::fs::write(&path, "k".repeat(most + 1)).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("1 MiB"));
        assert!(read(folder.path()).unwrap_err().to_string().contains("regular"));
        assert!(read(Path::new("/dev/null")).unwrap_err().to_string().contains("regular"));
    }

    #[test]
    fn what_is_odd_about_a_secret() {
        for fine in ["s", "s\n", "s\"", "\"", "it's", "a b", "", "s\r\n"] {
            assert_eq!(Oddity::of(fine), None, "{fine:?}");
        }
        for text in [" s", "s ", "s \n", "\ts", " "] {
            assert_eq!(Oddity::of(text), Some(Oddity::Blanks), "{text:?}");
        }
        for text in ["\"s\"", "'s'\n", "\"\""] {
            assert_eq!(Oddity::of(text), Some(Oddity::Quotes), "{text:?}");
        }
    }
}
