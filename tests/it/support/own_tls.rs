//! Clients that speak TLS to the proxy, and the certificates that they trust.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

use socket2::{Domain, Socket, Type};

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
        Self::with(&["localhost", "127.0.0.1"], |params| {
            params.not_before = date_time_ymd(from_year, 1, 1);
            params.not_after = date_time_ymd(to_year, 1, 1);
        })
    }

    /// A new one for `name`, or for none if it is empty, with what `change` makes of it.
    pub(crate) fn of(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let names: &[&str] = if name.is_empty() { &[] } else { &[name] };
        Self::with(names, change)
    }

    fn with(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = params(names);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let made = params.self_signed(&key).unwrap();
        Self { certificate: made.pem(), key: key.serialize_pem(), der: made.der().clone() }
    }

    /// A new one for `name` that an authority signed, whose certificate follows it.
    pub(crate) fn of_authority(name: &str) -> Self {
        let mut authority = params(&[]);
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().unwrap();
        let own = authority.self_signed(&authority_key).unwrap();
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate().unwrap();
        let made = params(&[name]).signed_by(&key, &issuer).unwrap();
        let certificate = format!("{}{}", made.pem(), own.pem());
        Self { certificate, key: key.serialize_pem(), der: own.der().clone() }
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

/// A certificate for `names` that does not say whether it is that of an authority.
fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2120, 1, 1);
    params
}

/// A connection over TLS.
pub(crate) type Secure = StreamOwned<ClientConnection, TcpStream>;

/// Connects to `address`; the handshake begins with the first byte.
pub(crate) fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Secure {
    over(TcpStream::connect(address).unwrap(), config)
}

/// The same with a buffer for so much of what comes, which limits what is under way.
pub(crate) fn connect_with_window(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    bytes: usize,
) -> Secure {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(bytes).unwrap();
    socket.connect(&address.into()).unwrap();
    over(socket.into(), config)
}

fn over(stream: TcpStream, config: &Arc<ClientConfig>) -> Secure {
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
