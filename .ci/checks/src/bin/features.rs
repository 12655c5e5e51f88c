//! Compiles each package with no feature, and with each of its features alone.
//!
//! `cargo test --workspace` turns on the features of all packages at once. A package that forgot a
//! feature of a dependency compiles there, because another package turns it on, but not for users.
//! Packages that are not published are left out, because nobody depends on them.

use std::error::Error;
use std::process::ExitCode;

use workspace_checks::{Package, Workspace, cargo};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let workspace = Workspace::read()?;
    let mut failed = Vec::new();
    for package in workspace.members().filter(|package| package.is_published()) {
        let features = package.features.keys().map(String::as_str);
        for feature in [None].into_iter().chain(features.map(Some)) {
            if !compiles(package, feature)? {
                failed.push(format!("{} with {}", package.name, feature.unwrap_or("no feature")));
            }
        }
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("does not compile: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}

fn compiles(package: &Package, feature: Option<&str>) -> Result<bool, Box<dyn Error>> {
    let mut features = package.features_needed();
    features.extend(feature);
    let features = features.join(",");
    eprintln!(
        "{} with {}",
        package.name,
        if features.is_empty() { "no feature" } else { &features }
    );
    let mut command = cargo();
    command.args(["check", "--quiet", "--no-default-features", "--manifest-path"]);
    command.arg(&package.manifest_path).args(["--features", &features]);
    Ok(command.status()?.success())
}
