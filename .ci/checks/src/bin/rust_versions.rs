//! Compiles each package with the Rust version that it promises, if rustup has it installed.

use std::error::Error;
use std::process::{Command, ExitCode};

use workspace_checks::{Package, RustVersion, Workspace};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let installed = toolchains();
    let workspace = Workspace::read()?;
    let mut failed = Vec::new();
    for package in workspace.members() {
        let promised = package.rust_version();
        let toolchain = installed.iter().find(|toolchain| version(toolchain) == promised);
        let Some(toolchain) = toolchain else {
            let version = package.rust_version.as_deref().unwrap_or("a version");
            eprintln!("{}: not compiled with Rust {version}: it is not installed", package.name);
            continue;
        };
        if !compiles(package, toolchain)? {
            failed.push(format!("{} with {toolchain}", package.name));
        }
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("does not compile: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}

/// The names of the installed toolchains: none if rustup is not.
fn toolchains() -> Vec<String> {
    let Ok(output) = Command::new("rustup").args(["toolchain", "list", "--quiet"]).output() else {
        return Vec::new();
    };
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// The version in `1.88.0-x86_64-unknown-linux-gnu`.
fn version(toolchain: &str) -> Option<RustVersion> {
    RustVersion::parse(toolchain.split('-').next()?)
}

fn compiles(package: &Package, toolchain: &str) -> Result<bool, Box<dyn Error>> {
    eprintln!("{} with {toolchain}", package.name);
    // The environment of this process names the cargo that runs it. Rustup chooses another one.
    let mut command = Command::new("rustup");
    let features: Vec<_> = package.features_with_promised_rust().collect();
    command.args([
        "run",
        toolchain,
        "cargo",
        "check",
        "--quiet",
        "--features",
        &features.join(","),
    ]);
    command.arg("--manifest-path").arg(&package.manifest_path);
    command.env_remove("CARGO").env_remove("RUSTC").env_remove("RUSTUP_TOOLCHAIN");
    Ok(command.status()?.success())
}
