//! The setters of [`Election`].

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{Backoff, Election};

impl Election {
    /// Sets how long a term lasts without a renewal, rounded up to whole milliseconds. It is renewed
    /// after each third of it.
    ///
    /// After a crash of the leader, the key stays without one for this long, on Postgres and Firestore
    /// for a second more. A short TTL ends terms when the network or the process hangs for a moment.
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.settings.ttl = Some(ttl);
        self
    }

    /// Sets how long the work has to finish up: the time from [`Term::ending`](crate::Term::ending) to
    /// the moment at which the work is dropped. Default: a third of the TTL. At most half of it.
    ///
    /// Shutdown waits for that, within its own
    /// [limit](crate::LockManagerBuilder::shutdown_limit).
    pub const fn margin(mut self, margin: Duration) -> Self {
        self.margin = Some(margin);
        self
    }

    /// Sets the pauses between two attempts of a campaign, if no notification comes.
    pub const fn backoff(mut self, backoff: Backoff) -> Self {
        self.settings.backoff = backoff;
        self
    }

    /// Sets how long [`lead`](Self::lead) pauses after a term before it campaigns again, so that others
    /// can win. The pauses grow as the backoff says while terms end within their TTL, because work
    /// that fails at its start is likely to fail again.
    pub const fn pause(mut self, pause: Backoff) -> Self {
        self.pause = pause;
        self
    }

    /// Names this candidate. Observers see the name of the leader. At most 256 bytes, without NUL.
    pub fn candidate(mut self, name: impl Into<String>) -> Self {
        self.candidate = Some(name.into());
        self
    }

    /// Sets what observers see of this candidate while it leads: its address, for instance. At most
    /// 4 KiB. [`Term::publish`](crate::Term::publish) changes it later.
    pub fn value(mut self, value: impl Into<Vec<u8>>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// When this token is cancelled, ends the campaign, or announces the end of the term.
    pub fn cancel(mut self, token: CancellationToken) -> Self {
        self.cancel = token;
        self
    }

    /// Aborts the process, without running destructors, if work still runs when the lease is over.
    /// Default: no.
    ///
    /// Rust can drop a future between two of its steps, but it cannot stop one that blocks its thread.
    /// If such work must never outlive its lease, set this. A thread of its own watches the deadline,
    /// until the work has ended and every [`WorkGuard`](crate::WorkGuard) is dropped.
    ///
    /// A term is then over a little before its lease, so that work which can end does: 100 ms, or a
    /// tenth of the TTL if that is less.
    pub const fn abort_at_deadline(mut self) -> Self {
        self.abort_at_deadline = true;
        self
    }
}
