//! An X.509 certificate (RFC 5280), as far as its owner needs it: its hash, its key, its names and its time.

use std::net::IpAddr;

use ring::digest::{SHA256, digest};

use crate::clock::Timestamp;
use crate::signing::der::{BIT_STRING, INTEGER, OCTET_STRING, OID, Reader, SEQUENCE, SET, context};
use crate::signing::key::SigningKey;
use crate::signing::name::CertificateName;
use crate::signing::pem::{PemSection, sections};

/// Tags of times.
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const BOOLEAN: u8 = 0x01;
/// The number of the field with the extensions.
const EXTENSIONS: u8 = 3;
/// Object identifiers of extensions, without tag and length. This one has names.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// Those of the extension that tells authorities from others, and of the one with the purposes of the key.
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
/// The purposes that a server's key may have there.
const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
const ANY_USAGE: &[u8] = &[0x55, 0x1d, 0x25, 0];
/// The attribute of a subject that is its CN.
const COMMON_NAME: &[u8] = &[0x55, 4, 3];
/// Tags in that extension.
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;

/// A certificate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    der: Vec<u8>,
    public: Vec<u8>,
    /// The time before which it is invalid.
    pub(crate) begins: Timestamp,
    /// The time after which it is invalid.
    pub(crate) ends: Timestamp,
}

/// The parts of a certificate that are used, in its DER.
struct Parts<'a> {
    subject: Reader<'a>,
    public: &'a [u8],
    begins: Timestamp,
    ends: Timestamp,
    /// The values behind the key: extensions, in version 3.
    rest: Reader<'a>,
}

/// The reason why a text gives no certificate. `Display` continues after the name of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CertificateProblem {
    #[error("there is no PEM certificate in it (it would begin with -----BEGIN CERTIFICATE-----)")]
    NoPem,
    #[error("its certificate is damaged or cut off")]
    Damaged,
    #[error("certificate {0} of its chain is damaged or cut off")]
    DamagedBehind(usize),
}

impl Certificate {
    /// The first certificate in a PEM `text`, which is the owner's in a chain.
    pub(crate) fn first_in(text: &str) -> Result<Self, CertificateProblem> {
        let all = sections(text);
        let own = all.iter().find(|section| section.label == "CERTIFICATE");
        let der = own.ok_or(CertificateProblem::NoPem)?.bytes();
        der.and_then(|der| Self::of_der(der.to_vec())).ok_or(CertificateProblem::Damaged)
    }

    /// The certificate in `der`; None if it is damaged.
    pub(crate) fn of_der(der: Vec<u8>) -> Option<Self> {
        let Parts { public, begins, ends, .. } = parts(&der)?;
        Some(Self { public: public.to_vec(), begins, ends, der })
    }

    /// The DER of all certificates in a PEM `text`, in their order.
    pub(crate) fn chain_in(text: &str) -> Result<Vec<Vec<u8>>, CertificateProblem> {
        let all = sections(text);
        let chain = all.iter().filter(|section| section.label == "CERTIFICATE").zip(1..);
        let der = |(section, number): (&PemSection<'_>, usize)| {
            let der = section.bytes().map(|bytes| bytes.to_vec());
            let damaged = CertificateProblem::DamagedBehind(number);
            der.filter(|der| parts(der).is_some()).ok_or(damaged)
        };
        chain.map(der).collect()
    }

    /// The reason why clients refuse it as a server's, whatever name they asked for; None if there is none.
    pub(crate) fn unfit_for_servers(&self) -> Option<&'static str> {
        if self.names().is_empty() {
            return Some(
                "names no host (subjectAltName), so browsers and programs in Go or Rust refuse it, whatever its CN is; openssl \
                 req has -addext 'subjectAltName=DNS:NAME'",
            );
        }
        if self.extension(EXTENDED_KEY_USAGE).is_some_and(|purposes| !include_servers(purposes)) {
            return Some(
                "is not for servers (its extendedKeyUsage lacks serverAuth), so clients refuse it",
            );
        }
        let is_authority =
            |mut limits: Reader<'_>| limits.take(BOOLEAN).is_some_and(|value| value != [0]);
        self.extension(BASIC_CONSTRAINTS).is_some_and(is_authority).then_some(
            "is that of an authority (CA:TRUE), which some clients refuse as a server's; openssl req has -addext \
             'basicConstraints=critical,CA:FALSE'",
        )
    }

    /// The members of the extension called `id`.
    fn extension(&self, id: &[u8]) -> Option<Reader<'_>> {
        extension(parts(&self.der)?.rest, id)
    }

    /// Its DER.
    pub(crate) fn der(&self) -> &[u8] {
        &self.der
    }

    /// The names and addresses that it is for (RFC 5280 §4.2.1.6).
    pub(crate) fn names(&self) -> Vec<CertificateName> {
        self.extension(SUBJECT_ALT_NAME).map(names_in).unwrap_or_default()
    }

    /// The last CN of its subject, which some clients take for a DNS name if it has no others.
    pub(crate) fn common_name(&self) -> Option<CertificateName> {
        let mut attributes = parts(&self.der)?.subject;
        let sets = std::iter::from_fn(|| attributes.enter(SET));
        let text = sets.filter_map(|mut set| {
            let mut attribute = set.enter(SEQUENCE)?;
            let is_name = attribute.take(OID)? == COMMON_NAME;
            let (_, text) = attribute.next().filter(|_| is_name)?;
            std::str::from_utf8(text).ok()
        });
        text.last().map(CertificateName::dns)
    }

    /// SHA-256 of its DER, the thumbprint of RFC 7515 §4.1.8.
    pub(crate) fn sha256(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, &self.der).as_ref());
        hash
    }

    /// True if it certifies `key`.
    pub(crate) fn is_of(&self, key: &SigningKey) -> bool {
        self.public == key.public()
    }
}

fn parts(der: &[u8]) -> Option<Parts<'_>> {
    let mut signed = Reader(der).enter(SEQUENCE)?.enter(SEQUENCE)?;
    let _version = signed.take(context(0));
    let _serial = signed.take(INTEGER)?;
    let _algorithm = signed.take(SEQUENCE)?;
    let _issuer = signed.take(SEQUENCE)?;
    let mut validity = signed.enter(SEQUENCE)?;
    let subject = signed.enter(SEQUENCE)?;
    let mut key = signed.enter(SEQUENCE)?;
    let _algorithm = key.take(SEQUENCE)?;
    // The first byte of a bit string counts its unused bits.
    let public = key.take(BIT_STRING)?.strip_prefix(&[0])?;
    let mut next_time = || validity.next().and_then(|(tag, text)| time(tag, text));
    Some(Parts { subject, public, begins: next_time()?, ends: next_time()?, rest: signed })
}

/// The members of the extension called `id`, of those behind a certificate's key.
fn extension<'a>(mut rest: Reader<'a>, id: &[u8]) -> Option<Reader<'a>> {
    while let Some((tag, value)) = rest.next() {
        if tag != context(EXTENSIONS) {
            continue;
        }
        let mut extensions = Reader(value).enter(SEQUENCE)?;
        while let Some(mut extension) = extensions.enter(SEQUENCE) {
            if extension.take(OID)? == id {
                let _is_critical = extension.take(BOOLEAN);
                return Reader(extension.take(OCTET_STRING)?).enter(SEQUENCE);
            }
        }
    }
    None
}

/// True if these purposes of a key include servers.
fn include_servers(mut purposes: Reader<'_>) -> bool {
    std::iter::from_fn(|| purposes.take(OID)).any(|one| one == SERVER_AUTH || one == ANY_USAGE)
}

fn names_in(mut names: Reader<'_>) -> Vec<CertificateName> {
    let name = |(tag, value): (u8, &[u8])| match tag {
        DNS_NAME => std::str::from_utf8(value).ok().map(CertificateName::dns),
        IP_ADDRESS => ip(value).map(CertificateName::Address),
        _ => None,
    };
    std::iter::from_fn(|| names.next()).filter_map(name).collect()
}

fn ip(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

/// RFC 5280 §4.1.2.5.
fn time(tag: u8, text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let whole = match tag {
        UTC_TIME if text < "50" => format!("20{text}"),
        UTC_TIME => format!("19{text}"),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let is_time = whole.len() == 14 && whole.bytes().all(|byte| byte.is_ascii_digit());
    let part = |from: usize, to: usize| &whole[from..to];
    is_time.then_some(())?;
    Timestamp::parse_rfc3339(&format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0, 4),
        part(4, 6),
        part(6, 8),
        part(8, 10),
        part(10, 12),
        part(12, 14)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::key::tests::{P256, RSA};

    const OF_RSA: &str = include_str!("../../tests/data/keys/rsa-cert.pem");
    const OF_P256: &str = include_str!("../../tests/data/keys/p256-cert.pem");
    const OF_SERVER: &str = include_str!("../../tests/data/keys/p256-server-cert.pem");
    const EXPIRED: &str = include_str!("../../tests/data/keys/p256-expired-cert.pem");

    #[test]
    fn the_thumbprint_the_key_and_the_end_of_certificates_that_openssl_wrote() {
        let certificate = Certificate::first_in(OF_RSA).unwrap();
        // openssl x509 -fingerprint -sha256
        assert_eq!(certificate.sha256()[..4], [0xfb, 0x36, 0xea, 0x90]);
        let key = |text| SigningKey::parse(text).unwrap();
        assert!(certificate.is_of(&key(RSA)) && !certificate.is_of(&key(P256)));
        assert!(Certificate::first_in(OF_P256).unwrap().is_of(&key(P256)));
        let ends = |text| Certificate::first_in(text).unwrap().ends.to_string();
        assert!(ends(OF_RSA).starts_with("2126-11-05T"), "{}", ends(OF_RSA));
        assert!(ends(EXPIRED).starts_with("2026-11-28T07:03:43"), "{}", ends(EXPIRED));
        let begins = Certificate::first_in(OF_RSA).unwrap().begins.to_string();
        assert!(begins.starts_with("2026-11-29T"), "{begins}");
        let common = |text| Certificate::first_in(text).unwrap().common_name().unwrap().to_string();
        assert_eq!(
            (common(OF_RSA), common(OF_SERVER)),
            ("evertoken-tests".into(), "localhost".into())
        );
        let names = Certificate::first_in(OF_SERVER).unwrap().names();
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["localhost", "*.example", "127.0.0.1"]);
        // The first one of a chain is the owner's.
        let chain = format!("{RSA}{OF_RSA}{OF_P256}");
        assert_eq!(Certificate::first_in(&chain).as_ref(), Ok(&certificate));
    }

    #[test]
    fn a_file_that_gives_no_certificate_says_why() {
        assert_eq!(Certificate::first_in(RSA), Err(CertificateProblem::NoPem));
        let cut = &OF_RSA[..OF_RSA.len() / 2];
        assert_eq!(Certificate::first_in(cut), Err(CertificateProblem::Damaged));
        let small = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n";
        assert_eq!(Certificate::first_in(small), Err(CertificateProblem::Damaged));
        for (tag, text) in [(UTC_TIME, "5x0101000000Z"), (GENERALIZED_TIME, "2020Z"), (4, "")] {
            assert_eq!(time(tag, text.as_bytes()), None, "{text}");
        }
        assert_eq!(
            time(UTC_TIME, b"991231235959Z"),
            Timestamp::parse_rfc3339("1999-12-31T23:59:59Z")
        );
    }
}
