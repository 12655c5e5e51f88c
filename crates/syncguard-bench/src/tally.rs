//! Sums up the reports of the workers of one run.

use std::time::Duration;

use crate::{Outcome, quantile};

/// The figures of one run of one contestant.
#[derive(Debug)]
pub struct Tally {
    /// Grants per second.
    pub rate: f64,
    /// The time in which each worker gets one grant, in milliseconds.
    pub fair_turn: f64,
    /// The grants of the worker with the fewest, divided by the mean.
    pub least_share: f64,
    /// The grants of the worker with the most, divided by the mean.
    pub largest_share: f64,
    /// Commands per grant, if the server counts them. Grants after the end of the run count here
    /// too.
    pub commands_per_grant: Option<f64>,
    /// All waits in microseconds, sorted. Waits that ended after the end of the run are included,
    /// because otherwise a worker without a grant would leave no trace.
    waits: Vec<f64>,
}

impl Tally {
    /// Parses one line of waits per worker. The last wait of each line ended after the end of the
    /// run, and is not counted as a grant.
    ///
    /// # Errors
    ///
    /// If a line is malformed, or if there was no grant in time.
    pub fn parse(lines: &[String], time: Duration, commands: Option<f64>) -> Outcome<Self> {
        let mut waits: Vec<f64> = Vec::new();
        let mut shares = Vec::new();
        for line in lines {
            let mut grants = -1.0;
            for wait in line.split(' ') {
                waits.push(wait.parse()?);
                grants += 1.0;
            }
            shares.push(grants);
        }
        let (grants, workers): (f64, f64) = (shares.iter().sum(), shares.iter().map(|_| 1.0).sum());
        if grants == 0.0 {
            return Err("no worker got the key in time".into());
        }
        waits.sort_by(f64::total_cmp);
        shares.sort_by(f64::total_cmp);
        let mean = grants / workers;
        let rate = grants / time.as_secs_f64();
        Ok(Self {
            rate,
            fair_turn: workers / rate * 1e3,
            least_share: shares.first().ok_or("no worker")? / mean,
            largest_share: shares.last().ok_or("no worker")? / mean,
            commands_per_grant: commands.map(|commands| commands / (grants + workers)),
            waits,
        })
    }

    /// Returns the quantile of the waits for `part` between 0 and 1, in milliseconds.
    #[must_use]
    pub fn wait(&self, part: f64) -> f64 {
        quantile(&self.waits, part) / 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_wait_of_each_worker_is_not_a_grant() {
        let lines = ["1000 2000 3000".to_owned(), "5000".to_owned()];
        let tally = Tally::parse(&lines, Duration::from_millis(500), Some(6.0)).unwrap();
        assert_eq!((tally.rate, tally.fair_turn), (4.0, 500.0));
        assert_eq!(tally.commands_per_grant, Some(1.5));
        assert_eq!((tally.least_share, tally.largest_share), (0.0, 2.0));
        assert_eq!([0.5, 0.99, 1.0].map(|part| tally.wait(part)), [2.0, 5.0, 5.0]);
        assert!(Tally::parse(&["7".to_owned()], Duration::from_secs(1), None).is_err());
    }
}
