//! Checks on a URL that the driver leaves out.

use sqlx::postgres::PgConnectOptions;
use syncguard_core::{Error, ErrorCode, Operation, Result};

/// The parameters that the driver knows. It ignores all others, with a log entry that shows their
/// values.
const PARAMETERS: &[&str] = &[
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

/// Reads a URL, and refuses what the driver would misread or ignore.
pub(crate) fn parse(url: &str) -> Result<PgConnectOptions> {
    let url = url.trim();
    let (scheme, rest) = url.split_once(':').unwrap_or(("", url));
    if !["postgres", "postgresql"].iter().any(|name| scheme.eq_ignore_ascii_case(name)) {
        return Err(invalid("the URL does not begin with postgres:// or postgresql://".to_owned()));
    }
    let authority = rest.trim_start_matches('/').split(['/', '?', '#']).next().unwrap_or_default();
    let hosts = authority.rsplit('@').next().unwrap_or_default();
    if hosts.contains(',') {
        return Err(invalid(
            "the URL names more than one host, and the driver takes one: give it a name or address \
             that follows the primary server"
                .to_owned(),
        ));
    }
    let query = rest.split('#').next().and_then(|rest| rest.split_once('?'));
    for parameter in query.map_or("", |(_, query)| query).split('&').filter(|text| !text.is_empty())
    {
        let name = parameter.split('=').next().unwrap_or_default();
        let name = name.replace("%5B", "[").replace("%5b", "[").replace("%5D", "]");
        let name = name.replace("%5d", "]");
        let is_option = name.starts_with("options[") && name.ends_with(']');
        if !is_option && !PARAMETERS.contains(&name.as_str()) {
            return Err(invalid(format!(
                "the driver does not know the URL's parameter {name:?}, and would ignore it: remove \
                 it (server settings go into options[NAME]=VALUE)"
            )));
        }
    }
    let options = url.parse().map_err(|error: sqlx::Error| {
        invalid("the URL cannot be read".to_owned()).with_source(error)
    })?;
    Ok(options)
}

fn invalid(message: String) -> Error {
    Error::new(ErrorCode::InvalidArgument, Operation::Connect).with_message(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e1_a_url_that_the_driver_would_misread_is_refused() {
        for (url, reason) in [
            ("", "postgres://"),
            ("not a url", "postgres://"),
            ("mysql://app:secret@db/app", "postgres://"),
            ("postgres://db:port/app", "cannot be read"),
            ("postgres://app:secret@a,b:5433/app", "more than one host"),
            ("postgres://db/app?sslmode=maybe", "cannot be read"),
            ("postgres://db/app?passwrod=secret", "\"passwrod\""),
            ("postgres://db/app?sslmode=require&channel_binding=require", "\"channel_binding\""),
            ("postgres://db/app?target_session_attrs=read-write", "\"target_session_attrs\""),
        ] {
            let error = parse(url).unwrap_err();
            let text = format!("{error} {error:?}");
            assert_eq!(
                (error.code(), error.operation()),
                (ErrorCode::InvalidArgument, Operation::Connect)
            );
            assert!(error.to_string().contains(reason), "{url}: {error}");
            assert!(!text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn every_url_of_the_driver_is_read() {
        for url in [
            "postgres:///app",
            "POSTGRES://db",
            "postgresql://app@db:5433/app?sslmode=require&application_name=a",
            "postgres://[::1]:5433/app",
            "postgres://u@%2Fvar%2Frun%2Fpostgresql/app",
            "postgres:///app?host=/tmp&user=app&password=a,b@c&port=5433&dbname=app",
            "postgres://db/app?options[search_path]=a&options%5Brole%5D=b&options=-c%20work_mem%3D1MB",
            "postgres://a,b:c,d@db/app?statement-cache-capacity=0",
        ] {
            assert!(parse(url).is_ok(), "{url}: {:?}", parse(url));
        }
    }

    proptest::proptest! {
        /// A URL is used or refused, whatever is in it.
        #[test]
        fn f3_no_text_makes_the_driver_panic(
            scheme in "(|postgres|postgresql|POSTGRES|mysql)",
            rest in "(://|:|)([a-z%:@\\[\\]/?#&=.,0-9 ]|\\PC){0,40}",
            options in "(\\?(host|port|sslmode|options|[a-z-]{1,9})=[^#]{0,9}(&[a-zA-Z_-]{1,16}=\\PC{0,9}){0,3})?",
        ) {
            let url = format!("{scheme}{rest}{options}");
            if let Err(error) = parse(&url) {
                proptest::prop_assert_eq!(error.code(), ErrorCode::InvalidArgument);
            }
        }
    }
}
