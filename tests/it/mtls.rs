//! Client certificates (RFC 8705): who is shown one, and files that change while evertoken runs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::support::PATIENCE;
use crate::support::client::get;
use crate::support::proxy::TestProxy;

const ORDER: &str = "POST /-/refresh/p HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";

/// A certificate of an authority: PEM of the certificate and of the key, and the DER.
struct Client {
    chain: String,
    key: String,
    der: Vec<u8>,
}

/// One request: its path, its body, and the client's certificate.
#[derive(Clone)]
struct Seen {
    path: String,
    body: String,
    certificate: Option<Vec<u8>>,
}

/// An issuer and a provider behind TLS that asks for a certificate, and takes clients without one too.
struct Server {
    address: SocketAddr,
    authority_pem: String,
    issuer: Issuer<'static, KeyPair>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    fn start() -> Self {
        Self::start_with(false)
    }

    /// A server that refuses clients without a certificate, if `wants_one` holds.
    fn start_with(wants_one: bool) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // Authorities of one name would be taken for each other.
        params.distinguished_name.push(rcgen::DnType::CommonName, address.to_string());
        let key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap();
        let (authority_pem, authority_der) = (authority.pem(), authority.der().clone());
        let issuer = Issuer::new(params, key);
        let own = signed(&issuer, "localhost");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(authority_der).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        let verifier = if wants_one { verifier } else { verifier.allow_unauthenticated() };
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(
                vec![CertificateDer::from(own.der)],
                PrivateKeyDer::from_pem_text(&own.key),
            )
            .unwrap();
        let (config, seen) = (Arc::new(config), Arc::<Mutex<Vec<Seen>>>::default());
        let of_thread = seen.clone();
        let run = move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (config, seen) = (config.clone(), of_thread.clone());
                let serve = move || drop(answer(stream, config, &seen));
                evertoken::testing::spawn("mtls", 512 * 1024, serve).unwrap().detach();
            }
        };
        evertoken::testing::spawn("server", 256 * 1024, run).unwrap().detach();
        Self { address, authority_pem, issuer, seen }
    }

    fn client(&self, name: &str) -> Client {
        signed(&self.issuer, name)
    }

    /// The path and the certificate of each request so far.
    fn certificates(&self) -> Vec<(String, Option<Vec<u8>>)> {
        let seen = self.seen.lock().unwrap();
        seen.iter().map(|seen| (seen.path.clone(), seen.certificate.clone())).collect()
    }
}

trait FromPemText {
    fn from_pem_text(text: &str) -> Self;
}

impl FromPemText for PrivateKeyDer<'static> {
    fn from_pem_text(text: &str) -> Self {
        let key = KeyPair::from_pem(text).unwrap();
        Self::from(PrivatePkcs8KeyDer::from(key.serialize_der()))
    }
}

fn signed(issuer: &Issuer<'static, KeyPair>, name: &str) -> Client {
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    Client { chain: certificate.pem(), key: key.serialize_pem(), der: certificate.der().to_vec() }
}

/// Answers one request with a token, and closes.
fn answer(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    seen: &Mutex<Vec<Seen>>,
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut tls = BufReader::new(StreamOwned::new(connection, stream));
    let (mut first, mut length) = (String::new(), 0);
    tls.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        tls.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        let field = line.to_lowercase();
        length = field
            .strip_prefix("content-length: ")
            .map_or(length, |text| text.trim().parse().unwrap());
    }
    let mut body = vec![0; length];
    tls.read_exact(&mut body)?;
    let certificates = tls.get_ref().conn.peer_certificates();
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.push(Seen {
            path: first.split(' ').nth(1).unwrap_or_default().to_owned(),
            body: String::from_utf8(body).unwrap(),
            certificate: certificates.and_then(|all| all.first()).map(|first| first.to_vec()),
        });
        seen.len()
    };
    let body = format!(r#"{{"access_token":"access-{number}","expires_in":3600}}"#);
    let tls = tls.get_mut();
    write!(
        tls,
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    tls.conn.send_close_notify();
    tls.flush()
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// A proxy with a client certificate; `more` are lines of the provider.
fn proxy(server: &Server, folder: &Path, more: &str) -> TestProxy {
    let ca = write(folder, "ca.pem", &server.authority_pem);
    let place = |name: &str| folder.join(name).display().to_string();
    let url = format!("https://localhost:{}", server.address.port());
    let lines = format!(
        "{more}\nca_file: '{ca}'\nauto_refresh_config:\n  token_url: '{url}/token'\n  client_id_env: CLIENT_ID\n  \
         grant_type: client_credentials\n  client_cert_file: '{}'\n  client_key_file: '{}'\n",
        place("chain.pem"),
        place("key.pem")
    );
    TestProxy::builder().provider("P", "anthropic", &url, lines.trim_start()).start()
}

#[test]
fn token_requests_show_the_certificate_and_requests_only_if_they_are_to() {
    let server = Server::start();
    let client = server.client("one");
    for (more, of_request) in [("", None), ("client_cert: true", Some(client.der.clone()))] {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "chain.pem", &client.chain);
        write(folder.path(), "key.pem", &client.key);
        server.seen.lock().unwrap().clear();
        let proxy = proxy(&server, folder.path(), more);
        assert_eq!(proxy.ask(get("/x")).status, 200);
        let of_token = ("/token".to_owned(), Some(client.der.clone()));
        assert_eq!(server.certificates(), [of_token, ("/x".to_owned(), of_request)]);
        let seen = server.seen.lock().unwrap();
        assert_eq!(seen[0].body, "grant_type=client_credentials&client_id=abc12-client");
    }
}

#[test]
fn a_renewed_certificate_is_shown_in_the_next_handshake_and_one_without_its_key_is_not() {
    let server = Server::start();
    let (one, two) = (server.client("one"), server.client("two"));
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "chain.pem", &one.chain);
    write(folder.path(), "key.pem", &one.key);
    let proxy = proxy(&server, folder.path(), "client_cert: true");
    let shown = || {
        assert_eq!(proxy.ask(get("/x")).status, 200);
        server.certificates().pop().unwrap().1.unwrap()
    };
    assert_eq!(shown(), one.der);
    // In the middle of the replacement.
    write(folder.path(), "chain.pem", &two.chain);
    assert_eq!(shown(), one.der);
    // A token request says what is wrong, and the token in hand serves.
    let refused = proxy.ask(ORDER);
    assert_eq!(refused.status, 502);
    assert!(refused.body.contains("its certificate belongs to another key"), "{}", refused.body);
    write(folder.path(), "key.pem", &two.key);
    assert_eq!(shown(), two.der);
    assert_eq!(proxy.ask(ORDER).status, 200);
    let of_token = server.certificates().into_iter().rfind(|(path, _)| path == "/token").unwrap();
    assert_eq!(of_token.1.unwrap(), two.der);
    std::fs::remove_file(folder.path().join("key.pem")).unwrap();
    assert_eq!(shown(), two.der);
}

#[test]
fn a_server_that_refuses_the_client_certificate_or_its_lack_is_said_to() {
    let server = Server::start_with(true);
    let folder = tempfile::tempdir().unwrap();
    let stranger = Server::start().client("stranger");
    write(folder.path(), "chain.pem", &stranger.chain);
    write(folder.path(), "key.pem", &stranger.key);
    let refused = proxy(&server, folder.path(), "").ask(get("/x"));
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(refused.body.contains("the server refuses the client certificate"), "{}", refused.body);
    // The provider's own connections show none.
    let client = server.client("one");
    write(folder.path(), "chain.pem", &client.chain);
    write(folder.path(), "key.pem", &client.key);
    let refused = proxy(&server, folder.path(), "").ask(get("/x"));
    assert_eq!(refused.status, 502, "{}", refused.body);
    assert!(refused.body.contains("the server wants a client certificate"), "{}", refused.body);
}

#[test]
fn without_its_files_nothing_is_sent_and_the_file_is_named() {
    let server = Server::start();
    let client = server.client("one");
    let folder = tempfile::tempdir().unwrap();
    let proxy = proxy(&server, folder.path(), "");
    let refused = proxy.ask(get("/x"));
    assert_eq!(refused.status, 403, "{}", refused.body);
    assert!(refused.body.contains("Missing secret file"), "{}", refused.body);
    assert_eq!(server.certificates().len(), 0);
    write(folder.path(), "chain.pem", &client.chain);
    write(folder.path(), "key.pem", &client.key);
    assert_eq!(proxy.ask(ORDER).status, 200);
    assert_eq!(server.certificates().len(), 1);
}
