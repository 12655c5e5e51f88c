//! Spans of time in which a process did not run.

use std::time::Duration;

use crate::clock::Moment;

/// Spans that do not overlap, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spans(Vec<(Moment, Moment)>);

impl Spans {
    pub(crate) fn of(mut spans: Vec<(Moment, Moment)>) -> Self {
        spans.sort_unstable();
        let mut merged: Vec<(Moment, Moment)> = Vec::new();
        for (from, to) in spans {
            match merged.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        Self(merged)
    }

    /// How much of the time from `from` to `to` is in these spans.
    pub(crate) fn within(&self, from: Moment, to: Moment) -> Duration {
        self.cut(from, to).sum()
    }

    /// The longest part of these spans from `from` to `to`.
    pub(crate) fn longest_within(&self, from: Moment, to: Moment) -> Duration {
        self.cut(from, to).max().unwrap_or_default()
    }

    fn cut(&self, from: Moment, to: Moment) -> impl Iterator<Item = Duration> {
        let first = self.0.partition_point(|span| span.1 <= from);
        let touching = self.0[first..].iter().take_while(move |span| span.0 < to);
        touching.map(move |span| span.1.min(to).since(span.0.max(from)))
    }

    /// How much of the time from `from` to `to` is not in these spans.
    pub(crate) fn outside(&self, from: Moment, to: Moment) -> Duration {
        to.since(from).saturating_sub(self.within(from, to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_spans_count_once() {
        let span = |from, to| (Moment(from), Moment(to));
        let spans = Spans::of(vec![span(50, 60), span(10, 20), span(15, 30), span(30, 35)]);
        let within = |from, to| spans.within(Moment(from), Moment(to)).as_micros();
        assert_eq!(within(0, 100), 35);
        assert_eq!(within(12, 32), 20);
        assert_eq!(within(35, 50), 0);
        assert_eq!(within(55, 56), 1);
        assert_eq!(spans.longest_within(Moment(0), Moment(100)).as_micros(), 25);
        assert_eq!(spans.outside(Moment(0), Moment(100)).as_micros(), 65);
    }
}
