//! Which rustls provider the driver uses.

use sqlx::postgres::PgConnectOptions;

/// Makes sure that a provider is chosen where the driver leaves that to the process.
///
/// The driver names ring, except where it checks a certificate but not its host name
/// (`sslmode=verify-ca`). There it takes the default of the process, and panics if nobody has set one
/// and two providers are compiled in. An application that sets its own default first keeps it.
#[cfg(feature = "tls-rustls")]
pub(crate) fn choose_provider(options: &PgConnectOptions) {
    use rustls::crypto::{CryptoProvider, ring};
    use sqlx::postgres::PgSslMode;

    if matches!(options.get_ssl_mode(), PgSslMode::VerifyCa)
        && CryptoProvider::get_default().is_none()
    {
        // Fails if another thread was faster, and then there is a default, too.
        let _ = ring::default_provider().install_default();
    }
}

#[cfg(not(feature = "tls-rustls"))]
pub(crate) const fn choose_provider(_: &PgConnectOptions) {}
