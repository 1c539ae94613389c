//! Trust in one certificate, whatever its name, issuer and end: that of our own address.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    Stream,
};

/// The message for any other certificate.
const OTHER: &str = "it shows another certificate than the one in settings.tls: it is another server, or an evertoken whose files of the \
     certificate were replaced by ones that it can't use, for which its log has the reason";

#[derive(Debug)]
struct OwnVerifier {
    certificate: CertificateDer<'static>,
    /// Judges other certificates; None to refuse them.
    others: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

/// The configuration of a client that trusts `certificate` (DER), and those that the roots `others` vouch for.
pub(crate) fn trusting(certificate: Vec<u8>, others: Option<RootCertStore>) -> Arc<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    // Without any root, no other certificate can be right.
    let others = others.and_then(|roots| {
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().ok()
    });
    let certificate = certificate.into();
    let verifier = OwnVerifier { certificate, others, provider: provider.clone() };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Arc::new(config)
}

/// Runs `talk` over TLS with the server at the other end of `stream`, which is at our own address.
pub(crate) fn ask<T>(
    stream: &mut TcpStream,
    config: Arc<ClientConfig>,
    talk: impl FnOnce(&mut dyn ReadWrite) -> std::io::Result<T>,
) -> std::io::Result<T> {
    let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST).into());
    let mut session = ClientConnection::new(config, name).map_err(std::io::Error::other)?;
    talk(&mut Stream::new(&mut session, stream))
}

/// Both directions of a connection.
pub(crate) trait ReadWrite: Read + Write {}

impl<T: Read + Write> ReadWrite for T {}

impl ServerCertVerifier for OwnVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *end_entity == self.certificate {
            return Ok(ServerCertVerified::assertion());
        }
        let others = self.others.as_ref().ok_or_else(|| Error::General(OTHER.to_owned()))?;
        others.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
