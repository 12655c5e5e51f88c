//! Each case that RELIABILITY.md names exists.

use std::path::Path;
use std::{fs, io};

#[test]
fn each_case_that_the_page_names_exists() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("RELIABILITY.md"))?;
    let mut sources = String::new();
    read(&root.join("crates/syncguard-contract/src/cases"), &mut sources)?;
    read(&root.join("contract-tests/tests/contract"), &mut sources)?;
    // Between backticks is every second part.
    let names: Vec<_> = page.split('`').skip(1).step_by(2).filter(|name| is_case(name)).collect();
    assert!(names.len() > 20, "{names:?}");
    let missing: Vec<_> = names.iter().filter(|name| !sources.contains(**name)).collect();
    assert!(missing.is_empty(), "there is no {missing:?}");
    Ok(())
}

/// Whether a text looks like `a1_never_two_holders`.
fn is_case(name: &str) -> bool {
    let (clause, words) = name.split_once('_').unwrap_or_default();
    let number = clause.strip_prefix(|letter: char| letter.is_ascii_lowercase());
    let numbered = number.is_some_and(|number| number.parse::<u8>().is_ok());
    numbered && words.contains('_')
}

fn read(folder: &Path, sources: &mut String) -> io::Result<()> {
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        if path.is_dir() {
            read(&path, sources)?;
        } else {
            sources.push_str(&fs::read_to_string(&path)?);
        }
    }
    Ok(())
}
