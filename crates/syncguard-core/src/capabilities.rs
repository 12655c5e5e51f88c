//! What a backend can do beyond the contract, or cannot do within it.

/// Whose clock decides whether a lease is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Clock {
    /// The server's, read inside the atomic step.
    Server,
    /// Each client's own. If two clocks differ by more than [`TOLERANCE`](crate::TOLERANCE), two
    /// clients can hold one key. The fence still tells them apart.
    Client,
}

/// What a backend can do beyond the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Capabilities {
    clock: Clock,
    ends_at_ttl: bool,
    sends_notifications: bool,
    receives_notifications: bool,
    supports_handoff: bool,
}

impl Capabilities {
    /// A backend on this clock. Its leases stay live for the whole tolerance after their expiry, it
    /// sends and receives no notifications, and it cannot hand off a lease.
    #[must_use]
    pub const fn new(clock: Clock) -> Self {
        Self {
            clock,
            ends_at_ttl: false,
            sends_notifications: false,
            receives_notifications: false,
            supports_handoff: false,
        }
    }

    /// The store itself removes a lease at its TTL. The lease then ends up to
    /// [`TOLERANCE`](crate::TOLERANCE) earlier than [`is_live`](crate::is_live) says.
    #[must_use]
    pub const fn with_end_at_ttl(mut self) -> Self {
        self.ends_at_ttl = true;
        self
    }

    /// A release notifies other processes, and [`notified`](crate::Backend::notified) resolves when
    /// another process releases.
    #[must_use]
    pub const fn with_notifications(mut self) -> Self {
        self.sends_notifications = true;
        self.receives_notifications = true;
        self
    }

    /// A release notifies other processes, but this process receives no notifications.
    #[must_use]
    pub const fn with_sent_notifications_only(mut self) -> Self {
        self.sends_notifications = true;
        self.receives_notifications = false;
        self
    }

    /// [`handoff`](crate::Backend::handoff) ends one lease and grants the next in one atomic step.
    #[must_use]
    pub const fn with_handoff(mut self) -> Self {
        self.supports_handoff = true;
        self
    }

    /// Whose clock decides whether a lease is live.
    #[must_use]
    pub const fn clock(&self) -> Clock {
        self.clock
    }

    /// Whether a lease ends at its TTL instead of at the end of the tolerance.
    #[must_use]
    pub const fn ends_at_ttl(&self) -> bool {
        self.ends_at_ttl
    }

    /// Whether a release through this backend notifies waiters in other processes.
    #[must_use]
    pub const fn sends_notifications(&self) -> bool {
        self.sends_notifications
    }

    /// Whether waiters in this process are notified of a release. While the connection for
    /// notifications is down they are not; they then wait by timer.
    #[must_use]
    pub const fn receives_notifications(&self) -> bool {
        self.receives_notifications
    }

    /// Whether one lease can end and the next begin in one atomic step.
    #[must_use]
    pub const fn supports_handoff(&self) -> bool {
        self.supports_handoff
    }
}
