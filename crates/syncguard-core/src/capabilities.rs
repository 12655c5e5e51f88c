//! The differences between backends.

/// Says whose clock decides whether a lease is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Clock {
    /// The server's clock, which the backend reads inside the atomic step.
    Server,
    /// The clock of each client. If two clocks differ by more than [`TOLERANCE`](crate::TOLERANCE),
    /// two clients can hold the same key. Their fences still differ.
    Client,
}

/// Describes what a backend can do in addition to the contract.
///
/// # Examples
///
/// ```
/// use syncguard_core::{Capabilities, Clock};
///
/// let capabilities = Capabilities::new(Clock::Server).with_notifications();
/// assert!(capabilities.receives_notifications());
/// assert!(!capabilities.supports_handoff());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Capabilities {
    clock: Clock,
    ends_at_ttl: bool,
    sends_notifications: bool,
    receives_notifications: bool,
    supports_handoff: bool,
    publishes: bool,
}

impl Capabilities {
    /// Describes a backend that uses this clock and has no optional capability.
    ///
    /// Its leases stay live until [`TOLERANCE`](crate::TOLERANCE) after their expiry. It neither
    /// sends nor receives notifications, and it supports neither handoff nor publishing.
    #[must_use]
    pub const fn new(clock: Clock) -> Self {
        Self {
            clock,
            ends_at_ttl: false,
            sends_notifications: false,
            receives_notifications: false,
            supports_handoff: false,
            publishes: false,
        }
    }

    /// Declares that the store itself deletes a lease at its TTL.
    ///
    /// A lease may then end up to [`TOLERANCE`](crate::TOLERANCE) before [`is_live`](crate::is_live)
    /// becomes false.
    #[must_use]
    pub const fn with_end_at_ttl(mut self) -> Self {
        self.ends_at_ttl = true;
        self
    }

    /// Declares that a release notifies other processes, and that
    /// [`notified`](crate::Backend::notified) completes when another process releases the key.
    #[must_use]
    pub const fn with_notifications(mut self) -> Self {
        self.sends_notifications = true;
        self.receives_notifications = true;
        self
    }

    /// Declares that a release notifies other processes, but that this process receives no
    /// notifications.
    #[must_use]
    pub const fn with_sent_notifications_only(mut self) -> Self {
        self.sends_notifications = true;
        self.receives_notifications = false;
        self
    }

    /// Declares that [`handoff`](crate::Backend::handoff) ends one lease and grants the next in one
    /// atomic step.
    #[must_use]
    pub const fn with_handoff(mut self) -> Self {
        self.supports_handoff = true;
        self
    }

    /// Declares that the store keeps what a leader [publishes](crate::Backend::publish).
    #[must_use]
    pub const fn with_publishing(mut self) -> Self {
        self.publishes = true;
        self
    }

    /// Returns whose clock decides whether a lease is live.
    #[must_use]
    pub const fn clock(&self) -> Clock {
        self.clock
    }

    /// Returns whether a lease ends at its TTL instead of at the end of the tolerance.
    #[must_use]
    pub const fn ends_at_ttl(&self) -> bool {
        self.ends_at_ttl
    }

    /// Returns whether a release through this backend notifies waiters in other processes.
    #[must_use]
    pub const fn sends_notifications(&self) -> bool {
        self.sends_notifications
    }

    /// Returns whether waiters in this process are notified when another process releases a key.
    ///
    /// While the connection for notifications is down, they are not, and retry by timer.
    #[must_use]
    pub const fn receives_notifications(&self) -> bool {
        self.receives_notifications
    }

    /// Returns whether the backend can end one lease and grant the next in one atomic step.
    #[must_use]
    pub const fn supports_handoff(&self) -> bool {
        self.supports_handoff
    }

    /// Returns whether the backend stores what a leader publishes.
    #[must_use]
    pub const fn publishes(&self) -> bool {
        self.publishes
    }
}
