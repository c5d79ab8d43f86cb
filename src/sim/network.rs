//! A network as bad as one wants it: seeded loss, duplication, reordering, damage, and time on the way.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What happens to datagrams. Shares are between 0 and 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// Time there and back.
    pub round_trip: Duration,
    /// Share that is lost.
    pub loss: f64,
    /// Share that arrives twice.
    pub duplicate: f64,
    /// Share that is overtaken by later ones.
    pub reorder: f64,
    /// Share that arrives with a bit flipped.
    pub corrupt: f64,
    /// The same seed and the same datagrams give the same faults.
    pub seed: u64,
}

/// An overtaken datagram is this much later, at least.
const REORDER_DELAY: Duration = Duration::from_millis(2);

/// One direction of a network: what is put in comes out later, or not.
#[derive(Debug)]
pub(super) struct Network {
    faults: Faults,
    chance: fastrand::Rng,
    on_the_way: BTreeMap<(Instant, u64), Vec<u8>>,
    count: u64,
}

impl Network {
    pub(super) fn new(faults: Faults, direction: u64) -> Self {
        let chance = fastrand::Rng::with_seed(faults.seed.wrapping_mul(2).wrapping_add(direction));
        Self { faults, chance, on_the_way: BTreeMap::new(), count: 0 }
    }

    /// Puts a datagram on its way.
    pub(super) fn send(&mut self, now: Instant, datagram: &[u8]) {
        if self.happens(self.faults.loss) {
            return;
        }
        let copies = if self.happens(self.faults.duplicate) { 2 } else { 1 };
        let mut datagram = datagram.to_vec();
        if self.happens(self.faults.corrupt) && !datagram.is_empty() {
            let at = self.chance.usize(..datagram.len());
            datagram[at] ^= 1 << self.chance.u8(..8);
        }
        for _ in 0..copies {
            let mut arrives = now + self.faults.round_trip / 2;
            if self.happens(self.faults.reorder) {
                arrives += self.faults.round_trip.max(REORDER_DELAY);
            }
            self.count += 1;
            self.on_the_way.insert((arrives, self.count), datagram.clone());
        }
    }

    /// The next datagram that has arrived by `now`.
    pub(super) fn receive(&mut self, now: Instant) -> Option<Vec<u8>> {
        let entry = self.on_the_way.first_entry().filter(|entry| entry.key().0 <= now)?;
        Some(entry.remove())
    }

    /// When the next datagram arrives.
    pub(super) fn next_arrival(&self) -> Option<Instant> {
        self.on_the_way.keys().next().map(|(at, _)| *at)
    }

    fn happens(&mut self, share: f64) -> bool {
        share > 0.0 && self.chance.f64() < share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(faults: Faults) -> Vec<Vec<u8>> {
        let mut network = Network::new(faults, 0);
        let now = Instant::now();
        for number in 0..=255 {
            network.send(now, &[number, 0]);
        }
        std::iter::from_fn(|| network.receive(now + Duration::from_secs(1))).collect()
    }

    #[test]
    fn without_faults_everything_arrives_once_in_order() {
        let expected: Vec<Vec<u8>> = (0..=255).map(|number| vec![number, 0]).collect();
        assert_eq!(arrivals(Faults::default()), expected);
    }

    #[test]
    fn a_seed_reproduces_its_faults_and_each_fault_happens() {
        let faults =
            Faults { loss: 0.2, duplicate: 0.1, reorder: 0.1, corrupt: 0.1, seed: 7, ..Faults::default() };
        let first = arrivals(faults);
        assert_eq!(first, arrivals(faults));
        assert_ne!(first, arrivals(Faults { seed: 8, ..faults }));
        assert!(arrivals(Faults { loss: 0.2, seed: 1, ..Faults::default() }).len() < 240);
        assert!(arrivals(Faults { duplicate: 0.2, seed: 1, ..Faults::default() }).len() > 270);
        let reordered = arrivals(Faults { reorder: 0.2, seed: 1, ..Faults::default() });
        assert!(!reordered.is_sorted() && reordered.len() == 256);
        let corrupt = arrivals(Faults { corrupt: 0.2, seed: 1, ..Faults::default() });
        assert!(corrupt.iter().enumerate().any(|(at, datagram)| *datagram != [at as u8, 0]));
    }

    #[test]
    fn nothing_arrives_before_half_a_round_trip() {
        let mut network =
            Network::new(Faults { round_trip: Duration::from_millis(4), ..Faults::default() }, 0);
        let now = Instant::now();
        network.send(now, b"x");
        assert_eq!(network.receive(now + Duration::from_millis(1)), None);
        assert_eq!(network.next_arrival(), Some(now + Duration::from_millis(2)));
        assert_eq!(network.receive(now + Duration::from_millis(2)), Some(b"x".to_vec()));
    }
}
