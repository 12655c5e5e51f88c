//! Runs the contract suite on the servers of this workspace.

pub mod forwarder;
pub mod servers;

pub use syncguard_contract::{controls, describe, trials};
