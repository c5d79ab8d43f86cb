//! A line between the debugger and QEMU's monitor on which a test sees what is asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::guest::PATIENCE;

/// Passes on what either side says, to one client after the other.
pub(crate) struct Relay {
    port: u16,
    /// Pages of memory that were asked for.
    reads: Arc<AtomicUsize>,
}

impl Relay {
    pub(crate) fn to(monitor: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Self { port: listener.local_addr().unwrap().port(), reads: Arc::default() };
        let reads = Arc::clone(&relay.reads);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(monitor)) = (client, TcpStream::connect(("127.0.0.1", monitor))) else {
                    return;
                };
                pass(client, monitor, &reads);
            }
        });
        relay
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Waits until more memory is asked for: that which asks has looked at the machine's state before.
    pub(crate) fn wait_for_reads(&self) {
        let (begun, before) = (Instant::now(), self.reads.load(Ordering::SeqCst));
        while self.reads.load(Ordering::SeqCst) < before + 2 {
            assert!(begun.elapsed() < PATIENCE, "nobody reads");
            std::thread::yield_now();
        }
    }
}

/// Until one of them closes.
fn pass(client: TcpStream, monitor: TcpStream, reads: &AtomicUsize) {
    let (mut to_client, mut from_monitor) = (client.try_clone().unwrap(), monitor.try_clone().unwrap());
    let back = std::thread::spawn(move || {
        let mut some = [0; 0x4000];
        while let Ok(len @ 1..) = from_monitor.read(&mut some) {
            if to_client.write_all(&some[..len]).is_err() {
                break;
            }
        }
        let _ = to_client.shutdown(Shutdown::Both);
    });
    let (mut lines, mut to_monitor) = (BufReader::new(client), monitor);
    let mut line = Vec::new();
    while let Ok(1..) = lines.read_until(b'\n', &mut line) {
        // Counted before it is passed on: whoever has seen the count has the machine's answer still before him.
        if line.windows(3).any(|it| it == b"xp ") {
            reads.fetch_add(1, Ordering::SeqCst);
        }
        if to_monitor.write_all(&line).is_err() {
            break;
        }
        line.clear();
    }
    let _ = to_monitor.shutdown(Shutdown::Both);
    back.join().unwrap();
}
