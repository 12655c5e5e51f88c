//! Licenses and sources of dependencies, by the rules of `deny.toml`.
//!
//! `cargo deny` checks the same and more, but takes minutes to install. These tests look only at what
//! this platform builds.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use spdx::{Expression, ParseMode};
use workspace_checks::{Package, Workspace};

#[derive(Deserialize)]
struct Rules {
    licenses: Licenses,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    /// None for the packages of this workspace.
    source: Option<String>,
}

fn read<T: for<'de> Deserialize<'de>>(file: &str) -> Result<T, Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    Ok(toml::from_str(&fs::read_to_string(root.join(file))?)?)
}

#[test]
fn every_license_is_allowed() {
    let rules: Rules = read("deny.toml").unwrap();
    let workspace = Workspace::read().unwrap();
    // Not those of tests: nobody who uses a crate gets them.
    let refused: BTreeSet<_> = workspace
        .members()
        .flat_map(|member| workspace.dependencies(member))
        .filter(|package| !allowed(package.license.as_deref(), &rules.licenses.allow))
        .map(|package| (&package.name, &package.license))
        .collect();
    assert!(refused.is_empty(), "not allowed by deny.toml: {refused:?}");
}

fn allowed(license: Option<&str>, allowed: &[String]) -> bool {
    // Cargo still admits `MIT/Apache-2.0`, which is no SPDX expression.
    let license = license.and_then(|text| Expression::parse_mode(text, ParseMode::LAX).ok());
    license.is_some_and(|license| {
        license.evaluate(|part| {
            part.license.id().is_some_and(|id| allowed.iter().any(|a| a == id.name))
        })
    })
}

#[test]
fn a_license_is_allowed_if_one_choice_is() {
    let mit = ["MIT".to_owned(), "ISC".to_owned()];
    for good in ["MIT", "MIT/GPL-3.0", "GPL-3.0-only OR MIT", "MIT AND (ISC OR GPL-3.0-only)"] {
        assert!(allowed(Some(good), &mit), "{good}");
    }
    for bad in ["GPL-3.0-only", "MIT AND GPL-3.0-only", "something", ""] {
        assert!(!allowed(Some(bad), &mit), "{bad}");
    }
    assert!(!allowed(None, &mit));
}

#[test]
fn every_dependency_comes_from_crates_io() {
    let lock: Lock = read("Cargo.lock").unwrap();
    let crates_io = "registry+https://github.com/rust-lang/crates.io-index";
    let foreign: Vec<_> = lock
        .package
        .iter()
        .filter(|package| package.source.as_deref().is_some_and(|source| source != crates_io))
        .map(|package| &package.name)
        .collect();
    assert!(lock.package.len() > 100, "Cargo.lock was not read");
    assert!(foreign.is_empty(), "not from crates.io: {foreign:?}");
}

#[test]
fn no_dependency_admits_every_version() {
    let workspace = Workspace::read().unwrap();
    let wild: Vec<_> = workspace.members().flat_map(wildcards).collect();
    assert!(wild.is_empty(), "dependencies without a version: {wild:?}");
}

fn wildcards(package: &Package) -> impl Iterator<Item = (&str, &str)> {
    let wild =
        package.requirements.iter().filter(|wanted| wanted.req == "*" && wanted.path.is_none());
    wild.map(|wanted| (package.name.as_str(), wanted.name.as_str()))
}
