//! A network as bad as one wants it: seeded loss, bursts of it, duplication, replay, reordering, damage, cut datagrams,
//! silence, and time on the way.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// What happens to datagrams on one way through a network. Shares are between 0 and 1.
///
/// Over a serial line, shares are of bytes, and only `loss`, `corrupt` and `silence` can happen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// Time there and back: half of it on each way.
    pub round_trip: Duration,
    /// Each datagram takes up to this much longer, so that later ones overtake it.
    pub jitter: Duration,
    /// Share that is lost.
    pub loss: f64,
    /// Share behind which `burst_length` datagrams are lost.
    pub burst: f64,
    /// How many datagrams a burst loses.
    pub burst_length: u32,
    /// Nothing arrives.
    pub silence: bool,
    /// Share that arrives twice.
    pub duplicate: f64,
    /// Share behind which one of the last 64 arrives once more, as from somebody who listens and repeats.
    pub replay: f64,
    /// Share that is overtaken by later ones.
    pub reorder: f64,
    /// Share that arrives with a bit flipped.
    pub corrupt: f64,
    /// Share that arrives without its end.
    pub truncate: f64,
    /// The same seed and the same datagrams give the same faults.
    pub seed: u64,
}

/// An overtaken datagram is this much later, at least.
const REORDER_DELAY: Duration = Duration::from_millis(2);
/// Datagrams that a replay chooses from.
const REMEMBERED: usize = 64;

/// One direction of a network: what is put in comes out later, or not.
#[derive(Debug)]
pub(super) struct Network {
    faults: Faults,
    chance: fastrand::Rng,
    on_the_way: BTreeMap<(Instant, u64), Vec<u8>>,
    count: u64,
    /// How many datagrams the burst that goes on still loses.
    burst_left: u32,
    /// What was sent last, if there are replays.
    earlier: VecDeque<Vec<u8>>,
}

impl Network {
    pub(super) fn new(faults: Faults, direction: u64) -> Self {
        let mut network = Self {
            faults,
            chance: fastrand::Rng::new(),
            on_the_way: BTreeMap::new(),
            count: 0,
            burst_left: 0,
            earlier: VecDeque::new(),
        };
        network.set_faults(faults, direction);
        network
    }

    /// Becomes another network; what is on its way arrives.
    pub(super) fn set_faults(&mut self, faults: Faults, direction: u64) {
        self.faults = faults;
        self.chance = chance(&faults, direction);
        self.burst_left = 0;
        self.earlier.clear();
    }

    /// Puts a datagram on its way.
    pub(super) fn send(&mut self, now: Instant, datagram: &[u8]) {
        let faults = self.faults;
        if faults.replay > 0.0 {
            self.earlier.push_back(datagram.to_vec());
            if self.earlier.len() > REMEMBERED {
                self.earlier.pop_front();
            }
        }
        if self.happens(faults.replay) {
            let again = self.earlier[self.chance.usize(..self.earlier.len())].clone();
            self.deliver(now, again);
        }
        if self.is_lost() {
            return;
        }
        let copies = if self.happens(faults.duplicate) { 2 } else { 1 };
        let mut datagram = datagram.to_vec();
        if self.happens(faults.corrupt) && !datagram.is_empty() {
            let at = self.chance.usize(..datagram.len());
            datagram[at] ^= 1 << self.chance.u8(..8);
        }
        if self.happens(faults.truncate) && !datagram.is_empty() {
            datagram.truncate(self.chance.usize(..datagram.len()));
        }
        for _ in 0..copies {
            self.deliver(now, datagram.clone());
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

    fn is_lost(&mut self) -> bool {
        if self.faults.silence {
            return true;
        }
        if self.burst_left > 0 {
            self.burst_left -= 1;
            return true;
        }
        if self.happens(self.faults.burst) {
            self.burst_left = self.faults.burst_length;
        }
        self.happens(self.faults.loss)
    }

    fn deliver(&mut self, now: Instant, datagram: Vec<u8>) {
        let mut arrives = now + self.faults.round_trip / 2;
        if !self.faults.jitter.is_zero() {
            arrives += self.faults.jitter.mul_f64(self.chance.f64());
        }
        if self.happens(self.faults.reorder) {
            arrives += self.faults.round_trip.max(REORDER_DELAY);
        }
        self.count += 1;
        self.on_the_way.insert((arrives, self.count), datagram);
    }

    fn happens(&mut self, share: f64) -> bool {
        happens(&mut self.chance, share)
    }
}

/// One direction of a serial line: bytes get lost or change on the way.
#[derive(Debug)]
pub(super) struct Noise {
    faults: Faults,
    chance: fastrand::Rng,
}

impl Noise {
    pub(super) fn new(faults: Faults, direction: u64) -> Self {
        Self { faults, chance: chance(&faults, direction) }
    }

    /// What arrives of these bytes.
    pub(super) fn pass(&mut self, bytes: &mut Vec<u8>) {
        if self.faults.silence {
            return bytes.clear();
        }
        if self.faults.loss > 0.0 {
            bytes.retain(|_| !happens(&mut self.chance, self.faults.loss));
        }
        if self.faults.corrupt > 0.0 {
            for byte in bytes {
                if happens(&mut self.chance, self.faults.corrupt) {
                    *byte ^= 1 << self.chance.u8(..8);
                }
            }
        }
    }
}

fn chance(faults: &Faults, direction: u64) -> fastrand::Rng {
    fastrand::Rng::with_seed(faults.seed.wrapping_mul(2).wrapping_add(direction))
}

fn happens(chance: &mut fastrand::Rng, share: f64) -> bool {
    share > 0.0 && chance.f64() < share
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
    fn bursts_lose_datagrams_one_behind_the_other() {
        let lost = |faults| {
            let arrived: Vec<u8> = arrivals(faults).iter().map(|datagram| datagram[0]).collect();
            (0..=255).filter(|number| !arrived.contains(number)).collect::<Vec<u8>>()
        };
        let faults = Faults { burst: 0.02, burst_length: 10, seed: 3, ..Faults::default() };
        let lost = lost(faults);
        assert!(lost.len() >= 20 && lost.len() % 10 == 0 || lost.last() == Some(&255), "{lost:?}");
        assert!(lost[..10].windows(2).all(|pair| pair[1] == pair[0] + 1), "{lost:?}");
    }

    #[test]
    fn datagrams_are_cut_replayed_delayed_and_silenced() {
        let cut = arrivals(Faults { truncate: 0.2, seed: 1, ..Faults::default() });
        assert!(cut.len() == 256 && cut.iter().any(|datagram| datagram.len() < 2));
        let replayed = arrivals(Faults { replay: 0.2, seed: 1, ..Faults::default() });
        assert!(replayed.len() > 270 && !replayed.is_sorted());
        let jitter = Faults { jitter: Duration::from_millis(50), seed: 1, ..Faults::default() };
        assert!(arrivals(jitter).len() == 256 && !arrivals(jitter).is_sorted());
        assert!(arrivals(Faults { silence: true, ..Faults::default() }).is_empty());
    }

    #[test]
    fn another_network_takes_over_for_what_is_sent_from_then_on() {
        let mut network = Network::new(Faults::default(), 0);
        let now = Instant::now();
        network.send(now, b"a");
        network.set_faults(Faults { silence: true, ..Faults::default() }, 0);
        network.send(now, b"b");
        assert_eq!((network.receive(now), network.receive(now)), (Some(b"a".to_vec()), None));
    }

    #[test]
    fn a_noisy_line_loses_and_flips_the_same_bytes_for_the_same_seed() {
        let pass = |seed| {
            let mut bytes = vec![0; 10_000];
            Noise::new(Faults { loss: 0.01, corrupt: 0.01, seed, ..Faults::default() }, 0).pass(&mut bytes);
            bytes
        };
        let bytes = pass(5);
        assert_eq!(bytes, pass(5));
        assert!((9_800..9_990).contains(&bytes.len()), "{}", bytes.len());
        let flipped = bytes.iter().filter(|byte| **byte != 0);
        assert!(flipped.clone().all(|byte| byte.is_power_of_two()) && flipped.count() > 50);
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
