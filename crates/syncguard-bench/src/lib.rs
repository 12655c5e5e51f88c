//! What a lock costs: the part of the benchmark that needs no server, and so can be tested.
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
pub use table::{Table, median, short, whole};
pub use tally::Tally;

/// What the benchmark does may fail for any reason, and then ends with it.
pub type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
