//! Clients that speak TLS to the proxy, and the certificates that they trust.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

use super::PATIENCE;

/// A certificate that signs itself, and its key, as PEM.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
    der: CertificateDer<'static>,
}

impl Pair {
    /// A new one for `localhost` and 127.0.0.1.
    pub(crate) fn new() -> Self {
        Self::valid(2020, 2120)
    }

    /// A new one that is valid in these years.
    pub(crate) fn valid(from_year: i32, to_year: i32) -> Self {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(from_year, 1, 1);
        params.not_after = date_time_ymd(to_year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let made = params.self_signed(&key).unwrap();
        Self { certificate: made.pem(), key: key.serialize_pem(), der: made.der().clone() }
    }

    /// Writes both files into `folder`, as a program does that renews a certificate.
    pub(crate) fn write(&self, folder: &Path) {
        for (name, text) in [("key.pem", &self.key), ("cert.pem", &self.certificate)] {
            let new = folder.join("new");
            std::fs::write(&new, text).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(&new, mode).unwrap();
            std::fs::rename(new, folder.join(name)).unwrap();
        }
    }

    /// A client that trusts it, with these versions of TLS and protocols within it.
    pub(crate) fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        protocols: &[&str],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|one| one.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// The same with the usual versions and without protocols.
    pub(crate) fn usual(&self) -> Arc<ClientConfig> {
        self.client(rustls::ALL_VERSIONS, &[])
    }
}

/// A connection over TLS.
pub(crate) type Secure = StreamOwned<ClientConnection, TcpStream>;

/// Connects to `address`; the handshake begins with the first byte.
pub(crate) fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Secure {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(config.clone(), name).unwrap(), stream)
}

/// Sends `request`, and reads to the end of the connection.
pub(crate) fn ask(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    request: &str,
) -> io::Result<String> {
    let mut secure = connect(address, config);
    secure.write_all(request.as_bytes())?;
    let mut answer = String::new();
    secure.read_to_string(&mut answer)?;
    Ok(answer)
}
