//! A simulated target behind a real UDP socket.
//!
//! ```text
//!   socket <--> Network (faults) <--> TargetLink <--> Debuggee (machine, debug engine)
//! ```

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::net::UdpSocket;
use tokio::sync::mpsc::UnboundedReceiver;

use super::network::{Faults, Network};
use super::order::{Order, Ordered};
use super::target::Target;

/// Shorter waits for a datagram on its way than this are too fine for the runtime's timers.
const FINE_WAIT: Duration = Duration::from_millis(3);
/// The most that UDP carries.
const MAX_DATAGRAM: usize = 65_536;

/// A target and the network before it.
pub(super) struct Server {
    target: Target,
    connect: SocketAddr,
    to_host: Network,
    to_target: Network,
}

impl Server {
    /// A target whose debugger is at `connect`.
    pub(super) fn new(target: Target, connect: SocketAddr, to_host: Faults, to_target: Faults) -> Self {
        Self { target, connect, to_host: Network::new(to_host, 0), to_target: Network::new(to_target, 1) }
    }

    /// Runs the machine until it is unplugged.
    pub(super) async fn run(mut self, socket: UdpSocket, mut orders: UnboundedReceiver<Ordered>) {
        let mut datagram = vec![0; MAX_DATAGRAM];
        let mut obeyed = None;
        loop {
            self.target.settle(Instant::now());
            self.transmit(&socket).await;
            // Whoever gave the order sees what it did.
            drop(obeyed.take());
            // A kernel acknowledges a request before it carries it out, however long that takes.
            if self.target.execute(Instant::now()) {
                continue;
            }
            tokio::select! {
                biased;
                Some((order, done)) = orders.recv() => {
                    self.obey(order);
                    obeyed = Some(done);
                }
                received = self.wait(&socket, &mut datagram) => {
                    if let Some((len, from)) = received {
                        self.received(from, &datagram[..len]);
                    }
                }
            }
            self.due();
        }
    }

    /// Waits for a datagram from the debugger, or until something is due.
    async fn wait(&self, socket: &UdpSocket, datagram: &mut [u8]) -> Option<(usize, SocketAddr)> {
        let wake_at = self.wake_at();
        // The runtime's timers count milliseconds; a round trip of 0.3 ms is waited for without them.
        while let Some(wake_at) = wake_at.filter(|_| self.next_arrival().is_some())
            && wake_at.saturating_duration_since(Instant::now()) < FINE_WAIT
        {
            match socket.try_recv_from(datagram) {
                Ok(received) => return Some(received),
                Err(_) if wake_at <= Instant::now() => return None,
                Err(_) => tokio::task::yield_now().await,
            }
        }
        tokio::select! {
            biased;
            // Errors here are of earlier sends to a port where nobody listens yet.
            received = socket.recv_from(datagram) => received.ok(),
            () = super::sleep_until(wake_at) => None,
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::SetFaults { to_host, to_target } => {
                self.to_host.set_faults(to_host, 0);
                self.to_target.set_faults(to_target, 1);
            }
            order => self.target.obey(Instant::now(), order),
        }
    }

    /// When the next datagram on its way arrives, in either direction.
    fn next_arrival(&self) -> Option<Instant> {
        [self.to_host.next_arrival(), self.to_target.next_arrival()].into_iter().flatten().min()
    }

    fn wake_at(&self) -> Option<Instant> {
        self.next_arrival().into_iter().chain(self.target.wake_at()).min()
    }

    fn received(&mut self, from: SocketAddr, datagram: &[u8]) {
        if from.ip() != self.connect.ip() && !self.connect.ip().is_unspecified() {
            return;
        }
        self.to_target.send(Instant::now(), datagram);
    }

    fn due(&mut self) {
        let now = Instant::now();
        while let Some(datagram) = self.to_target.receive(now) {
            self.target.datagram(now, self.connect, &datagram);
        }
        self.target.due(now);
    }

    async fn transmit(&mut self, socket: &UdpSocket) {
        let now = Instant::now();
        let mut datagram = BytesMut::new();
        while self.target.poll_transmit(&mut datagram) {
            self.to_host.send(now, &datagram);
        }
        while let Some(datagram) = self.to_host.receive(now) {
            // Where nobody listens, an offer is lost; the next one follows.
            let _ = socket.send_to(&datagram, self.connect).await;
        }
    }
}
