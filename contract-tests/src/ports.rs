//! Ports of this machine for the servers of trials.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// Connections to servers take ports from 32768 on, on Linux. One of them may take a port at the moment at
/// which a server stops to start again. A node of a Redis cluster has a second port, 10,000 higher.
const PORTS: Range<u16> = 10_000..22_000;

/// No two trials get the same one.
static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(fastrand::u16(..)));

/// Returns a port that nobody uses, and that connections do not take. The port that is 10,000 higher is
/// free as well.
#[must_use]
pub fn free_port() -> u16 {
    loop {
        let count = PORTS.end - PORTS.start;
        let port = PORTS.start + NEXT.fetch_add(1, Ordering::Relaxed) % count;
        let free = |port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
        if free(port) && free(port + 10_000) {
            return port;
        }
    }
}
