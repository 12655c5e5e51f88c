//! Files of a crate do not import each other in a cycle, except in `tests` folders.

use std::error::Error;
use std::path::Path;

use workspace_checks::{Imports, Package, Workspace};

#[test]
fn no_file_imports_itself_through_others() {
    let cycles = cycles().unwrap();
    assert!(cycles.is_empty(), "files import each other in a cycle:\n{}", cycles.join("\n"));
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
