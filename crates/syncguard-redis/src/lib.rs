//! SyncGuard locks on Redis.
pub use backend::RedisBackend;
pub use config::{Connection, RedisBackendBuilder};
pub use fred;
pub use syncguard_core::Acquired;
mod backend;
mod config;
mod error;
mod names;
mod record;
mod scripts;
