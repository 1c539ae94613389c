//! A private key that signs, from a PEM file: PKCS#8, PKCS#1 or SEC1.

use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
};

use crate::signing::algorithm::{Algorithm, KeyKind};
use crate::signing::der::{BIT_STRING, INTEGER, OCTET_STRING, OID, Reader, SEQUENCE, context};
use crate::signing::pem::{DASHES, PemSection, sections};

/// The sizes of RSA keys that can sign.
const RSA_MIN_BITS: usize = 2048;
const RSA_MAX_BITS: usize = 4096;

/// Object identifiers of kinds of keys and of curves, without tag and length.
const OID_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
const OID_ELLIPTIC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
const OID_ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const OID_P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const OID_P384: &[u8] = &[0x2b, 0x81, 4, 0, 0x22];

/// First bytes of a compressed point (SEC 1 §2.3.3).
const POINT_COMPRESSED_EVEN: u8 = 2;
const POINT_COMPRESSED_ODD: u8 = 3;

/// Kinds that can't be used, with their names.
const OTHERS: [(&[u8], &str); 7] = [
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10], "RSA for PSS alone"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x38, 4, 1], "DSA"),
    (&[0x2b, 0x65, 0x6e], "X25519"),
    (&[0x2b, 0x65, 0x6f], "X448"),
    (&[0x2b, 0x65, 0x71], "Ed448"),
    (&[0x2b, 0x81, 4, 0, 0x23], "P-521"),
    (&[0x2b, 0x81, 4, 0, 0x0a], "secp256k1"),
];

/// The reason why a text gives no key. `Display` continues after the name of the file, and shows nothing of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyProblem {
    /// There is no PEM in it.
    #[error("there is no PEM private key in it (it would begin with -----BEGIN PRIVATE KEY-----)")]
    NoPem,
    /// It is a JSON Web Key.
    #[error("it is JSON and not a PEM private key; a JWK must be converted to PEM")]
    Json,
    /// Only the public half is there.
    #[error("it holds a public key; the private key that belongs to it is needed")]
    Public,
    /// Only a certificate is there.
    #[error("it holds a certificate and no private key")]
    Certificate,
    /// A passphrase protects it.
    #[error(
        "its key is encrypted with a passphrase, which nobody could type in; openssl pkey -in FILE -out NEW writes \
         it without one"
    )]
    Encrypted,
    /// It has OpenSSH's own format.
    #[error("it is in OpenSSH's own format; ssh-keygen -p -m PKCS8 -f FILE converts it")]
    OpenSsh,
    /// Its lines are not those of a PEM file.
    #[error(
        "its -----BEGIN and -----END do not stand on lines of their own: its line breaks were lost or written as \\n, \
         or quotes stand around it"
    )]
    NoLines,
    /// The PEM or its content is broken.
    #[error("its private key is damaged or cut off")]
    Damaged,
    /// A kind of key that can't sign here.
    #[error("its key is of the kind {0}, which can't be used; RSA, P-256, P-384 and Ed25519 can")]
    Kind(&'static str),
    /// An RSA key of another size.
    #[error("its RSA key has {0} bits; from {RSA_MIN_BITS} to {RSA_MAX_BITS} can be used")]
    RsaSize(usize),
    /// An elliptic key whose curve is written out in numbers, or whose public half is compressed.
    #[error(
        "its elliptic key is in a rare form; openssl ec -param_enc named_curve -conv_form uncompressed -in FILE -out NEW \
         converts it"
    )]
    RareForm,
    /// An elliptic key without its public half.
    #[error("its public half is missing in it; openssl ec -in FILE -out NEW adds it")]
    NoPublicHalf,
}

/// A private key that signs.
pub(crate) struct SigningKey(Pair);

enum Pair {
    Rsa(RsaKeyPair),
    Elliptic(EcdsaKeyPair, KeyKind),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    /// The first private key in a PEM `text`.
    pub(crate) fn parse(text: &str) -> Result<Self, KeyProblem> {
        let all = sections(text);
        let is_private = |section: &&PemSection<'_>| section.label.ends_with("PRIVATE KEY");
        let Some(section) = all.iter().find(is_private) else {
            return Err(without_private(text, &all));
        };
        if section.label.contains(DASHES) {
            return Err(KeyProblem::NoLines);
        }
        if section.is_encrypted() {
            return Err(KeyProblem::Encrypted);
        }
        if section.label == "OPENSSH PRIVATE KEY" {
            return Err(KeyProblem::OpenSsh);
        }
        let bytes = section.bytes().ok_or(KeyProblem::Damaged)?;
        match section.label {
            "PRIVATE KEY" => pkcs8(&bytes),
            "RSA PRIVATE KEY" => rsa(&bytes),
            "EC PRIVATE KEY" => sec1(&bytes, None),
            "DSA PRIVATE KEY" => Err(KeyProblem::Kind("DSA")),
            _ => Err(KeyProblem::NoPem),
        }
        .map(Self)
    }

    /// Its kind.
    pub(crate) fn kind(&self) -> KeyKind {
        match &self.0 {
            Pair::Rsa(_) => KeyKind::Rsa,
            Pair::Elliptic(_, kind) => *kind,
            Pair::Ed25519(_) => KeyKind::Ed25519,
        }
    }

    /// Its public half, as it stands in a certificate.
    pub(crate) fn public(&self) -> &[u8] {
        match &self.0 {
            Pair::Rsa(pair) => pair.public_key().as_ref(),
            Pair::Elliptic(pair, _) => pair.public_key().as_ref(),
            Pair::Ed25519(pair) => pair.public_key().as_ref(),
        }
    }

    /// The signature of `message`; None if the key does not fit `algorithm` or is inconsistent.
    pub(crate) fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Option<Vec<u8>> {
        if algorithm.key_kind() != self.kind() {
            return None;
        }
        let random = SystemRandom::new();
        match &self.0 {
            Pair::Rsa(pair) => {
                let padding = match algorithm {
                    Algorithm::Ps256 => &RSA_PSS_SHA256,
                    _ => &RSA_PKCS1_SHA256 as &dyn ring::signature::RsaEncoding,
                };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &random, message, &mut signature).ok()?;
                Some(signature)
            }
            Pair::Elliptic(pair, _) => Some(pair.sign(&random, message).ok()?.as_ref().to_vec()),
            Pair::Ed25519(pair) => Some(pair.sign(message).as_ref().to_vec()),
        }
    }
}

/// HMAC with SHA-256 (`HS256`) of `message` under the text `key`.
pub(crate) fn hmac_sha256(key: &str, message: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    hmac::sign(&key, message).as_ref().to_vec()
}

/// The reason why there is no private key in `text`, which has these sections.
fn without_private(text: &str, all: &[PemSection<'_>]) -> KeyProblem {
    let has = |end: &str| all.iter().any(|section| section.label.ends_with(end));
    if text.contains("PRIVATE KEY-----") {
        KeyProblem::NoLines
    } else if has("PUBLIC KEY") {
        KeyProblem::Public
    } else if has("CERTIFICATE") {
        KeyProblem::Certificate
    } else if text.trim_start().starts_with('{') {
        KeyProblem::Json
    } else {
        KeyProblem::NoPem
    }
}

/// RFC 5208, RFC 5958.
fn pkcs8(bytes: &[u8]) -> Result<Pair, KeyProblem> {
    let parts = || {
        let mut key = Reader(bytes).enter(SEQUENCE)?;
        key.take(INTEGER)?;
        let mut algorithm = key.enter(SEQUENCE)?;
        Some((algorithm.take(OID)?, algorithm.take(OID), key.take(OCTET_STRING)?))
    };
    let (kind, parameter, key) = parts().ok_or(KeyProblem::Damaged)?;
    match kind {
        OID_RSA => rsa(key),
        OID_ELLIPTIC => sec1(key, parameter),
        OID_ED25519 => Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes)
            .map(Pair::Ed25519)
            .map_err(|_| KeyProblem::Damaged),
        other => Err(KeyProblem::Kind(name_of(other))),
    }
}

/// RFC 8017 §A.1.2.
fn rsa(bytes: &[u8]) -> Result<Pair, KeyProblem> {
    RsaKeyPair::from_der(bytes).map(Pair::Rsa).map_err(|_| match modulus_bits(bytes) {
        Some(bits) if !(RSA_MIN_BITS..=RSA_MAX_BITS).contains(&bits) => KeyProblem::RsaSize(bits),
        _ => KeyProblem::Damaged,
    })
}

fn modulus_bits(bytes: &[u8]) -> Option<usize> {
    let mut key = Reader(bytes).enter(SEQUENCE)?;
    key.take(INTEGER)?;
    let modulus = key.take(INTEGER)?;
    let leading = modulus.iter().take_while(|byte| **byte == 0).count();
    let first = modulus.get(leading)?;
    Some((modulus.len() - leading) * 8 - first.leading_zeros() as usize)
}

/// RFC 5915; `curve` is named outside of it in PKCS#8.
fn sec1(bytes: &[u8], curve: Option<&[u8]>) -> Result<Pair, KeyProblem> {
    let parts = || {
        let mut key = Reader(bytes).enter(SEQUENCE)?;
        key.take(INTEGER)?;
        let private = key.take(OCTET_STRING)?;
        let own = key.enter(context(0)).and_then(|mut own| own.take(OID));
        let public = key.enter(context(1)).and_then(|mut public| public.take(BIT_STRING));
        Some((private, curve.or(own), public))
    };
    let (private, curve, public) = parts().ok_or(KeyProblem::Damaged)?;
    let curve = curve.ok_or(KeyProblem::RareForm)?;
    let (algorithm, kind) = match curve {
        OID_P256 => (&ECDSA_P256_SHA256_FIXED_SIGNING, KeyKind::P256),
        OID_P384 => (&ECDSA_P384_SHA384_FIXED_SIGNING, KeyKind::P384),
        other => return Err(KeyProblem::Kind(name_of(other))),
    };
    // The first byte of a bit string counts its unused bits.
    let public = public.and_then(|public| public.strip_prefix(&[0]));
    let public = public.ok_or(KeyProblem::NoPublicHalf)?;
    if matches!(public.first(), Some(&POINT_COMPRESSED_EVEN | &POINT_COMPRESSED_ODD)) {
        return Err(KeyProblem::RareForm);
    }
    let pair = EcdsaKeyPair::from_private_key_and_public_key(
        algorithm,
        private,
        public,
        &SystemRandom::new(),
    );
    pair.map(|pair| Pair::Elliptic(pair, kind)).map_err(|_| KeyProblem::Damaged)
}

fn name_of(oid: &[u8]) -> &'static str {
    let known = OTHERS.iter().find(|(own, _)| *own == oid);
    known.map_or("of a rare algorithm", |(_, name)| name)
}

#[cfg(test)]
pub(crate) mod tests {
    use ring::signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519 as VERIFY_ED25519,
        RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey,
        VerificationAlgorithm,
    };

    use super::*;

    /// Keys that openssl wrote.
    pub(crate) const RSA: &str = include_str!("../../tests/data/keys/rsa.pem");
    pub(crate) const P256: &str = include_str!("../../tests/data/keys/p256.pem");
    pub(crate) const ED25519: &str = include_str!("../../tests/data/keys/ed25519.pem");
    const RSA_PKCS1: &str = include_str!("../../tests/data/keys/rsa-pkcs1.pem");
    const P256_SEC1: &str = include_str!("../../tests/data/keys/p256-sec1.pem");
    const P384_SEC1: &str = include_str!("../../tests/data/keys/p384-sec1.pem");

    fn verified_by(algorithm: Algorithm) -> &'static dyn VerificationAlgorithm {
        match algorithm {
            Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
            Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
            Algorithm::Es256 => &ECDSA_P256_SHA256_FIXED,
            Algorithm::Es384 => &ECDSA_P384_SHA384_FIXED,
            Algorithm::EdDsa => &VERIFY_ED25519,
        }
    }

    #[test]
    fn keys_of_each_kind_and_format_sign_with_what_fits_them() {
        let windows = RSA.replace('\n', "\r\n");
        let with_text = format!("Bag Attributes\n    friendlyName: x\n{RSA}");
        let cases = [
            (RSA, KeyKind::Rsa),
            (RSA_PKCS1, KeyKind::Rsa),
            (windows.as_str(), KeyKind::Rsa),
            (with_text.as_str(), KeyKind::Rsa),
            (P256, KeyKind::P256),
            // Begins with a section of parameters.
            (P256_SEC1, KeyKind::P256),
            (P384_SEC1, KeyKind::P384),
            (ED25519, KeyKind::Ed25519),
        ];
        for (text, kind) in cases {
            let key = SigningKey::parse(text).unwrap_or_else(|why| panic!("{kind:?}: {why}"));
            assert_eq!(key.kind(), kind);
            for algorithm in Algorithm::ALL {
                let signature = key.sign(algorithm, b"m");
                assert_eq!(signature.is_some(), algorithm.key_kind() == kind, "{algorithm:?}");
                if let Some(signature) = signature {
                    let public = UnparsedPublicKey::new(verified_by(algorithm), key.public());
                    assert!(public.verify(b"m", &signature).is_ok(), "{algorithm:?}");
                }
            }
            assert!(key.sign(kind.usual_algorithm(), b"m").is_some());
        }
    }

    #[test]
    fn a_file_that_gives_no_key_says_why() {
        macro_rules! key {
            ($name:literal) => {
                include_str!(concat!("../../tests/data/keys/", $name, ".pem"))
            };
        }
        let cut = &RSA[..RSA.len() / 2];
        let bent = RSA.replacen("MII", "M!!", 1);
        // A letter in the second prime: still base64 and DER.
        let middle = RSA.len() * 6 / 10;
        let other = if RSA.as_bytes()[middle] == b'A' { "B" } else { "A" };
        let wrong = format!("{}{other}{}", &RSA[..middle], &RSA[middle + 1..]);
        let cases = [
            (key!("public"), KeyProblem::Public),
            (key!("rsa-cert"), KeyProblem::Certificate),
            (key!("encrypted"), KeyProblem::Encrypted),
            (key!("encrypted-pkcs1"), KeyProblem::Encrypted),
            (key!("openssh"), KeyProblem::OpenSsh),
            (key!("rsa1024"), KeyProblem::RsaSize(1024)),
            (key!("rsa-pss"), KeyProblem::Kind("RSA for PSS alone")),
            (key!("ed448"), KeyProblem::Kind("Ed448")),
            (key!("x25519"), KeyProblem::Kind("X25519")),
            (key!("p521"), KeyProblem::Kind("P-521")),
            (key!("no-public-half"), KeyProblem::NoPublicHalf),
            ("", KeyProblem::NoPem),
            ("secret", KeyProblem::NoPem),
            ("{\"kty\": \"RSA\"}", KeyProblem::Json),
            (cut, KeyProblem::Damaged),
            (&bent, KeyProblem::Damaged),
            (&wrong, KeyProblem::Damaged),
            ("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----", KeyProblem::Damaged),
            ("-----BEGIN PRIVATE KEY-----", KeyProblem::Damaged),
            (key!("p256-compressed"), KeyProblem::RareForm),
            (key!("p256-explicit"), KeyProblem::RareForm),
            // Copied through a variable, a terminal or YAML.
            (&RSA.replace('\n', " "), KeyProblem::NoLines),
            (&RSA.replace('\n', "\\n"), KeyProblem::NoLines),
            (&RSA.replace('\n', "\r"), KeyProblem::NoLines),
            (&format!("\"{}\"", RSA.trim_end()), KeyProblem::NoLines),
        ];
        for (text, problem) in cases {
            let told = SigningKey::parse(text).err();
            assert_eq!(told, Some(problem), "{text}");
        }
    }

    #[test]
    fn the_hmac_of_rfc_4231() {
        let mac = hmac_sha256("Jefe", b"what do ya want for nothing?");
        assert_eq!(mac[..4], [0x5b, 0xdc, 0xc1, 0x46]);
    }
}
