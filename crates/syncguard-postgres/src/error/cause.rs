//! The source of our errors: the driver's error without what it may quote.

use std::error::Error as StdError;
use std::fmt;

use sqlx::postgres::PgDatabaseError;

/// An error of the driver or of the server.
///
/// The server quotes values in some messages and in all details (`Key (key)=(..) already exists`), and
/// statements in contexts. Whoever knows a lock id can end its lease, so they are left out.
pub(crate) enum Cause {
    Server { sqlstate: String, message: String, about: String },
    Driver(sqlx::Error),
}

/// The classes of SQLSTATE whose message names objects, users and settings, but quotes no value.
const WITHOUT_VALUES: &[&str] =
    &["08", "0A", "25", "26", "28", "3D", "3F", "40", "53", "54", "55", "57", "58"];

/// The codes of other classes of which the same holds.
const WITHOUT_VALUES_TOO: &[&str] =
    &["22023", "23502", "23505", "23514", "42501", "42703", "42704", "42P01", "42P05", "42P10"];

impl Cause {
    pub(crate) fn new(error: sqlx::Error) -> Self {
        let sqlx::Error::Database(error) = error else { return Self::Driver(error) };
        let sqlstate = error.code().unwrap_or_default().into_owned();
        let class = sqlstate.get(..2).unwrap_or_default();
        let quotes_nothing =
            WITHOUT_VALUES.contains(&class) || WITHOUT_VALUES_TOO.contains(&sqlstate.as_str());
        let message =
            if quotes_nothing { error.message() } else { "(the message may quote a key)" };
        let names = error.try_downcast_ref::<PgDatabaseError>().map(|error| {
            let names = [
                ("table", error.table()),
                ("column", error.column()),
                ("constraint", error.constraint()),
                ("routine", error.routine()),
            ];
            let known =
                names.iter().filter_map(|(what, name)| Some(format!("{what} {}", (*name)?)));
            known.collect::<Vec<_>>().join(", ")
        });
        Self::Server {
            message: message.to_owned(),
            about: names
                .filter(|names| !names.is_empty())
                .map_or_else(String::new, |names| format!(" ({names})")),
            sqlstate,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server { sqlstate, message, about } => {
                write!(f, "SQLSTATE {sqlstate}: {message}{about}")
            }
            Self::Driver(error) => error.fmt(f),
        }
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server { .. } => write!(f, "Cause({self})"),
            Self::Driver(error) => error.fmt(f),
        }
    }
}

impl StdError for Cause {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Server { .. } => None,
            Self::Driver(error) => error.source(),
        }
    }
}
