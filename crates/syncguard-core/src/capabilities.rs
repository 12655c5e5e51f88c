//! What a backend can do beyond the contract, or cannot do within it.

/// Whose clock decides whether a lease is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Clock {
    /// The server's, read inside the atomic step.
    Server,
    /// Each client's own. Clocks that differ by more than
    /// [`TOLERANCE`](crate::TOLERANCE) can break mutual exclusion; the fence still tells.
    Client,
}

/// What a backend can do, for those who depend on more than the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Capabilities {
    clock: Clock,
    ends_at_ttl: bool,
    pushes_hints: bool,
    hands_over: bool,
}

impl Capabilities {
    /// A backend on this clock, whose leases stay live for the whole tolerance after their expiry,
    /// which gives no hints and cannot hand a lease over.
    #[must_use]
    pub const fn new(clock: Clock) -> Self {
        Self { clock, ends_at_ttl: false, pushes_hints: false, hands_over: false }
    }

    /// The store itself removes a lease at its TTL, so that it ends up to the
    /// [`TOLERANCE`](crate::TOLERANCE) earlier than [`is_live`](crate::is_live) says.
    #[must_use]
    pub const fn with_end_at_ttl(mut self) -> Self {
        self.ends_at_ttl = true;
        self
    }

    /// [`maybe_free`](crate::Backend::maybe_free) resolves when a lease is released.
    #[must_use]
    pub const fn with_hints(mut self) -> Self {
        self.pushes_hints = true;
        self
    }

    /// [`hand_over`](crate::Backend::hand_over) ends one lease and grants the next in one step.
    #[must_use]
    pub const fn with_hand_over(mut self) -> Self {
        self.hands_over = true;
        self
    }

    /// Whose clock decides.
    #[must_use]
    pub const fn clock(&self) -> Clock {
        self.clock
    }

    /// Whether a lease ends at its TTL instead of at the end of the tolerance.
    #[must_use]
    pub const fn ends_at_ttl(&self) -> bool {
        self.ends_at_ttl
    }

    /// Whether waiters are told of a release, as a rule: while the connection for that is down, they
    /// are not, and wait by timer.
    #[must_use]
    pub const fn pushes_hints(&self) -> bool {
        self.pushes_hints
    }

    /// Whether a lease passes from one holder to the next in one step.
    #[must_use]
    pub const fn hands_over(&self) -> bool {
        self.hands_over
    }
}
