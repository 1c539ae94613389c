//! Splits PEM text (RFC 7468) into its sections, also those that no library reads, so that a message can name them. Pure.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
pub(super) const DASHES: &str = "-----";

/// One section of a PEM file.
pub(super) struct PemSection<'a> {
    /// Its label: `PRIVATE KEY`.
    pub(super) label: &'a str,
    body: Vec<&'a str>,
    has_end: bool,
}

/// The sections of `text`, in order. Text between them is a comment.
pub(super) fn sections(text: &str) -> Vec<PemSection<'_>> {
    let mut sections = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let Some(label) = line.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(DASHES))
        else {
            continue;
        };
        let mut section = PemSection { label, body: Vec::new(), has_end: false };
        for line in lines.by_ref() {
            if line.starts_with(END) {
                section.has_end = true;
                break;
            }
            section.body.push(line);
        }
        sections.push(section);
    }
    sections
}

impl PemSection<'_> {
    /// Its bytes; None if it is damaged or cut off.
    pub(super) fn bytes(&self) -> Option<Zeroizing<Vec<u8>>> {
        let text = Zeroizing::new(self.body.concat());
        let bytes = BASE64_STANDARD.decode(text.as_bytes()).ok()?;
        self.has_end.then(|| Zeroizing::new(bytes))
    }

    /// True if a passphrase protects it (RFC 1421 headers of the traditional format, or PKCS#8).
    pub(super) fn is_encrypted(&self) -> bool {
        let has_header = |line: &&str| line.starts_with("Proc-Type:") && line.contains("ENCRYPTED");
        self.label == "ENCRYPTED PRIVATE KEY" || self.body.iter().any(has_header)
    }
}
