//! Random sequences of operations must get the same answers from the backend under test as from the
//! memory backend. A unit test compares the memory backend with the contract itself.

#[cfg(test)]
mod oracle;

use std::cell::Cell;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use syncguard_core::{
    Acquired, AnyBackend, Backend, Fence, Key, Lease, LockId, LockRecord, Result, TOLERANCE,
    Timestamp,
};
use syncguard_memory::{ManualClock, MemoryBackend};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout_at};

use crate::expect;
use crate::store::{LONG, PAUSE, Store, fresh_id, fresh_key, race, ttl};

const KEYS: usize = 3;

/// Two ids compete for each key. No id is used for two keys (I2): id `n` is for key `n % KEYS`.
const IDS: usize = 2 * KEYS;

/// The other id for the same key.
const fn other_id(id: usize) -> usize {
    (id + KEYS) % IDS
}

const AT_ONCE: Duration = Duration::from_millis(1);

/// One operation. Keys and ids are given as indexes.
#[derive(Clone, Debug)]
enum Step {
    Acquire {
        id: usize,
        ttl: Duration,
    },
    Extend {
        id: usize,
        ttl: Duration,
        by_id: bool,
    },
    Release {
        id: usize,
        by_id: bool,
    },
    /// To the other id. Without handoff, it is a release and an acquire.
    Handoff {
        id: usize,
        ttl: Duration,
    },
    Get {
        key: usize,
    },
    Find {
        id: usize,
    },
    /// Lets the lease of this key end, if there is one.
    Die {
        key: usize,
    },
}

/// The result of a step. A fence is given by its rank among the fences of its key, because there
/// may be gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Held,
    Lease { fence: usize },
    Released(bool),
    Record { key: usize, id: usize, fence: usize },
    Nothing,
}

fn step(ttls: &'static [Duration]) -> impl Strategy<Value = Step> {
    let ttl = prop::sample::select(ttls);
    prop_oneof![
        4 => (0..IDS, ttl.clone()).prop_map(|(id, ttl)| Step::Acquire { id, ttl }),
        3 => (0..IDS, ttl.clone(), any::<bool>())
            .prop_map(|(id, ttl, by_id)| Step::Extend { id, ttl, by_id }),
        3 => (0..IDS, ttl).prop_map(|(id, ttl)| Step::Handoff { id, ttl }),
        3 => (0..IDS, any::<bool>()).prop_map(|(id, by_id)| Step::Release { id, by_id }),
        1 => (0..KEYS).prop_map(|key| Step::Get { key }),
        1 => (0..IDS).prop_map(|id| Step::Find { id }),
        1 => (0..KEYS).prop_map(|key| Step::Die { key }),
    ]
}

/// Checks one backend. A batch of sequences runs at the same time, because on some servers a lease
/// ends only after a second. Each batch must end within `limit`.
pub(crate) fn agrees_with_memory(
    runtime: &Handle,
    store: &Store,
    limit: Duration,
) -> Result<(), String> {
    let sequences = vec(vec(step(&[LONG]), 1..24), 16);
    let mut runner = TestRunner::new(Config {
        cases: 4,
        failure_persistence: None,
        max_shrink_time: 20_000,
        ..Config::default()
    });
    let timed_out = Cell::new(false);
    let outcome = runner.run(&sequences, |sequences| {
        // Every attempt to find a shorter sequence would run into the limit again.
        if timed_out.get() {
            return Ok(());
        }
        let deadline = Instant::now() + limit;
        let compared = race(sequences.len(), |index| {
            compare(store.client(index), sequences[index].clone(), deadline)
        });
        let differences = runtime.block_on(compared);
        timed_out.set(Instant::now() >= deadline);
        let difference = differences.into_iter().find_map(Result::err);
        difference.map_or(Ok(()), |text| Err(TestCaseError::fail(text)))
    });
    outcome.map_err(|error| error.to_string())
}

/// Runs a sequence on a backend and on the model, up to the first answer that differs.
async fn compare(
    backend: AnyBackend,
    sequence: Vec<Step>,
    deadline: Instant,
) -> Result<(), String> {
    let mut real = Subject::new(backend, None);
    let clock = ManualClock::new();
    let mut model = Subject::new(AnyBackend::new(MemoryBackend::with_clock(&clock)), Some(clock));
    for (number, step) in sequence.iter().enumerate() {
        let expected = model.run(step).await.map_err(crate::describe::describe)?;
        let Ok(answer) = timeout_at(deadline, real.run(step)).await else {
            return Err(format!("step {number}, {step:?}: expected {expected:?}, but it hangs"));
        };
        let answer = answer.map_err(crate::describe::describe)?;
        if answer != expected {
            let text = format!("expected {expected:?}, but got {answer:?}");
            return Err(format!("step {number}, {step:?}: {text}"));
        }
    }
    Ok(())
}

/// Runs steps on one backend, with keys and ids of its own.
struct Subject {
    backend: AnyBackend,
    /// Advanced to end a lease. Without a clock, the player waits.
    clock: Option<ManualClock>,
    keys: Vec<Key>,
    ids: Vec<LockId>,
    /// The last lease of each id, or an invented one.
    leases: Vec<Lease>,
    /// The fences of each key, in the order in which they appeared.
    fences: Vec<Vec<Fence>>,
}

impl Subject {
    fn new(backend: AnyBackend, clock: Option<ManualClock>) -> Self {
        let keys: Vec<Key> = (0..KEYS).map(|_| fresh_key()).collect();
        let ids: Vec<LockId> = (0..IDS).map(|_| fresh_id()).collect();
        let invented = |(number, id): (usize, &LockId)| {
            let key = keys[number % KEYS].clone();
            Lease::new(key, id.clone(), Fence::MAX, Timestamp::from_millis(0))
        };
        Self {
            leases: ids.iter().enumerate().map(invented).collect(),
            backend,
            clock,
            keys,
            ids,
            fences: vec![Vec::new(); KEYS],
        }
    }

    async fn run(&mut self, step: &Step) -> Result<Answer> {
        let backend = self.backend.clone();
        match *step {
            Step::Acquire { id, ttl: duration } => {
                let key = &self.keys[id % KEYS];
                match backend.acquire(key, &self.ids[id], ttl(duration)).await? {
                    Acquired::Granted(lease) => Ok(self.leased(id, lease)),
                    Acquired::Held { .. } => Ok(Answer::Held),
                }
            }
            Step::Extend { id, ttl: duration, by_id } => {
                let extended = if by_id {
                    backend.extend_by_id(&self.ids[id], ttl(duration)).await?
                } else {
                    backend.extend(&self.leases[id], ttl(duration)).await?
                };
                Ok(extended.map_or(Answer::Nothing, |lease| self.leased(id, lease)))
            }
            Step::Release { id, by_id } => Ok(Answer::Released(if by_id {
                backend.release_by_id(&self.ids[id]).await?
            } else {
                backend.release(&self.leases[id]).await?
            })),
            Step::Handoff { id, ttl: duration } => {
                let (lease, receiver, duration) = (&self.leases[id], other_id(id), ttl(duration));
                if backend.find(&self.ids[receiver]).await?.is_some() {
                    // A backend that repeats a handoff by itself would take this for its own first
                    // success.
                    return Ok(Answer::Nothing);
                }
                let granted = if backend.capabilities().supports_handoff() {
                    backend.handoff(lease, &self.ids[receiver], duration).await?
                } else if backend.release(lease).await? {
                    let acquired =
                        backend.acquire(lease.key(), &self.ids[receiver], duration).await?;
                    Some(expect::granted(acquired))
                } else {
                    None
                };
                Ok(granted.map_or(Answer::Nothing, |lease| self.leased(receiver, lease)))
            }
            Step::Get { key } => {
                let record = backend.get(&self.keys[key]).await?;
                Ok(self.recorded(record))
            }
            Step::Find { id } => {
                let record = backend.find(&self.ids[id]).await?;
                Ok(self.recorded(record))
            }
            Step::Die { key } => {
                let key = self.keys[key].clone();
                let record = backend.get(&key).await?;
                if let Some(record) = &record {
                    backend.extend_by_id(record.id(), ttl(AT_ONCE)).await?;
                    self.until_dead(&key).await?;
                }
                Ok(self.recorded(record))
            }
        }
    }

    async fn until_dead(&self, key: &Key) -> Result<()> {
        if let Some(clock) = &self.clock {
            clock.advance(AT_ONCE + TOLERANCE);
        }
        while self.backend.get(key).await?.is_some() {
            sleep(PAUSE).await;
        }
        Ok(())
    }

    fn leased(&mut self, id: usize, lease: Lease) -> Answer {
        let fence = self.rank(id % KEYS, lease.fence());
        self.leases[id] = lease;
        Answer::Lease { fence }
    }

    fn recorded(&mut self, record: Option<LockRecord>) -> Answer {
        let Some(record) = record else {
            return Answer::Nothing;
        };
        let key = self.keys.iter().position(|key| key == record.key());
        let id = self.ids.iter().position(|id| id == record.id());
        let (key, id) = (key.expect("a key of ours"), id.expect("an id of ours"));
        let fence = self.rank(key, record.fence());
        Answer::Record { key, id, fence }
    }

    /// The rank of a known fence, or the next rank for a fence above all others.
    fn rank(&mut self, key: usize, fence: Fence) -> usize {
        let seen = &mut self.fences[key];
        let known = seen.iter().position(|known| *known == fence);
        known.unwrap_or_else(|| {
            assert!(seen.last() < Some(&fence), "a fence that did not rise");
            seen.push(fence);
            seen.len() - 1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controls::{Defect, Defective};

    #[tokio::test]
    async fn a_broken_backend_does_not_agree() {
        let sequence = vec![
            Step::Acquire { id: 0, ttl: LONG },
            Step::Die { key: 0 },
            Step::Extend { id: 0, ttl: LONG, by_id: false },
        ];
        let broken = AnyBackend::new(Defective::new(Defect::ExtendRevives));
        let deadline = Instant::now() + LONG;
        let outcome = compare(broken, sequence, deadline).await;
        let difference = "step 2, Extend { id: 0, ttl: 3600s, by_id: false }";
        assert!(outcome.unwrap_err().starts_with(difference));
    }
}
