//! What the examples share: a backend of one's own, and the README, whose snippets are compiled.

pub mod file_backend;

#[cfg(all(doctest, feature = "firestore", feature = "postgres", feature = "redis"))]
#[doc = include_str!("../../README.md")]
struct Readme;
