//! What a URL says: every option works, or is refused with the reason.

use fred::types::config::Config;
use syncguard_core::{Error, ErrorCode, Operation, Result};

use crate::{error, tls};

/// The parts of a URL that decide how the rest is read.
struct Parts<'a> {
    scheme: String,
    /// All after `://`.
    rest: &'a str,
    user: Option<&'a str>,
    path: &'a str,
    query: &'a str,
}

/// Reads a URL into the configuration of a client.
pub(crate) fn parse(url: &str) -> Result<Config> {
    let parts = split(url)?;
    // fred compares schemes by case, and would look for a provider of cryptography by itself.
    let (base, kind) = match parts.scheme.split_once(['-', '+']) {
        Some((base, kind)) => (base, kind),
        None if parts.scheme == "unix" => ("redis", "unix"),
        None => (parts.scheme.as_str(), ""),
    };
    let uses_tls = matches!(base, "rediss" | "valkeys");
    if !(uses_tls || matches!(base, "redis" | "valkey")) {
        return Err(invalid("the URL must begin with redis:// or one of its variants"));
    }
    let scheme = match kind {
        "" => "redis",
        "cluster" => "redis-cluster",
        "sentinel" => "redis-sentinel",
        "unix" if !uses_tls => "redis+unix",
        _ => return Err(invalid("the URL must begin with redis:// or one of its variants")),
    };
    check_options(&parts, kind)?;
    let parsed = Config::from_url(&format!("{scheme}://{}", parts.rest));
    let mut config = parsed.map_err(|cause| {
        let detail = match error::detail(&cause).unwrap_or("it cannot be read") {
            "InvalidPort" => "the port must be a number up to 65535".to_owned(),
            detail => detail.to_owned(),
        };
        invalid(format!("the URL is not valid: {detail}")).with_source(cause)
    })?;
    if uses_tls {
        tls::enable(&mut config)?;
    }
    Ok(config)
}

fn split(url: &str) -> Result<Parts<'_>> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(invalid("the URL must begin with redis:// or one of its variants"));
    };
    if rest.contains('#') {
        return Err(invalid("the URL has a part after #: write # as %23 in a password"));
    }
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = before.split_once('/').unwrap_or((before, ""));
    let user = authority.rsplit_once('@').map(|(user, _)| user);
    Ok(Parts { scheme: scheme.to_ascii_lowercase(), rest, user, path, query })
}

/// Refuses what fred would ignore.
fn check_options(parts: &Parts<'_>, kind: &str) -> Result<()> {
    if parts.user.is_some_and(|user| !user.is_empty() && !user.contains(':')) {
        return Err(invalid("the URL has a user name but no password"));
    }
    match kind {
        "unix" if !cfg!(feature = "unix-sockets") => {
            return Err(invalid("the URL names a Unix socket: turn on the feature `unix-sockets`"));
        }
        "unix" => {}
        "cluster" if !matches!(parts.path, "" | "0") => {
            return Err(invalid("a cluster has database 0 only: remove the database from the URL"));
        }
        _ if parts.path.is_empty() || parts.path.parse::<u8>().is_ok() => {}
        _ => {
            return Err(invalid("the database in the URL must be a number from 0 to 255"));
        }
    }
    for option in parts.query.split('&').filter(|option| !option.is_empty()) {
        let name = option.split('=').next().unwrap_or_default();
        match (name, kind) {
            ("node", "cluster" | "sentinel") | ("sentinelServiceName", "sentinel") => {}
            ("sentinelUsername" | "sentinelPassword", "sentinel") => {
                if !cfg!(feature = "sentinel-auth") {
                    return Err(invalid(format!(
                        "the URL option {name} needs the feature `sentinel-auth`: turn it on"
                    )));
                }
            }
            ("node" | "sentinelServiceName" | "sentinelUsername" | "sentinelPassword", _) => {
                return Err(invalid(format!(
                    "the URL option {name} does not fit a URL of this kind: check whether it must \
                     begin with redis-sentinel:// or redis-cluster://"
                )));
            }
            _ => {
                return Err(invalid(
                    "the URL has an unknown option: only node, sentinelServiceName, \
                     sentinelUsername and sentinelPassword are known",
                ));
            }
        }
    }
    Ok(())
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorCode::InvalidArgument, Operation::Connect).with_message(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        let error = parse(url).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArgument, "{url}");
        assert_eq!(error.operation(), Operation::Connect);
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        error.to_string()
    }

    #[test]
    fn schemes_ignore_case() {
        for url in ["REDIS://h", "Redis-Cluster://h:7000", "VALKEY://h/1"] {
            assert!(parse(url).is_ok(), "{url}");
        }
        assert!(
            parse("REDIS-SENTINEL://h:1?sentinelServiceName=main").unwrap().server.is_sentinel()
        );
    }

    #[test]
    fn e3_a_url_that_cannot_be_used_is_refused_with_the_reason() {
        for (url, reason) in [
            ("", "redis://"),
            ("localhost", "redis://"),
            ("http://localhost", "redis://"),
            ("redis-ring://h", "redis://"),
            ("redis://", "not valid"),
            ("redis://:hunter2@h:99999", "port"),
            ("redis://h:x", "port"),
            ("redis://h/x", "database"),
            ("redis://h/999", "database"),
            ("redis://h/1/2", "database"),
            ("redis-cluster://h:7000/3", "database"),
            ("redis://h?timeout=3", "unknown option"),
            ("redis://h?node=x:1", "node"),
            ("redis-cluster://h?node=x", "not valid"),
            ("redis-cluster://h?sentinelServiceName=main", "sentinelServiceName"),
            ("redis-sentinel://h:1", "not valid"),
            ("redis://hunter2@h", "no password"),
            ("redis://:hunter2@h#x", "%23"),
        ] {
            let text = refused(url);
            assert!(text.contains(reason), "{url}: {text}");
        }
    }

    #[cfg(not(feature = "sentinel-auth"))]
    #[test]
    fn e3_credentials_of_sentinels_need_a_feature() {
        let text =
            refused("redis-sentinel://h:1?sentinelServiceName=main&sentinelPassword=hunter2");
        assert!(text.contains("`sentinel-auth`"), "{text}");
    }

    #[cfg(feature = "sentinel-auth")]
    #[test]
    fn credentials_of_sentinels_are_read() {
        use fred::types::config::ServerConfig;

        let url =
            "redis-sentinel://h:1?sentinelServiceName=main&sentinelUsername=u&sentinelPassword=p";
        let ServerConfig::Sentinel { username, password, .. } = parse(url).unwrap().server else {
            panic!("no sentinels");
        };
        assert_eq!((username.as_deref(), password.as_deref()), (Some("u"), Some("p")));
    }

    #[cfg(not(feature = "unix-sockets"))]
    #[test]
    fn e3_a_unix_socket_needs_a_feature() {
        for url in ["unix:///run/redis.sock", "redis+unix:///run/redis.sock"] {
            let text = refused(url);
            assert!(text.contains("`unix-sockets`"), "{text}");
        }
    }

    #[cfg(feature = "unix-sockets")]
    #[test]
    fn a_unix_socket_is_read() {
        for url in ["unix:///run/redis.sock", "redis+unix:///run/redis.sock"] {
            assert!(parse(url).unwrap().server.is_unix_socket(), "{url}");
        }
    }

    #[cfg(any(feature = "tls-rustls", feature = "tls-rustls-ring"))]
    #[test]
    fn tls_needs_no_choice_of_cryptography() {
        // With all features there are two providers, and the process has chosen none.
        for url in ["rediss://localhost", "REDISS-CLUSTER://localhost", "valkeys://localhost"] {
            assert!(parse(url).unwrap().tls.is_some(), "{url}");
        }
        assert!(fred::rustls::crypto::CryptoProvider::get_default().is_none());
    }

    #[cfg(not(any(feature = "tls-rustls", feature = "tls-rustls-ring")))]
    #[test]
    fn e3_tls_needs_a_feature() {
        for url in ["rediss://h", "rediss-cluster://h", "VALKEYS://h"] {
            let text = refused(url);
            assert!(text.contains("tls-rustls"), "{text}");
        }
    }

    proptest::proptest! {
        /// A URL is used or refused, whatever is in it.
        #[test]
        fn f3_no_text_makes_the_driver_panic(
            scheme in "(|redis|rediss|valkey|redis-cluster|redis-sentinel|REDIS|redis\\+unix|unix|http)",
            rest in "(://|:|)([a-z%:@\\[\\]/?#&=.,0-9 ]|\\PC){0,40}",
            options in "(\\?(node|sentinelServiceName|db|[a-z]{1,9})=[^#]{0,9}(&[a-zA-Z]{1,16}=\\PC{0,9}){0,3})?",
        ) {
            let url = format!("{scheme}{rest}{options}");
            if let Err(error) = parse(&url) {
                proptest::prop_assert_eq!(error.code(), ErrorCode::InvalidArgument);
            }
        }
    }
}
