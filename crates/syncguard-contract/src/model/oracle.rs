//! A second, minimal model of the contract. It checks the memory backend at every moment around the
//! end of a lease.

use super::*;

/// TTLs and pauses whose sums meet, within a millisecond, with and without the tolerance.
const MOMENTS: [Duration; 9] = [
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(499),
    Duration::from_millis(500),
    Duration::from_millis(501),
    Duration::from_millis(999),
    Duration::from_millis(1_000),
    Duration::from_millis(1_001),
    Duration::from_millis(1_500),
];

#[derive(Default)]
struct Oracle {
    now: Duration,
    /// Per key: the number of grants, and the id and expiry of the last one unless it was released.
    grants: [usize; KEYS],
    holders: [Option<(usize, Duration)>; KEYS],
}

impl Oracle {
    fn answer(&mut self, step: &Step) -> Answer {
        let live = |key: usize| {
            self.holders[key].filter(|(_, expires_at)| *expires_at + TOLERANCE > self.now)
        };
        let holds = |id: usize| live(id % KEYS).is_some_and(|(holder, _)| holder == id);
        let record = |key: usize| {
            live(key).map_or(Answer::Nothing, |(id, _)| Answer::Record {
                key,
                id,
                fence: self.grants[key] - 1,
            })
        };
        match *step {
            Step::Acquire { id, .. } if live(id % KEYS).is_some() && !holds(id) => Answer::Held,
            Step::Extend { id, .. } if !holds(id) => Answer::Nothing,
            Step::Acquire { id, ttl } | Step::Extend { id, ttl, .. } => {
                let key = id % KEYS;
                if !holds(id) {
                    self.grants[key] += 1;
                }
                self.holders[key] = Some((id, self.now + ttl));
                let fence = self.grants[key] - 1;
                Answer::Lease { fence }
            }
            Step::Release { id, .. } => {
                let released = holds(id);
                if released {
                    self.holders[id % KEYS] = None;
                }
                Answer::Released(released)
            }
            Step::Handoff { id, .. } if !holds(id) => Answer::Nothing,
            Step::Handoff { id, ttl } => {
                let key = id % KEYS;
                self.grants[key] += 1;
                self.holders[key] = Some((other_id(id), self.now + ttl));
                Answer::Lease { fence: self.grants[key] - 1 }
            }
            Step::Get { key } => record(key),
            Step::Find { id } if holds(id) => record(id % KEYS),
            Step::Find { .. } => Answer::Nothing,
            Step::Die { key } => {
                let answer = record(key);
                if answer != Answer::Nothing {
                    self.holders[key] = None;
                    self.now += AT_ONCE + TOLERANCE;
                }
                answer
            }
        }
    }
}

proptest! {
    #![proptest_config(Config { cases: 2_000, ..Config::default() })]

    #[test]
    fn the_memory_backend_is_the_contract_at_every_moment(
        sequence in vec((step(&MOMENTS), prop::sample::select(&MOMENTS[..])), 1..60)
    ) {
        let clock = ManualClock::new();
        let memory = AnyBackend::new(MemoryBackend::with_clock(&clock));
        let mut subject = Subject::new(memory, Some(clock.clone()));
        let mut oracle = Oracle::default();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for (step, pause) in sequence {
            let answer = runtime.block_on(subject.run(&step)).unwrap();
            prop_assert_eq!(answer, oracle.answer(&step));
            clock.advance(pause);
            oracle.now += pause;
        }
    }
}
