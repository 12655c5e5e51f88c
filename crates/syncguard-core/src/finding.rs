//! What a preflight finds out about a store.

use std::borrow::Cow;
use std::fmt;

/// Says how serious a [`Finding`] is. Later levels are more serious.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Level {
    /// The check found nothing wrong.
    Fine,
    /// The check could not be made, for instance because a permission is missing.
    Unknown,
    /// Locks work, but a failure can cost more than it has to.
    Warning,
    /// Locks do not work, or two callers can hold one key.
    Error,
}

impl Level {
    /// Returns the name of the level, in lower case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The result of one check of a preflight: a fact about the store, and what to do about it.
///
/// `Display` writes one line.
///
/// # Examples
///
/// ```
/// use syncguard_core::{Finding, Level};
///
/// let finding = Finding::new(
///     Level::Warning,
///     "eviction-policy",
///     "maxmemory-policy is allkeys-lru",
///     "set maxmemory-policy to noeviction, or the server deletes leases that are live",
/// );
/// assert_eq!(
///     finding.to_string(),
///     "warning: eviction-policy: maxmemory-policy is allkeys-lru: \
///      set maxmemory-policy to noeviction, or the server deletes leases that are live",
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    level: Level,
    code: &'static str,
    fact: Cow<'static, str>,
    advice: Cow<'static, str>,
}

impl Finding {
    /// Makes a finding. Pass an empty text as `advice` if there is nothing to do.
    #[must_use]
    pub fn new(
        level: Level,
        code: &'static str,
        fact: impl Into<Cow<'static, str>>,
        advice: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { level, code, fact: fact.into(), advice: advice.into() }
    }

    /// Returns how serious it is.
    #[must_use]
    pub const fn level(&self) -> Level {
        self.level
    }

    /// Returns the name of the check, such as `eviction-policy`. It stays the same across versions.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.code
    }

    /// Returns what the store answered.
    #[must_use]
    pub fn fact(&self) -> &str {
        &self.fact
    }

    /// Returns what to do, or an empty text.
    #[must_use]
    pub fn advice(&self) -> &str {
        &self.advice
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.level, self.code, self.fact)?;
        if self.advice.is_empty() { Ok(()) } else { write!(f, ": {}", self.advice) }
    }
}
