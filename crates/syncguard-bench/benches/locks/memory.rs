//! Memory: the cost of the lock manager itself, because this store costs almost nothing.

use syncguard_bench::Outcome;
use syncguard_memory::MemoryBackend;

use crate::contestant::{Contestant, LOCK_MANAGER};
use crate::options::Pace;
use crate::uncontended::compare;

pub(crate) const ON_THE_HOT_KEY: &[&str] = &[LOCK_MANAGER];

pub(crate) async fn uncontended(pace: Pace) -> Outcome {
    let backend = MemoryBackend::new();
    let contestants =
        [Contestant::backend_alone(backend.clone())?, Contestant::lock_manager(backend)];
    compare("Memory", &contestants, &[1, 4, 16, 64], pace).await
}

pub(crate) fn contestant() -> Contestant {
    Contestant::lock_manager(MemoryBackend::new())
}
