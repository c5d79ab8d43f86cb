//! Ports that nobody else is given meanwhile.

#![allow(unreachable_pub, reason = "a test program exports nothing")]

use std::net::UdpSocket;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below those that a system gives to sockets which name none, as simulated machines' do: one that was found free by
/// asking for such a port may be somebody's by the time that a debugger listens on it.
const FIRST: u32 = 10_000;
const COUNT: u32 = 22_000;

/// A UDP port that is free, and that no other test of this program gets. Each program begins elsewhere.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(131);
    loop {
        let number = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + number).expect("it is below 32,000");
        if UdpSocket::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}
