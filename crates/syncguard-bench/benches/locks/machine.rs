//! What the machine is, and what it does to a wait: nobody is served sooner than a thread wakes up.

use std::fs::read_to_string;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use syncguard_bench::{Outcome, median, short};

const TIME: Duration = Duration::from_secs(5);
const A_PAUSE_US: f64 = 1_000.0;

/// Prints lines about it. The last: how long a thread waits for another one that has nothing to do
/// but answer.
pub(crate) async fn print() -> Outcome {
    eprintln!("two threads that wake each other");
    let trips = tokio::task::spawn_blocking(trips).await??;
    let longest = trips.iter().copied().fold(0.0, f64::max);
    let pauses = trips.iter().filter(|trip| **trip > A_PAUSE_US).count();
    println!("- SyncGuard {}", env!("CARGO_PKG_VERSION"));
    println!("- {}", hardware());
    println!(
        "- Of two threads that wake each other one waits {} us for the other in the median, {} ms at \
         most, and {} times a second more than 1 ms",
        short(median(trips)),
        short(longest / 1e3),
        short(pauses as f64 / TIME.as_secs_f64()),
    );
    Ok(())
}

/// The system, and what it runs on; less where it is not Linux.
fn hardware() -> String {
    let mut hardware = field("/etc/os-release", "PRETTY_NAME=")
        .map_or_else(|| std::env::consts::OS.to_owned(), |name| name.trim_matches('"').to_owned());
    if let Ok(kernel) = read_to_string("/proc/sys/kernel/osrelease") {
        hardware += &format!(", Linux {}", kernel.trim());
    }
    if let Ok(cores) = thread::available_parallelism() {
        hardware += &format!("; cores: {cores}");
    }
    if let Some(model) = field("/proc/cpuinfo", "model name") {
        hardware += &format!(" of {}", model.trim_start_matches([' ', '\t', ':']));
    }
    let memory = field("/proc/meminfo", "MemTotal:");
    if let Some(Ok(kib)) = memory.map(|memory| memory.trim_end_matches("kB").trim().parse::<f64>())
    {
        hardware += &format!("; memory: {:.1} GiB", kib / 1024.0 / 1024.0);
    }
    hardware
}

/// What follows these words in the first line of a file that begins with them.
fn field(file: &str, name: &str) -> Option<String> {
    let text = read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
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
