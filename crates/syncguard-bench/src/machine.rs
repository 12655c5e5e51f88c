//! What the machine itself does to a wait: nobody is served sooner than a thread wakes up.

use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use crate::contestant::Outcome;
use crate::table::{median, short};

const TIME: Duration = Duration::from_secs(5);
const A_PAUSE_US: f64 = 1_000.0;

/// Prints how long a thread waits for another one that has nothing to do but answer.
pub(crate) async fn print() -> Outcome {
    eprintln!("two threads that wake each other");
    let trips = tokio::task::spawn_blocking(trips).await??;
    let longest = trips.iter().copied().fold(0.0, f64::max);
    let pauses = trips.iter().filter(|trip| **trip > A_PAUSE_US).count();
    println!(
        "\nThe machine: of two threads that wake each other one waits {} us for the other in the \
         median, {} ms at most, and {} times a second more than 1 ms.",
        short(median(trips)),
        short(longest / 1e3),
        short(pauses as f64 / TIME.as_secs_f64()),
    );
    Ok(())
}

/// There and back, in microseconds.
fn trips() -> Outcome<Vec<f64>> {
    let ((ask, asked), (answer, answered)) = (sync_channel(0), sync_channel(0));
    thread::spawn(move || while asked.recv().is_ok() && answer.send(()).is_ok() {});
    let (start, mut trips) = (Instant::now(), Vec::new());
    while start.elapsed() < TIME {
        let left = Instant::now();
        ask.send(())?;
        answered.recv()?;
        trips.push(left.elapsed().as_secs_f64() * 1e6);
    }
    Ok(trips)
}
