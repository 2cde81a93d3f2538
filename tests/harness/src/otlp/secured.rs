//! An authority that certifies who a test says it is.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::{Identity, ServerTlsConfig};

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Pem {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

/// The authority.
#[derive(Debug)]
pub struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// One that nobody has heard of.
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self {
            certificate: params.self_signed(&key).expect("a certificate"),
            issuer: Issuer::new(params, key),
        }
    }

    /// Certifies somebody of this name or address.
    pub fn certify(&self, name: &str) -> Pem {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Pem {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// Writes its own certificate, and one for a client, with its key: `ca.pem`, `client.pem`,
    /// `client.key`.
    pub fn write(&self, dir: &Path) {
        let client = self.certify("client");
        for (name, text) in [
            ("ca.pem", self.certificate.pem()),
            ("client.pem", client.certificate),
            ("client.key", client.key),
        ] {
            std::fs::write(dir.join(name), text).expect("a file");
        }
    }

    /// Writes a certificate for somebody of this name or address, with its key: `NAME.pem`,
    /// `NAME.key`.
    pub fn write_for(&self, address: &str, dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        let pem = self.certify(address);
        let paths = ["pem", "key"].map(|ending| dir.join(format!("{name}.{ending}")));
        for (path, text) in paths.iter().zip([pem.certificate, pem.key]) {
            std::fs::write(path, text).expect("a file");
        }
        let [certificate, key] = paths;
        (certificate, key)
    }

    pub(super) fn for_grpc(&self) -> ServerTlsConfig {
        let own = self.certify("127.0.0.1");
        let ca = tonic::transport::Certificate::from_pem(self.certificate.pem());
        ServerTlsConfig::new()
            .identity(Identity::from_pem(own.certificate, own.key))
            .client_ca_root(ca)
    }

    pub(super) fn listener(&self, tcp: TcpListener) -> Secured {
        let own = self.certify("127.0.0.1");
        let mut roots = RootCertStore::empty();
        roots
            .add(self.certificate.der().clone())
            .expect("a certificate");
        let clients = WebPkiClientVerifier::builder(Arc::new(roots)).build();
        let certificate = CertificateDer::from_pem_slice(own.certificate.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes());
        let config = ServerConfig::builder()
            .with_client_cert_verifier(clients.expect("a verifier"))
            .with_single_cert(
                vec![certificate.expect("a certificate")],
                key.expect("a key"),
            );
        Secured {
            tcp,
            acceptor: TlsAcceptor::from(Arc::new(config.expect("it is TLS"))),
        }
    }
}

/// A listener whose connections are secured.
pub(super) struct Secured {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Secured {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, from) = self.tcp.accept().await.expect("it listens");
            // A client that is none of ours is left alone.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}
