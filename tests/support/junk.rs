//! Somebody who sends junk to a port, from a socket of their own.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// Sends datagrams of every length, many of which begin as KDNET's do, as fast as it can until it is dropped.
pub(crate) struct Junk {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Junk {
    /// `to` is on this machine. The same seed sends the same datagrams.
    pub(crate) fn flood(to: SocketAddr, seed: u64) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (is_stopped, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = std::thread::spawn(move || {
            let mut chance = fastrand::Rng::with_seed(seed);
            let mut datagram = [0; 1500];
            while !is_stopped.load(Ordering::Relaxed) {
                let len = chance.usize(..datagram.len());
                chance.fill(&mut datagram[..len]);
                if len >= 6 && chance.bool() {
                    datagram[..6].copy_from_slice(&[b'M', b'D', b'B', b'G', 5, chance.u8(..2)]);
                }
                // A full socket, or a port where nobody listens yet: the next one is as good.
                if socket.send_to(&datagram[..len], to).is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { stop, sent, thread: Some(thread) }
    }

    /// Datagrams sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Junk {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
