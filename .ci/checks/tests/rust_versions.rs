//! A package promises no older Rust than its dependencies support.

use workspace_checks::Workspace;

#[test]
fn every_package_promises_a_rust_version() {
    let workspace = Workspace::read().unwrap();
    let without = workspace.members().filter(|package| package.rust_version().is_none());
    let names: Vec<_> = without.map(|package| &package.name).collect();
    assert!(names.is_empty(), "no rust-version in the Cargo.toml of {names:?}");
}

#[test]
fn dependencies_support_the_rust_version_of_their_dependents() {
    let workspace = Workspace::read().unwrap();
    let mut too_new = Vec::new();
    for package in workspace.members() {
        for dependency in workspace.dependencies(package) {
            if dependency.rust_version() > package.rust_version() {
                too_new.push(format!(
                    "{} promises Rust {}, but depends on {} {}, which needs {}",
                    package.name,
                    package.rust_version.as_deref().unwrap_or_default(),
                    dependency.name,
                    dependency.version,
                    dependency.rust_version.as_deref().unwrap_or_default(),
                ));
            }
        }
    }
    assert!(
        too_new.is_empty(),
        "{}\nraise rust-version in Cargo.toml, or choose an older version of the dependency",
        too_new.join("\n")
    );
}
