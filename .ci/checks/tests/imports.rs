//! Files of a crate do not import each other in a cycle, except in `tests` folders.

use std::error::Error;
use std::path::Path;

use workspace_checks::{Imports, Package, Workspace};

/// How the cycles begin that are still there. Take an entry off this list with its last cycle.
const KNOWN: &[&str] = &[
    "syncguard-contract: src/model.rs -> src/trials.rs -> src/model.rs",
    "syncguard-core: src/error.rs -> src/key.rs -> src/error.rs",
    "syncguard-core: src/lock_id.rs -> src/error.rs -> src/lock_id.rs",
    "syncguard-firestore: src/backend.rs -> src/config.rs -> src/backend.rs",
    "syncguard: src/builder.rs -> src/manager.rs -> src/builder.rs",
    "syncguard-redis: src/backend.rs -> src/config.rs -> src/backend.rs",
];

#[test]
fn no_file_imports_itself_through_others() {
    let cycles = cycles().unwrap();
    let (known, new): (Vec<_>, Vec<_>) = cycles
        .iter()
        .map(String::as_str)
        .partition(|cycle| KNOWN.iter().any(|known| cycle.starts_with(known)));
    assert!(new.is_empty(), "files import each other in a cycle:\n{}", new.join("\n"));

    let gone = KNOWN.iter().filter(|entry| !known.iter().any(|cycle| cycle.starts_with(**entry)));
    let gone: Vec<_> = gone.collect();
    assert!(gone.is_empty(), "these cycles are gone, so take them off the list: {gone:?}");
}

/// The cycles in all crates of the workspace, as `package: a.rs -> b.rs -> a.rs`.
fn cycles() -> Result<Vec<String>, Box<dyn Error>> {
    let mut texts = Vec::new();
    for package in Workspace::read()?.members() {
        for root in package.crate_roots() {
            let imports = Imports::read(root)?;
            texts.extend(imports.cycles().iter().map(|cycle| describe(package, cycle)));
        }
    }
    Ok(texts)
}

fn describe(package: &Package, cycle: &[&Path]) -> String {
    let folder = package.manifest_path.parent().unwrap_or(Path::new(""));
    let files =
        cycle.iter().map(|file| file.strip_prefix(folder).unwrap_or(file).display().to_string());
    format!("{}: {}", package.name, files.collect::<Vec<_>>().join(" -> "))
}
