//! Whom to trust, and who we are: the certificates that the variables name.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::{ExportError, setup};

/// Whether what is said to this collector is.
pub(super) fn is_secured(endpoint: &str) -> bool {
    endpoint.starts_with("https://")
}

/// A file, and the variable that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) variable: &'static str,
    pub(super) path: String,
}

impl Named {
    fn read(&self) -> Result<Vec<u8>, ExportError> {
        std::fs::read(&self.path).map_err(|e| self.problem(&e))
    }

    fn problem(&self, problem: &dyn std::fmt::Display) -> ExportError {
        ExportError::File {
            variable: self.variable,
            path: self.path.clone(),
            problem: problem.to_string(),
        }
    }

    /// The certificates in it: at least one.
    fn certificates(&self) -> Result<(Vec<u8>, Vec<CertificateDer<'static>>), ExportError> {
        let pem = self.read()?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let found = found.map_err(|e| self.problem(&e))?;
        if found.is_empty() {
            return Err(self.problem(&"there is no certificate in it; it takes PEM"));
        }
        Ok((pem, found))
    }

    fn key(&self) -> Result<(Vec<u8>, PrivateKeyDer<'static>), ExportError> {
        let pem = self.read()?;
        let key = PrivateKeyDer::from_pem_slice(&pem);
        let key = key.map_err(|_| self.problem(&"there is no private key in it; it takes PEM"))?;
        Ok((pem, key))
    }
}

/// The files.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Tls {
    /// Whom to trust instead of those that the system trusts.
    pub(super) authority: Option<Named>,
    /// Who we are: certificate and key.
    pub(super) identity: Option<(Named, Named)>,
}

impl Tls {
    /// For the library that speaks gRPC.
    pub(super) fn for_grpc(&self) -> Result<ClientTlsConfig, ExportError> {
        let mut config = ClientTlsConfig::new();
        config = match &self.authority {
            Some(named) => config.ca_certificate(Certificate::from_pem(named.certificates()?.0)),
            None => config.with_enabled_roots(),
        };
        if let Some((certificate, key)) = &self.identity {
            let pair = (certificate.certificates()?.0, key.key()?.0);
            config = config.identity(Identity::from_pem(pair.0, pair.1));
        }
        Ok(config)
    }

    /// For the one that speaks HTTP, to this collector.
    pub(super) fn for_http(&self, endpoint: &str) -> Result<ClientConfig, ExportError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| setup(endpoint, &e))?;
        let Some(roots) = self.roots(endpoint)? else {
            let nobody = RootCertStore::empty();
            return Ok(config.with_root_certificates(nobody).with_no_client_auth());
        };
        let config = config.with_root_certificates(roots);
        let Some((certificate, key)) = &self.identity else {
            return Ok(config.with_no_client_auth());
        };
        config
            .with_client_auth_cert(certificate.certificates()?.1, key.key()?.1)
            .map_err(|e| certificate.problem(&e))
    }

    /// Whom to trust; nobody is asked where nothing is secured.
    fn roots(&self, endpoint: &str) -> Result<Option<RootCertStore>, ExportError> {
        if !is_secured(endpoint) {
            return Ok(None);
        }
        let mut roots = RootCertStore::empty();
        if let Some(named) = &self.authority {
            for certificate in named.certificates()?.1 {
                roots.add(certificate).map_err(|e| named.problem(&e))?;
            }
            return Ok(Some(roots));
        }
        let of_system = rustls_native_certs::load_native_certs();
        // A single one that cannot be read is no reason to trust none.
        if roots.add_parsable_certificates(of_system.certs).0 == 0 {
            let problem = "this system trusts nobody: name the collector's authority with \
                           OTEL_EXPORTER_OTLP_CERTIFICATE";
            return Err(setup(endpoint, &problem));
        }
        Ok(Some(roots))
    }
}
