//! The part of the benchmark that needs no server, so that it can be tested.
//!
//! The benchmark itself is `benches/locks`:
//!
//! ```sh
//! cargo bench -p syncguard-bench -- redis://127.0.0.1:6379
//! ```

mod request_count;
mod table;
mod tally;

pub use request_count::RequestCount;
pub use table::{Table, median, quantile, short, whole};
pub use tally::Tally;

/// The result of a step of the benchmark. An error of any kind ends it.
pub type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
