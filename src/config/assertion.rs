//! Assertions after checking: JSON Web Tokens that stand in for a password (RFC 7521, RFC 7523).

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::clock::Timestamp;
use crate::config::key_file::{KeyFile, ServiceAccount};
use crate::config::missing::{Missing, SecretLookup};
use crate::jwt;
use crate::signing::{Algorithm, Certificate, CertificateProblem, KeyProblem, SigningKey};

/// `assertion` or `client_assertion`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assertion {
    /// A new one for each request, signed with a key.
    Signed(Box<SignedAssertion>),
    /// One that another program keeps in a file.
    Ready(SecretFile),
}

/// An assertion that evertoken signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedAssertion {
    /// `key_file`.
    pub key: SecretFile,
    /// `algorithm`; None for the usual one of the key's kind.
    pub algorithm: Option<Algorithm>,
    /// `key_id`.
    pub key_id: Option<String>,
    /// `cert_file`, whose hash is sent.
    pub certificate: Option<SecretFile>,
    /// Its content.
    pub content: AssertionContent,
}

/// The claims and the lifetime of an assertion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssertionContent {
    /// `claims`, in file order: they replace the usual ones, and null takes one out.
    pub claims: Vec<(String, Value)>,
    /// From `iat` to `exp`.
    pub lifetime: Duration,
}

/// A secret in a file that is read again at each use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFile {
    /// The path of the file.
    pub path: PathBuf,
    /// Its content.
    pub found: SecretLookup,
}

impl Assertion {
    /// The files that it needs.
    pub fn files(&self) -> impl Iterator<Item = &SecretFile> {
        let (first, second) = match self {
            Self::Signed(signed) => (&signed.key, signed.certificate.as_ref()),
            Self::Ready(file) => (file, None),
        };
        std::iter::once(first).chain(second)
    }

    /// The token endpoint that the file of a service account names.
    pub(crate) fn token_url(&self) -> Option<String> {
        match self {
            Self::Signed(signed) => signed.account()?.token_url,
            Self::Ready(_) => None,
        }
    }

    /// Reads its files again with `read`. A file that holds no usable key counts as missing.
    pub(crate) fn read_again(&mut self, read: &dyn Fn(&Path) -> SecretLookup) {
        match self {
            Self::Signed(signed) => {
                signed.key.found = read(&signed.key.path);
                signed.key.found = signed.key().map(|_| ()).and(signed.key.found.clone());
                if let Some(certificate) = &mut signed.certificate {
                    certificate.found = read(&certificate.path);
                }
                let checked = signed.certificate().map(|_| ());
                if let (Err(missing), Some(certificate)) = (checked, &mut signed.certificate) {
                    certificate.found = Err(missing);
                }
            }
            Self::Ready(file) => file.found = read(&file.path),
        }
    }
}

impl SignedAssertion {
    /// Its key, the algorithm to sign with, and the service account in its file.
    pub(crate) fn key(&self) -> Result<(SigningKey, Algorithm, Option<ServiceAccount>), Missing> {
        let text = self.key.found.as_ref().map_err(Clone::clone)?;
        let file = KeyFile::read(text).map_err(|why| self.key.unusable(&why))?;
        let (key, algorithm) = file.key(self.algorithm).map_err(|why| self.key.unusable(&why))?;
        Ok((key, algorithm, file.account))
    }

    /// Its certificate, if one is configured.
    pub(crate) fn certificate(&self) -> Result<Option<Certificate>, Missing> {
        let Some(file) = &self.certificate else { return Ok(None) };
        file.certificate()?.map(Some).map_err(|why| file.unusable(&why))
    }

    /// The service account in its file, if it has one.
    pub(crate) fn account(&self) -> Option<ServiceAccount> {
        KeyFile::read(self.key.found.as_ref().ok()?).ok()?.account
    }
}

impl SecretFile {
    /// The private key in it, or the problem of its content; the outer error says that it is missing.
    pub(crate) fn signing_key(&self) -> Result<Result<SigningKey, KeyProblem>, Missing> {
        let text = self.found.as_ref().map_err(Clone::clone)?;
        Ok(SigningKey::parse(text.expose()))
    }

    /// The certificate in it, or the problem of its content; the outer error says that it is missing.
    pub(crate) fn certificate(&self) -> Result<Result<Certificate, CertificateProblem>, Missing> {
        let text = self.found.as_ref().map_err(Clone::clone)?;
        Ok(Certificate::first_in(text.expose()))
    }

    /// The DER of all certificates in it, which is there, or the problem of one.
    pub(crate) fn chain(&self) -> Result<Vec<Vec<u8>>, CertificateProblem> {
        Certificate::chain_in(self.found.as_ref().map_or("", |text| text.expose()))
    }

    /// The place of the certificate of `key` among those in it, counted from 1; None if there is none.
    pub(crate) fn place_of(&self, key: &SigningKey) -> Option<usize> {
        let of_key =
            |one: &Vec<u8>| Certificate::of_der(one.clone()).is_some_and(|one| one.is_of(key));
        self.chain().ok()?.iter().position(of_key).map(|at| at + 1)
    }

    /// The file as missing, because `why`.
    pub(crate) fn unusable(&self, why: &dyn std::fmt::Display) -> Missing {
        Missing::File(self.path.display().to_string(), why.to_string())
    }
}

/// The reason why no issuer will take the `token` at `now`, in words that follow the name of its file; None if it is
/// missing, which is told elsewhere.
pub(crate) fn doubt_about(token: &SecretLookup, now: Timestamp) -> Option<String> {
    let text = token.as_ref().ok()?.expose();
    if text.contains(char::is_whitespace) || text.starts_with(['{', '"', '\'']) {
        return Some("holds more than a token alone, and all of it is sent".to_owned());
    }
    let end = end_of(token).filter(|end| *end < now)?;
    Some(format!(
        "holds a token that ended at {end}; the program that keeps it fresh has to renew it"
    ))
}

/// The end that the JWT `token` names; None if it is missing, is no JWT, or names none.
pub(crate) fn end_of(token: &SecretLookup) -> Option<Timestamp> {
    jwt::exp(token.as_ref().ok()?.expose()).known()
}
