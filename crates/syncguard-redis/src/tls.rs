//! TLS, as far as it is not fred's business.

use syncguard_core::Result;

/// Makes sure that rustls knows which cryptography to use. It panics where several libraries of a
/// process brought some, such as the driver of another database, and none was chosen. A choice of the
/// process stands; without one, the feature's is made.
#[cfg(any(feature = "tls-rustls", feature = "tls-rustls-ring"))]
pub(crate) fn prepare() -> Result<()> {
    use fred::rustls::crypto;

    if crypto::CryptoProvider::get_default().is_none() {
        #[cfg(feature = "tls-rustls")]
        let ours = crypto::aws_lc_rs::default_provider();
        #[cfg(not(feature = "tls-rustls"))]
        let ours = crypto::ring::default_provider();
        // It fails if somebody else has just chosen, which is as good.
        drop(ours.install_default());
    }
    Ok(())
}

/// There is none without a feature for it.
#[cfg(not(any(feature = "tls-rustls", feature = "tls-rustls-ring")))]
pub(crate) fn prepare() -> Result<()> {
    use syncguard_core::{Error, ErrorCode, Operation};

    Err(Error::new(ErrorCode::InvalidArgument, Operation::Configure).with_message(
        "the URL asks for TLS: turn on the feature `tls-rustls` or `tls-rustls-ring`",
    ))
}
