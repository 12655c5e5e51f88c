//! A place in line, as the waiter sees it.

use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use syncguard_core::{ErrorCode, Key};
use tokio::time::Instant;

use super::{Delivery, Line, Lines, Notification, Seat, State, lock, settle};
use crate::LockGuard;
use crate::attempt::Undo;

/// How things stand for a waiter.
#[derive(Debug)]
pub(crate) enum Look {
    /// The lock was handed over.
    Granted(LockGuard),
    /// It may have been; with what undoes that.
    Unsure(Undo),
    /// Somebody else is first, or is handing over a lease.
    Wait,
    /// The first in line, and the key is held until then as far as is known.
    Held(Instant),
    /// The first in line, and nothing speaks against an attempt.
    Try,
}

/// What a waiter was stirred by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stir {
    /// Things stand differently now.
    Woken,
    /// The key may be free.
    Notificationed,
}

/// What a notification comes to.
pub(crate) enum Heard {
    /// The key may be free for this process.
    Try,
    /// It is the turn of others.
    Rest,
    /// A guard of this manager holds the key: it tells of the release before that.
    OldNews,
}

/// A place in line. When it is dropped, those behind move up.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    lines: &'a Lines,
    key: Key,
    number: u64,
    seat: Arc<Seat>,
    notification: Option<Notification>,
}

impl<'a> Place<'a> {
    pub(super) const fn new(lines: &'a Lines, key: Key, number: u64, seat: Arc<Seat>) -> Self {
        Self { lines, key, number, seat, notification: None }
    }

    /// How things stand.
    pub(crate) fn look(&mut self) -> Look {
        // Declared first, so that they are dropped after the mutex is free.
        let (holder, _other);
        let mut lines = lock(&self.lines.0);
        match lock(&self.seat.delivered).take() {
            Some(Delivery::Granted(guard, _)) => return Look::Granted(guard),
            Some(Delivery::Unsure(undo)) => return Look::Unsure(undo),
            None => {}
        }
        let Some(line) = lines.get_mut(&self.key) else {
            return Look::Wait;
        };
        match line.places.iter().next() {
            Some((number, first)) if *number == self.number && first.state != State::Served => {}
            _ => return Look::Wait,
        }
        if line.notification.is_some() {
            _other = mem::replace(&mut self.notification, line.notification.take());
        }
        holder = line.holder.upgrade();
        // Of a holder whose time is up nothing is known but what an attempt was told.
        let now = Instant::now();
        let deadline = holder.as_ref().map(|hold| hold.deadline()).filter(|until| *until > now);
        let until = deadline.or(line.held_until.filter(|until| *until > now));
        until.map_or(Look::Try, Look::Held)
    }

    /// Resolves when it is time to look again, or with a notification where they are listened to.
    pub(crate) async fn stirred(&mut self, notifications: bool) -> Stir {
        let notification = poll_fn(|cx| {
            // Taken out, so that one that panics is not polled again, nor left to the next in line.
            let Some(mut notification) = self.notification.take_if(|_| notifications) else {
                return Poll::Pending;
            };
            let polled = Pin::new(&mut notification).poll(cx);
            self.notification = Some(notification);
            polled
        });
        tokio::select! {
            () = self.seat.woken.notified() => Stir::Woken,
            () = notification => Stir::Notificationed,
        }
    }

    /// Whether there is an interest in notifications.
    pub(crate) const fn listens(&self) -> bool {
        self.notification.is_some()
    }

    /// Takes an interest in notifications, in place of the one that there was.
    pub(crate) fn listen(&mut self, notification: Notification) {
        self.notification = Some(notification);
        self.with_line(|line| line.listens = true);
    }

    /// What is known of the holder is to be relied on until then only. A lease may be on its way.
    pub(crate) fn try_again_at(&self, soon: Instant) {
        self.with_line(|line| line.held_until = line.held_until.map(|until| until.min(soon)));
    }

    /// After a notification.
    pub(crate) fn notificationed(&self) -> Heard {
        // Dropped after the mutex is free.
        let mut holder = None;
        let heard = self.with_line(|line| {
            holder = line.holder.upgrade();
            if holder.as_ref().is_some_and(|hold| hold.deadline() > Instant::now()) {
                return Heard::OldNews;
            }
            line.held_until = line.streak.notificationed();
            line.held_until.map_or(Heard::Try, |_| Heard::Rest)
        });
        heard.unwrap_or(Heard::Rest)
    }

    /// Before an attempt; false if a lease is being handed over, or if that was just done.
    pub(crate) fn begin(&self) -> bool {
        self.with_line(|line| {
            line.freed = false;
            let mine = line.places.get_mut(&self.number).filter(|mine| {
                mine.state == State::Waiting && lock(&self.seat.delivered).is_none()
            });
            mine.map(|mine| mine.state = State::Trying).is_some()
        })
        .unwrap_or(false)
    }

    /// After an attempt that found the key held.
    pub(crate) fn held(&self, until: Instant) {
        self.after_attempt(|line| {
            line.failure = None;
            line.streak.held();
            line.held_until = Some(until).filter(|_| !line.freed);
        });
    }

    /// After an attempt that failed.
    pub(crate) fn failed(&self, code: ErrorCode) {
        self.after_attempt(|line| {
            line.failure = Some(code);
            line.held_until = None;
        });
    }

    /// From here on a lease can be handed over.
    fn after_attempt(&self, note: impl FnOnce(&mut Line)) {
        self.with_line(|line| {
            note(line);
            if let Some(mine) = line.places.get_mut(&self.number) {
                mine.state = State::Waiting;
            }
        });
    }

    /// How the last attempt of this line failed, if it did.
    pub(crate) fn failure(&self) -> Option<ErrorCode> {
        self.with_line(|line| line.failure).flatten()
    }

    fn with_line<T>(&self, act: impl FnOnce(&mut Line) -> T) -> Option<T> {
        lock(&self.lines.0).get_mut(&self.key).map(act)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut lines = lock(&self.lines.0);
        // They are dropped after the mutex is free: what was handed over too late is released.
        let delivered = lock(&self.seat.delivered).take();
        let (mut notification, mut unused) = (self.notification.take(), None);
        let mut moves_up = false;
        if let Some(line) = lines.get_mut(&self.key) {
            let was_first = line.places.keys().next() == Some(&self.number);
            line.places.remove(&self.number);
            if line.places.is_empty() {
                line.listens = false;
                unused = line.notification.take();
            } else if was_first || notification.is_some() {
                if notification.is_some() {
                    mem::swap(&mut line.notification, &mut notification);
                }
                moves_up = true;
            }
        }
        settle(lines, &self.key, moves_up);
        drop((delivered, notification, unused));
    }
}
