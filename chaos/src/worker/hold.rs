//! One hold of a guard or a term, as the history tells it.

use std::time::Duration;

use syncguard::{LockGuard, Term};

use crate::clock::Moment;
use crate::event::{Event, How};
use crate::history::History;

/// What a hold claims by.
pub(crate) trait Held {
    /// The key, the fence and the fingerprint of the lock id.
    fn names(&self) -> (String, u64, String);
    /// How much longer the library says that it is held. Zero if it is lost.
    fn left(&self) -> Duration;
}

impl Held for LockGuard {
    fn names(&self) -> (String, u64, String) {
        (self.key().as_str().to_owned(), self.fence().get(), self.id().fingerprint().to_string())
    }

    fn left(&self) -> Duration {
        self.remaining()
    }
}

impl Held for Term {
    fn names(&self) -> (String, u64, String) {
        (self.key().as_str().to_owned(), self.fence().get(), String::new())
    }

    fn left(&self) -> Duration {
        self.remaining()
    }
}

/// A hold that was noted. Declare it after its guard: it must be dropped first, so that letting go is
/// noted before it is done.
#[derive(Debug)]
pub(crate) struct Hold {
    history: History,
    number: u64,
    /// A negative control: it claims on, whatever the library says.
    ignores_loss: bool,
    let_go: bool,
}

/// What a hold that ignores its loss claims.
const FALSE_CLAIM: Duration = Duration::from_secs(1);

impl Hold {
    pub(crate) fn begin(
        history: &History,
        number: u64,
        held: &impl Held,
        how: How,
        sent: Moment,
        ignores_loss: bool,
    ) -> Self {
        let (key, fence, id) = held.names();
        let at = Moment::now();
        let until = at + held.left();
        let granted = Event::Granted { hold: number, key, fence, id, how, sent, until };
        history.note_at(at, granted);
        Self { history: history.clone(), number, ignores_loss, let_go: false }
    }

    /// Notes a claim, if the library says that it is held.
    pub(crate) fn claim(&self, held: &impl Held) {
        self.claim_at_most(held, Duration::MAX);
    }

    /// As [`claim`](Self::claim), but not beyond this time from now: it is about to be extended to it.
    pub(crate) fn claim_at_most(&self, held: &impl Held, most: Duration) {
        // The clock is read first: a claim must not seem later than the library was asked.
        let at = Moment::now();
        let left = if self.ignores_loss { FALSE_CLAIM } else { held.left().min(most) };
        if !left.is_zero() {
            self.note(at, Event::Holding { hold: self.number, until: at + left });
        }
    }

    pub(crate) fn lost(&self) {
        self.note(Moment::now(), Event::Lost { hold: self.number });
    }

    /// The release begins, and claims end.
    pub(crate) fn let_go(&mut self) {
        if !self.let_go {
            self.let_go = true;
            self.note(Moment::now(), Event::LetGo { hold: self.number });
        }
    }

    pub(crate) fn answered(&self, released: bool) {
        self.note(Moment::now(), Event::Answered { hold: self.number, released });
    }

    /// A negative control: nobody will let go.
    pub(crate) const fn leak(&mut self) {
        self.let_go = true;
    }

    fn note(&self, at: Moment, event: Event) {
        self.history.note_at(at, event);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.let_go();
    }
}
