//! The options on the command line.

use std::time::Duration;

use syncguard_bench::Outcome;

pub(crate) struct Options {
    pub(crate) urls: Vec<String>,
    pub(crate) pace: Pace,
    only: Vec<Section>,
}

/// A part of the benchmark.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    /// Each task has a key of its own.
    Uncontended,
    /// All tasks have the same key.
    HotKey,
    /// Ten thousand tasks wait for one key at once.
    Crowd,
    /// Leaders follow each other.
    Election,
    /// Ten thousand leases are kept alive.
    Kept,
    /// Lanes and caps of group commit, with a network that delays. Only if it is asked for.
    GroupCommit,
}

/// How long the benchmark runs.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    /// The number of runs of each contestant in each setting.
    pub(crate) rounds: usize,
    /// The time of one run.
    pub(crate) run: Duration,
    /// The time limit of the crowd.
    pub(crate) crowd: Duration,
}

const FULL: Pace = Pace { rounds: 5, run: Duration::from_secs(1), crowd: Duration::from_secs(180) };

const QUICK: Pace = Pace { rounds: 1, ..FULL };

impl Options {
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Outcome<Self> {
        let mut options = Self { urls: Vec::new(), pace: FULL, only: Vec::new() };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                // `cargo bench` passes this to every benchmark.
                "--bench" => {}
                "--quick" => options.pace = QUICK,
                "--only" => options.only.push(Section::parse(arguments.next().as_deref())?),
                _ if argument.starts_with('-') => {
                    return Err(format!("unknown option {argument}").into());
                }
                _ => options.urls.push(argument),
            }
        }
        if options.urls.is_empty() {
            return Err("no server given: pass a URL, for example redis://127.0.0.1:6379".into());
        }
        Ok(options)
    }

    pub(crate) fn has(&self, section: Section) -> bool {
        let all = self.only.is_empty() && section != Section::GroupCommit;
        all || self.only.contains(&section)
    }
}

impl Section {
    fn parse(name: Option<&str>) -> Outcome<Self> {
        match name {
            Some("uncontended") => Ok(Self::Uncontended),
            Some("hot-key") => Ok(Self::HotKey),
            Some("crowd") => Ok(Self::Crowd),
            Some("election") => Ok(Self::Election),
            Some("kept") => Ok(Self::Kept),
            Some("group-commit") => Ok(Self::GroupCommit),
            _ => {
                Err("--only takes uncontended, hot-key, crowd, election, kept or group-commit"
                    .into())
            }
        }
    }
}
