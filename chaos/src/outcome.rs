//! The result of what only `main` reports.

use std::error::Error;

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;
