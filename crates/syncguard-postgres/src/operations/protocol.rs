//! How statements are sent, which the options of the connections decide.

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgPool};

/// How a statement is sent: one round trip either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Prepared once per connection.
    Prepared,
    /// As text, with the values in it: for a pooler that may hand each message to another server
    /// connection, where nothing was prepared, or something else under the same name.
    Simple,
}

impl Protocol {
    /// A statement cache of size zero says that statements must not be kept.
    ///
    /// The driver's other ways are no better behind such a pooler: without a cache it still prepares
    /// under a name, and an unnamed statement takes two messages as well.
    pub(crate) fn of(pool: &PgPool) -> Self {
        Self::of_options(&pool.connect_options())
    }

    fn of_options(options: &PgConnectOptions) -> Self {
        // The driver tells the size of its cache in a URL only, and panics if host and user make no
        // valid one: no host, an IPv6 host, `user@tenant`. Nothing else can make the URL invalid.
        let url = options.clone().socket("/").username("any").to_url_lossy();
        let mut settings = url.query_pairs();
        if settings.any(|(name, value)| name == "statement-cache-capacity" && value == "0") {
            Self::Simple
        } else {
            Self::Prepared
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_cache_of_zero_means_the_simple_protocol() {
        let of = |url: &str| Protocol::of_options(&url.parse().unwrap());
        assert_eq!(of("postgres://u:p@h/d"), Protocol::Prepared);
        assert_eq!(of("postgres://u@h/d?statement-cache-capacity=10"), Protocol::Prepared);
        assert_eq!(of("postgres://u@h/d?statement-cache-capacity=0"), Protocol::Simple);
        let options = PgConnectOptions::new().statement_cache_capacity(0);
        assert_eq!(Protocol::of_options(&options), Protocol::Simple);
    }

    #[test]
    fn f3_the_protocol_of_any_options_is_known_without_a_panic() {
        let hostile =
            ["", "::1", "[::1]", "a b", "u@tenant", "a:b", "/", "a/b?c#d", "\u{e9}", "\0", "%"];
        for text in hostile {
            let options = PgConnectOptions::new_without_pgpass().statement_cache_capacity(0);
            for options in [
                options.clone().host(text),
                options.clone().socket(text),
                options.clone().username(text),
                options.clone().password(text),
                options.clone().database(text),
                options.clone().application_name(text),
                options.clone().options([("search_path", text)]),
                options.clone().ssl_root_cert(text),
            ] {
                assert_eq!(Protocol::of_options(&options), Protocol::Simple, "{text:?}");
            }
        }
        for url in
            ["postgres:///app", "postgres://[::1]/app", "postgres://%2Ftmp/app", "postgres:app"]
        {
            let options: PgConnectOptions = url.parse().unwrap();
            assert_eq!(Protocol::of_options(&options), Protocol::Prepared, "{url}");
        }
    }
}
