//! Runtimes that a test makes and drops.

use tokio::runtime::{Builder, Runtime};

pub fn one_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

pub fn two_threads() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}
