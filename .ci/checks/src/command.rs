//! Runs cargo, and asks the compiler for the host.

use std::env;
use std::error::Error;
use std::process::Command;

/// Returns a command for the cargo that runs this program.
#[must_use]
pub fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Returns the name of the platform that the compiler runs on.
///
/// # Errors
///
/// If `rustc` cannot be run, or does not say.
pub fn host() -> Result<String, Box<dyn Error>> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output()?;
    let text = String::from_utf8(output.stdout)?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.ok_or("`rustc -vV` names no host")?.to_owned())
}
