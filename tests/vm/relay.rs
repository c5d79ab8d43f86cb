//! A line between the debugger and QEMU's monitor on which a test sees what is asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::guest::PATIENCE;

/// Passes on what either side says, to one client after the other.
pub(crate) struct Relay {
    port: u16,
    passed: Arc<Passed>,
}

#[derive(Default)]
struct Passed {
    /// Pages of memory that were asked for.
    reads: AtomicUsize,
    /// What was asked for since the client came.
    commands: AtomicUsize,
    /// Behind so many commands the line breaks.
    breaks_behind: Mutex<Option<usize>>,
}

impl Relay {
    pub(crate) fn to(monitor: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Self { port: listener.local_addr().unwrap().port(), passed: Arc::default() };
        let passed = Arc::clone(&relay.passed);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(monitor)) = (client, TcpStream::connect(("127.0.0.1", monitor))) else {
                    return;
                };
                pass(client, monitor, &passed);
            }
        });
        relay
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The line breaks as soon as the client has sent so many commands; the last of them does not arrive.
    pub(crate) fn break_behind(&self, commands: Option<usize>) {
        *self.passed.breaks_behind.lock().unwrap() = commands;
    }

    /// Commands of the last client.
    pub(crate) fn commands(&self) -> usize {
        self.passed.commands.load(Ordering::SeqCst)
    }

    /// Waits until more memory is asked for: that which asks has looked at the machine's state before.
    pub(crate) fn wait_for_reads(&self) {
        let (begun, before) = (Instant::now(), self.passed.reads.load(Ordering::SeqCst));
        while self.passed.reads.load(Ordering::SeqCst) < before + 2 {
            assert!(begun.elapsed() < PATIENCE, "nobody reads");
            std::thread::yield_now();
        }
    }
}

/// Until one of them closes.
fn pass(client: TcpStream, monitor: TcpStream, passed: &Passed) {
    passed.commands.store(0, Ordering::SeqCst);
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
            passed.reads.fetch_add(1, Ordering::SeqCst);
        }
        let commands = passed.commands.fetch_add(1, Ordering::SeqCst) + 1;
        if *passed.breaks_behind.lock().unwrap() == Some(commands) {
            break;
        }
        if to_monitor.write_all(&line).is_err() {
            break;
        }
        line.clear();
    }
    let _ = to_monitor.shutdown(Shutdown::Both);
    back.join().unwrap();
}
