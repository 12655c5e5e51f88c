//! Compares CONTRACT.md with the sources of the workspace.
//!
//! The test reads the whole repository, so it is not part of the published package.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

const CONTRACT: &str = include_str!("../CONTRACT.md");

/// Where each clause is cited, as `path:line`.
type Citations = BTreeMap<String, Vec<String>>;

/// The clause numbers of CONTRACT.md, in lines such as `- **A1** At most ...`.
fn numbers() -> impl Iterator<Item = &'static str> {
    let lines = CONTRACT.lines().filter_map(|line| line.strip_prefix("- **"));
    lines.filter_map(|line| Some(line.split_once("**")?.0))
}

static CLAUSES: LazyLock<BTreeSet<String>> =
    LazyLock::new(|| numbers().map(str::to_owned).collect());

static SECTIONS: LazyLock<BTreeSet<char>> =
    LazyLock::new(|| numbers().filter_map(|number| number.chars().next()).collect());

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// Returns whether the word is one letter of a certain kind with one or two digits.
fn is_number(word: &str, letter: impl Fn(char) -> bool) -> bool {
    let mut chars = word.chars();
    chars.next().is_some_and(letter)
        && (1..=2).contains(&chars.as_str().len())
        && chars.all(|c| c.is_ascii_digit())
}

/// The clauses that a comment cites, such as `// (A1, G7)`.
fn cited_in_comment(line: &str) -> Vec<String> {
    let comment = line.split_once("//").map_or("", |(_, comment)| comment);
    let is_section = |letter| SECTIONS.contains(&letter);
    words(comment).filter(|word| is_number(word, is_section)).map(str::to_owned).collect()
}

/// The clauses at the start of a function's name, or of a name in quotes: `w6_w7_a_waiter_leaves`.
fn cited_in_name(line: &str) -> Vec<String> {
    let code = line.split("//").next().unwrap_or_default();
    let function = code.split_once("fn ").and_then(|(_, rest)| words(rest).next());
    // The path in front is that of a module: "faults::a1_a_lost_reply".
    let quoted = code.split('"').skip(1).step_by(2).filter_map(|text| text.rsplit("::").next());
    let names = function.into_iter().chain(quoted);
    let parts = |name: &str| {
        let numbers =
            name.split('_').take_while(|part| is_number(part, |c| c.is_ascii_lowercase()));
        numbers.map(str::to_uppercase).collect::<Vec<_>>()
    };
    names.filter(|name| name.contains('_')).flat_map(parts).collect()
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn citations(of: fn(&str) -> Vec<String>) -> Citations {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let mut files = Vec::new();
    for directory in ["contract-tests", "crates", "examples"] {
        sources(&root.join(directory), &mut files);
    }
    let mut citations = Citations::new();
    for file in files.iter().filter(|file| !file.ends_with(file!())) {
        let text = fs::read_to_string(file).unwrap();
        for (line, number) in text.lines().zip(1..) {
            for clause in of(line) {
                let location = format!("{}:{number}", file.strip_prefix(root).unwrap().display());
                citations.entry(clause).or_default().push(location);
            }
        }
    }
    citations
}

fn unknown(mut citations: Citations) -> Citations {
    citations.retain(|clause, _| !CLAUSES.contains(clause));
    citations
}

#[test]
fn every_clause_cited_in_a_comment_exists() {
    let cited = citations(cited_in_comment);
    assert!(cited.contains_key("A1"), "the test finds no comments");
    assert_eq!(unknown(cited), Citations::new(), "CONTRACT.md has no such clauses");
}

#[test]
fn every_clause_cited_in_a_name_exists() {
    let cited = citations(cited_in_name);
    assert_eq!(unknown(cited), Citations::new(), "CONTRACT.md has no such clauses");
}

#[test]
fn every_clause_has_a_case() {
    let cases = citations(cited_in_name);
    let missing: Vec<_> = CLAUSES.iter().filter(|clause| !cases.contains_key(*clause)).collect();
    assert_eq!(missing, [""; 0], "no test has a name that starts with these clauses");
}

#[test]
fn clauses_are_numbered_in_order() {
    let mut last = BTreeMap::new();
    for (letter, number) in numbers().map(|number| number.split_at(1)) {
        let last = last.entry(letter).or_insert(0);
        assert_eq!(number.parse(), Ok(*last + 1), "in section {letter}");
        *last += 1;
    }
    assert!(!last.is_empty(), "the test finds no clauses");
}

#[test]
fn citations_are_read_from_comments_and_names() {
    assert_eq!(cited_in_comment("T1; // G5 (and A3 to A6), not B1 or A100"), ["G5", "A3", "A6"]);
    assert_eq!(cited_in_name("    async fn w6_w7_h8x_a_waiter_leaves() {"), ["W6", "W7"]);
    assert_eq!(cited_in_name(r#"cases.trial("faults::a1_a_lost_reply", lost),"#), ["A1"]);
    assert_eq!(cited_in_name(r#"let h1_ = fn_a1_("e1", b1_); // fn r1_a"#), [""; 0]);
}
