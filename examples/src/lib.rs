//! What the examples share: a backend of your own. The tests also compile the code in the README and
//! in the pages under `docs`.

pub mod file_backend;

/// Pages whose code needs no server.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../docs/compile-errors.md")]
    struct CompileErrors;

    #[doc = include_str!("../../docs/leader-election.md")]
    struct LeaderElection;

    #[doc = include_str!("../../docs/testing.md")]
    struct Testing;

    #[doc = include_str!("../../docs/troubleshooting.md")]
    struct Troubleshooting;

    #[doc = include_str!("../../docs/waiting.md")]
    struct Waiting;
}

#[cfg(all(doctest, feature = "firestore", feature = "postgres", feature = "redis"))]
#[doc = include_str!("../../README.md")]
struct Readme;
