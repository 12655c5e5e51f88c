//! The result type of the program: `main` reports every error.

use std::error::Error;

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;
