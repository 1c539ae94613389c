//! The certificate of a run's provider, and of the run's own authority.

use std::path::PathBuf;

use crate::{Outcome, folder};

/// A certificate for `localhost`, and its key.
pub(crate) struct Issued {
    /// The certificate.
    pub(crate) certificate: rcgen::Certificate,
    /// Its key.
    pub(crate) key: rcgen::KeyPair,
}

/// The file of the authority's certificate.
pub(crate) fn authority() -> Outcome<PathBuf> {
    Ok(folder::scratch()?.join("ca.pem"))
}

/// Makes an authority, whose certificate goes into its file, and a certificate by it.
pub(crate) fn issue() -> Outcome<Issued> {
    let mut of_authority = rcgen::CertificateParams::new(Vec::new())?;
    of_authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    // A distinct name: OpenSSL takes a certificate whose issuer has the same name for a self-signed one.
    of_authority.distinguished_name.push(rcgen::DnType::CommonName, "authority of the benchmark");
    let authority_key = rcgen::KeyPair::generate()?;
    let pem = of_authority.self_signed(&authority_key)?.pem();
    std::fs::write(authority()?, pem)?;
    let issuer = rcgen::Issuer::new(of_authority, authority_key);
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()])?;
    let key = rcgen::KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Issued { certificate, key })
}
