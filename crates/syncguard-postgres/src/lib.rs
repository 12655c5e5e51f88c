//! SyncGuard distributed locks on PostgreSQL.
#![allow(missing_docs)]

mod backend;
mod config;
mod connections;
mod error;
mod row;
mod schema;
mod statement;
mod transaction;

pub use backend::PostgresBackend;
pub use config::PostgresBackendBuilder;
pub use sqlx;
pub use syncguard_core::*;
