//! What a query costs the machine that stands still: requests, bytes and frozen time at several round trips, and the
//! share of the link's own limit that a long read reaches.
//!
//! ```sh
//! cargo bench --bench freeze
//! ```
//!
//! The limit is measured in the same run by a bare stop-and-wait exchange: request, acknowledgement, reply, acknowledgement
//! in datagrams of the same sizes, sealed and opened, with no state machine around. Quote the ratios; the times are this
//! machine's.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kd_protocol::VirtAddr;
use kd_protocol::kd::{Manipulate, NtStatus, Packet, PacketId, PacketType};
use kd_protocol::kdnet::{Cipher, Datagram, Direction, Envelope, Flags, Key};
use kd_protocol::link::Content;
use verikd::debugger::Debugger;
use verikd::memory::Memory;
use verikd::session::{Session, SessionConfig};
use verikd::shell::{Format, Report, Shell, Transcript, Writer};
use verikd::source::Source;
use verikd::symbols::store::SymbolPath;
use verikd::target::{Kernel, KernelVersion, Target};
use verikd_sim::windows::{Build, Scenario, WINDOWS_7_SP1};
use verikd_sim::{Faults, Simulator, SimulatorConfig, export_symbols};

const PATIENCE: Duration = Duration::from_secs(120);
/// Data that one reply carries.
const REPLY: usize = 1096;
/// Windows build, scenario, query.
const CASES: [(&str, Scenario, &str); 6] = [
    ("7sp1", Scenario::Myfault, "!verifier"),
    ("7sp1", Scenario::Myfault, "!verifier 3 myfault.sys"),
    ("7sp1", Scenario::Myfault, "!verifier 80 fffffa8005400000"),
    ("11-25h2", Scenario::Myfault, "!verifier 3 myfault.sys"),
    ("11-25h2", Scenario::BigLog, "!verifier 80 fffffa8005400000"),
    ("7sp1", Scenario::Many, "!verifier 3"),
];
const MIB: usize = 1 << 20;
/// Reads of each long read. Without a round trip, times are those of a scheduler that puts a connection's threads on one
/// core or on two, as it likes, and leaves them there for long: many short reads on many connections meet more of its moods
/// than few long ones on one.
const ROUNDS: usize = 21;
const ROUNDS_ON_LOOPBACK: usize = 91;
const CONNECTIONS_ON_LOOPBACK: usize = 21;
/// Losses of each kind.
const SEEDS: u64 = 11;

fn main() {
    let round_trips = [0, 300, 1000, 5000].map(Duration::from_micros);
    println!(
        "{:<32} {:<8} {:<9} {:>8} {:>10} {:>12} {:>12}",
        "query", "windows", "scenario", "rtt", "requests", "bytes in", "frozen"
    );
    for round_trip in round_trips {
        queries(round_trip);
    }
    println!();
    println!(
        "{:<32} {:>8} {:>10} {:>12} {:>12}",
        "long read", "rtt", "requests", "per request", "of the limit (8 of 10)"
    );
    for round_trip in round_trips {
        long_read(round_trip);
    }
    println!();
    println!("loss at a round trip of 1 ms: median (worst) of {SEEDS}");
    println!(
        "{:<8} {:>24} {:>24} {:>24} {:>24}",
        "", "stop to prompt", "!verifier 80 ADDRESS", "!verifier 3 myfault.sys", "256 KiB of pool log"
    );
    loss(Duration::from_millis(1));
}

/// Each query's cost, each in a stop of its own.
fn queries(round_trip: Duration) {
    for (windows, scenario, query) in CASES {
        let build = Build::find(windows).expect("a build that there is");
        let live = Live::of(build, scenario, Faults { round_trip, ..Faults::default() });
        let writer = Writer::new(Transcript::default(), Transcript::default());
        let debugger = Debugger::new(Arc::clone(&live.session), live.symbol_path(), PATIENCE);
        let mut shell = Shell::new(debugger, live.session.watcher(), Report::new(Format::Text, writer));
        shell.break_in().expect("the simulated target stops");
        let (before, frozen) = (live.session.counters(), live.session.frozen());
        shell.run(query);
        let (after, frozen) = (live.session.counters(), live.session.frozen() - frozen);
        let bytes = after.bytes_received - before.bytes_received;
        println!(
            "{query:<32} {windows:<8} {:<9} {:>8} {:>10} {bytes:>12} {:>12}",
            scenario.name(),
            show(round_trip),
            after.requests - before.requests,
            show(frozen)
        );
    }
}

/// A read of the pool log, against the bare exchange.
fn long_read(round_trip: Duration) {
    let (bytes, rounds, connections) = match round_trip {
        Duration::ZERO => (MIB / 16, ROUNDS_ON_LOOPBACK, CONNECTIONS_ON_LOOPBACK),
        short if short < Duration::from_millis(1) => (MIB, ROUNDS, 1),
        _ => (MIB / 8, ROUNDS, 1),
    };
    // Alternating, so that a machine whose speed drifts slows down both alike; the median, so that a round in which it did
    // something else does not count.
    let (mut shares, mut times, mut requests) = (Vec::new(), Vec::new(), 0);
    for _ in 0..connections {
        let live = Live::start(Faults { round_trip, ..Faults::default() });
        live.session.break_in(PATIENCE).expect("the simulated target stops");
        let log = live.pool_log();
        for _ in 0..rounds {
            let (own, count) = read(&live, log, bytes);
            requests += count;
            let bare = bare_exchange(round_trip, count as usize);
            shares.push(100.0 * bare.as_secs_f64() / own.as_secs_f64());
            times.push(own / u32::try_from(count).expect("some thousands"));
        }
    }
    let rounds = rounds * connections;
    shares.sort_by(f64::total_cmp);
    times.sort();
    println!(
        "{:<32} {:>8} {:>10} {:>12} {:>11.0}% ({:.0} to {:.0})",
        format!("{} KiB of pool log", bytes / 1024),
        show(round_trip),
        requests / rounds as u64,
        show(times[rounds / 2]),
        shares[rounds / 2],
        shares[rounds / 10],
        shares[rounds - 1 - rounds / 10]
    );
}

/// What loss costs a stop: until the prompt, a search of the log, a driver's allocations, a long read; of several losses each
/// the median and the worst.
fn loss(round_trip: Duration) {
    for loss in [0.0, 0.01, 0.05] {
        let mut times: [Vec<Duration>; 4] = Default::default();
        for seed in 0..SEEDS {
            let live = Live::start(Faults { round_trip, loss, seed, ..Faults::default() });
            let writer = Writer::new(Transcript::default(), Transcript::default());
            let debugger = Debugger::new(Arc::clone(&live.session), live.symbol_path(), PATIENCE);
            let mut shell = Shell::new(debugger, live.session.watcher(), Report::new(Format::Text, writer));
            let mut took = |number: usize, act: &mut dyn FnMut()| {
                let start = Instant::now();
                act();
                times[number].push(start.elapsed());
            };
            took(0, &mut || shell.break_in().expect("the simulated target stops"));
            took(1, &mut || {
                let _ = shell.run("!verifier 80 fffffa8005400000");
            });
            took(2, &mut || {
                let _ = shell.run("!verifier 3 myfault.sys");
            });
            let log = live.pool_log();
            took(3, &mut || {
                let _ = read(&live, log, MIB / 4);
            });
        }
        for times in &mut times {
            times.sort();
        }
        let shown =
            times.map(|times| format!("{} ({})", show(times[times.len() / 2]), show(times[times.len() - 1])));
        println!(
            "{:<8} {:>24} {:>24} {:>24} {:>24}",
            format!("{:.0} %", loss * 100.0),
            shown[0],
            shown[1],
            shown[2],
            shown[3]
        );
    }
}

fn read(live: &Live, at: VirtAddr, bytes: usize) -> (Duration, u64) {
    let memory = live.session.memory();
    let before = live.session.counters().requests;
    let start = Instant::now();
    let mut piece = vec![0; 0x1_0000];
    for offset in (0..bytes).step_by(piece.len()) {
        memory.read_virtual(at.offset(offset as u64), &mut piece).expect("the log is mapped");
    }
    (start.elapsed(), live.session.counters().requests - before)
}

/// The time of `count` exchanges with nothing but cryptography and two sockets.
fn bare_exchange(round_trip: Duration, count: usize) -> Duration {
    let cipher = key().data_cipher(b"a response");
    let target = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has ports");
    let host = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has ports");
    let (to_target, to_host) = (target.local_addr().expect("bound"), host.local_addr().expect("bound"));
    let responder = {
        let cipher = cipher.clone();
        std::thread::spawn(move || respond(&target, to_host, &cipher, round_trip, count))
    };
    let request = kd(Packet::data(PacketType::STATE_MANIPULATE, PacketId(0), read_request().encode()));
    let acknowledgement = kd(Packet::control(PacketType::ACKNOWLEDGE, PacketId(0)));
    let mut buf = [0; 2048];
    let start = Instant::now();
    for _ in 0..count {
        host.send_to(&seal(&cipher, Direction::HostToTarget, &request), to_target).expect("loopback sends");
        for _ in 0..2 {
            receive(&host, &mut buf, &cipher);
        }
        host.send_to(&seal(&cipher, Direction::HostToTarget, &acknowledgement), to_target)
            .expect("loopback sends");
    }
    let elapsed = start.elapsed();
    responder.join().expect("the responder ends");
    elapsed
}

fn respond(socket: &UdpSocket, host: SocketAddr, cipher: &Cipher, round_trip: Duration, count: usize) {
    let reply = read_request().reply(NtStatus::SUCCESS, Bytes::from(vec![0x5a; REPLY]));
    let reply = kd(Packet::data(PacketType::STATE_MANIPULATE, PacketId(0), reply.encode()));
    let acknowledgement = kd(Packet::control(PacketType::ACKNOWLEDGE, PacketId(0)));
    let mut buf = [0; 2048];
    for _ in 0..count {
        receive(socket, &mut buf, cipher);
        let arrived = Instant::now();
        while arrived.elapsed() < round_trip {
            std::thread::yield_now();
        }
        for content in [&acknowledgement, &reply] {
            socket.send_to(&seal(cipher, Direction::TargetToHost, content), host).expect("loopback sends");
        }
        receive(socket, &mut buf, cipher);
    }
}

fn receive(socket: &UdpSocket, buf: &mut [u8], cipher: &Cipher) {
    let (len, _) = socket.recv_from(buf).expect("loopback delivers");
    let datagram = Envelope::parse(&buf[..len]).and_then(|it| it.open(cipher)).expect("our own datagram");
    std::hint::black_box(Content::decode(&datagram).expect("our own content"));
}

fn seal(cipher: &Cipher, direction: Direction, content: &Content) -> Vec<u8> {
    Datagram { version: 5, flags: Flags::empty(), direction, sequence: 1, body: content.encode() }
        .seal(cipher)
}

const fn kd(packet: Packet) -> Content {
    Content::Kd(packet)
}

fn read_request() -> Manipulate {
    Manipulate::read_virtual(VirtAddr(0xffff_fa80_0000_0000), REPLY as u32)
}

fn key() -> Key {
    "1.2.3.4".parse().expect("a valid key")
}

fn show(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

struct Live {
    session: Arc<Session>,
    _target: Simulator,
    symbols: tempfile::TempDir,
}

impl Live {
    fn start(faults: Faults) -> Self {
        Self::of(&WINDOWS_7_SP1, Scenario::Myfault, faults)
    }

    fn of(build: &'static Build, scenario: Scenario, faults: Faults) -> Self {
        let symbols = tempfile::tempdir().expect("a temporary folder");
        export_symbols(build, symbols.path()).expect("its files are written");
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let session =
            Arc::new(Session::open(&SessionConfig::new(listen, key())).expect("loopback has ports"));
        let config = SimulatorConfig {
            build,
            scenario,
            faults,
            ..SimulatorConfig::new(session.listens_at().unwrap(), key())
        };
        let target = Simulator::start(config).expect("the simulated target starts");
        session.wait_for_target(Some(PATIENCE)).expect("it connects");
        Self { session, _target: target, symbols }
    }

    fn symbol_path(&self) -> SymbolPath {
        SymbolPath::parse(&self.symbols.path().to_string_lossy())
    }

    fn pool_log(&self) -> VirtAddr {
        let base = self.session.get_version().expect("it says who it is").kern_base;
        let kernel = Kernel::new(KernelVersion { base, ..KernelVersion::default() }, self.symbol_path());
        let memory = self.session.memory();
        let pointer =
            Target::new(&memory, &kernel).address_of("nt!VfPoolTraces").expect("its symbols are at hand");
        let mut word = [0; 8];
        memory.read_virtual(pointer, &mut word).expect("a variable is mapped");
        VirtAddr(u64::from_le_bytes(word))
    }
}
