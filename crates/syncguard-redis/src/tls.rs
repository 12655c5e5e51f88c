//! TLS for connections that are made from a URL.

use fred::types::config::Config;
use syncguard_core::Result;

/// Turns on TLS, with the roots of the system.
///
/// The configuration names its provider of cryptography. rustls would otherwise look for one that
/// the process has chosen, and it panics if several crates bring one and none was chosen.
#[cfg(any(feature = "tls-rustls", feature = "tls-rustls-ring"))]
pub(crate) fn enable(config: &mut Config) -> Result<()> {
    use std::sync::Arc;

    use fred::rustls::{ClientConfig, RootCertStore};
    use fred::types::config::TlsConnector;
    use syncguard_core::{Error, ErrorCode, Operation};

    let invalid = |message: &'static str| {
        Error::new(ErrorCode::InvalidArgument, Operation::Connect).with_message(message)
    };
    #[cfg(feature = "tls-rustls")]
    let provider = fred::rustls::crypto::aws_lc_rs::default_provider();
    #[cfg(not(feature = "tls-rustls"))]
    let provider = fred::rustls::crypto::ring::default_provider();

    let mut roots = RootCertStore::empty();
    // A certificate that cannot be read is left out. A server that needs it is refused.
    let (usable, _) =
        roots.add_parsable_certificates(fred::rustls_native_certs::load_native_certs().certs);
    if usable == 0 {
        return Err(invalid(
            "no root certificates were found: install them, for example the package ca-certificates, or set SSL_CERT_FILE",
        ));
    }
    let tls = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| {
            invalid("the provider of cryptography supports no version of TLS").with_source(error)
        })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.tls = Some(TlsConnector::from(tls).into());
    Ok(())
}

/// Whether connections use TLS.
#[cfg(any(feature = "tls-rustls", feature = "tls-rustls-ring"))]
pub(crate) fn is_enabled(config: &Config) -> bool {
    config.tls.is_some()
}

/// They cannot without a feature for it.
#[cfg(not(any(feature = "tls-rustls", feature = "tls-rustls-ring")))]
pub(crate) fn is_enabled(_: &Config) -> bool {
    false
}

/// There is none without a feature for it.
#[cfg(not(any(feature = "tls-rustls", feature = "tls-rustls-ring")))]
pub(crate) fn enable(_: &mut Config) -> Result<()> {
    use syncguard_core::{Error, ErrorCode, Operation};

    Err(Error::new(ErrorCode::InvalidArgument, Operation::Connect).with_message(
        "the URL asks for TLS: turn on the feature `tls-rustls` or `tls-rustls-ring`",
    ))
}
