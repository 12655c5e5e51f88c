//! Reads the packages of this workspace, and the imports between their files.
//!
//! The tests of this crate fail if a package promises a Rust version that its dependencies do not
//! support, if a dependency breaks the rules of `deny.toml`, or if files import each other in a cycle. Its
//! programs compile the packages in ways in
//! which `cargo test --workspace` does not: `features` and `rust_versions`.

mod command;
mod imports;
mod modules;
mod workspace;

pub use command::{cargo, host};
pub use imports::Imports;
pub use workspace::{Package, Requirement, RustVersion, Workspace};
