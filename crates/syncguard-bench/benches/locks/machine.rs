//! The machine, and the delay that it adds to each wait: a waiter is served only after its thread
//! wakes up.

use std::fs::read_to_string;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use syncguard_bench::{Outcome, median, short};

const TIME: Duration = Duration::from_secs(5);
const LONG_US: f64 = 1_000.0;

/// Prints a description of the machine, and how long a thread waits for the answer of another
/// thread that does nothing else.
pub(crate) async fn print() -> Outcome {
    eprintln!("two threads that wake each other");
    let trips = tokio::task::spawn_blocking(trips).await??;
    let longest = trips.iter().copied().fold(0.0, f64::max);
    let long = trips.iter().filter(|trip| **trip > LONG_US).count();
    println!("- SyncGuard {}", env!("CARGO_PKG_VERSION"));
    println!("- {}", hardware());
    println!(
        "- Two threads that wake each other: {} us per wake and answer in the median, {} ms at most, \
         and {} times a second more than 1 ms",
        short(median(trips)),
        short(longest / 1e3),
        short(long as f64 / TIME.as_secs_f64()),
    );
    Ok(())
}

/// Describes the operating system and the hardware. Outside Linux it knows only the system.
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

/// Returns the rest of the first line in a file that begins with `name`.
fn field(file: &str, name: &str) -> Option<String> {
    let text = read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
}

/// Measures the time of a wake and its answer between two threads, in microseconds.
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
