//! `verikd doctor`: each thing that can be the matter is told from every other, over real sockets, and nothing is disturbed.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::program::{Finished, Setup, verikd};
use bytes::{Bytes, BytesMut};
use kd_protocol::kd::{Packet, PacketId, PacketType};
use kd_protocol::kdcom;
use kd_protocol::kdnet::{Control, Datagram, Direction, Endpoint, Flags, Key, Offer, TargetRandom};
use kd_protocol::link::{Entropy, TargetConfig, TargetLink};
use serde_json::Value;
use verikd_sim::{Simulator, SimulatorConfig, SimulatorEvent};

const KEY: &str = "1.2.3.4";
const MAX_DATAGRAM: usize = 65_536;

/// What doctor says of a KDNET port: its exit code and its object.
fn doctor(port: u16, options: &[&str]) -> (i32, Value) {
    doctor_of(&format!("net:port={port},key={KEY}"), options)
}

fn doctor_of(connection: &str, options: &[&str]) -> (i32, Value) {
    let Finished { code, out, err } = verikd(&[&["doctor", "--json", "-k", connection], options].concat());
    let object: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"));
    assert_eq!(object["exit_code"], code, "{object}");
    assert!(object["what_to_do"].as_str().is_some_and(|it| !it.is_empty()), "{object}");
    (code, object)
}

fn free_port() -> u16 {
    Setup::new().port
}

/// Sends to `port` until it is dropped, what `next` makes; knows what came back.
struct Talker {
    ends: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<usize>>,
}

impl Talker {
    fn start(port: u16, mut next: impl FnMut(u64) -> Vec<u8> + Send + 'static) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
        let ends = Arc::new(AtomicBool::new(false));
        let has_ended = Arc::clone(&ends);
        let thread = std::thread::spawn(move || {
            let mut heard = 0;
            for number in 1.. {
                if has_ended.load(Ordering::Relaxed) {
                    break;
                }
                let _ = socket.send_to(&next(number), (Ipv4Addr::LOCALHOST, port));
                heard += usize::from(socket.recv_from(&mut [0; MAX_DATAGRAM]).is_ok());
            }
            heard
        });
        Self { ends, thread: Some(thread) }
    }

    /// How many datagrams came back.
    fn heard(mut self) -> usize {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

fn seal(number: u64, body: Bytes) -> Vec<u8> {
    let key: Key = KEY.parse().unwrap();
    let direction = Direction::TargetToHost;
    let datagram = Datagram { version: 6, flags: Flags::CONTROL, direction, sequence: 3 * number, body };
    datagram.seal(&key.control_cipher())
}

fn offer(number: u64, connected_host: Endpoint) -> Vec<u8> {
    let offer = Offer {
        target_random: TargetRandom { counter: number, boot: [7; 24] },
        target: "192.0.2.7:50000".parse::<SocketAddr>().unwrap().into(),
        configured_host: "192.0.2.10:50000".parse::<SocketAddr>().unwrap().into(),
        connected_host,
        host_connection_info: Box::new([0; 256]),
    };
    seal(number, Control::Offer(offer).encode())
}

#[test]
fn a_port_in_use_names_who_uses_it() {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let (code, object) = doctor(socket.local_addr().unwrap().port(), &["--for", "1s"]);
    assert_eq!((code, &object["finding"]), (10, &"port-in-use".into()));
    if cfg!(target_os = "linux") {
        let by = object["by"].as_str().unwrap();
        assert!(by.contains(&format!("(process {})", std::process::id())), "{by}");
    }
}

#[test]
fn an_address_of_another_machine_cannot_be_listened_at() {
    let (code, object) = doctor_of(&format!("net:port={},key={KEY},hostip=192.0.2.1", free_port()), &[]);
    assert_eq!((code, &object["finding"]), (11, &"cannot-listen".into()));
}

#[test]
fn silence_gives_the_lines_to_copy_and_not_the_key() {
    let secret = "7hidden.9.3.4";
    let port = free_port();
    let connection = format!("net:port={port},key={secret}");
    let Finished { code, out, err } = verikd(&["doctor", "-k", &connection, "--for", "300ms"]);
    assert_eq!(code, 12);
    assert!(
        out.contains("bcdedit /dbgsettings net hostip:") && out.contains(&format!("port:{port} key:W.X.Y.Z"))
    );
    assert!(out.contains("hv-vendor-id=KVMKVMKVM"), "{out}");
    assert!(err.contains("no machine is stopped"), "{err}");
    assert!(!out.contains("hidden") && !err.contains("hidden"));
}

#[test]
fn datagrams_that_are_not_kdnet_are_counted() {
    let port = free_port();
    let _talker = Talker::start(port, |_| b"statsd:1|c".to_vec());
    let (code, object) = doctor(port, &["--for", "500ms"]);
    assert_eq!((code, &object["finding"]), (14, &"not-kdnet".into()));
    assert!(object["count"].as_u64().is_some_and(|it| it > 1), "{object}");
}

#[test]
fn strangers_to_a_named_target_are_told() {
    let port = free_port();
    let _talker = Talker::start(port, |number| offer(number, Endpoint::NONE));
    let connection = format!("net:port={port},key={KEY},target=192.0.2.7");
    let (code, object) = doctor_of(&connection, &["--for", "500ms"]);
    assert_eq!((code, &object["finding"]), (13, &"not-from-target".into()));
}

#[test]
fn another_key_is_told() {
    let port = free_port();
    let _talker = Talker::start(port, |number| offer(number, Endpoint::NONE));
    let (code, object) = doctor_of(&format!("net:port={port},key=5.6.7.8"), &["--for", "500ms"]);
    assert_eq!((code, &object["finding"]), (15, &"other-key".into()));
}

#[test]
fn another_dialect_is_told_with_version_and_length() {
    let port = free_port();
    let _talker = Talker::start(port, |number| {
        let mut body = vec![0; 700];
        body[..2].copy_from_slice(&[1, 1]);
        seal(number, body.into())
    });
    let (code, object) = doctor(port, &["--for", "500ms"]);
    assert_eq!((code, &object["finding"]), (16, &"other-dialect".into()));
    assert_eq!((&object["version"], &object["length"]), (&6.into(), &700.into()));
}

#[test]
fn another_debugger_s_target_is_told_and_left_alone() {
    let port = free_port();
    let other: SocketAddr = "192.0.2.99:50000".parse().unwrap();
    let talker = Talker::start(port, move |number| offer(number, other.into()));
    let (code, object) = doctor(port, &["--for", "700ms"]);
    assert_eq!((code, &object["finding"]), (17, &"other-debugger".into()));
    assert_eq!(object["debugger"], "192.0.2.99:50000");
    assert_eq!(talker.heard(), 0, "answering would take the target from its debugger");
}

#[test]
fn offers_whose_answers_lead_to_nothing_are_told() {
    let port = free_port();
    let talker = Talker::start(port, |number| offer(number, Endpoint::NONE));
    let (code, object) = doctor(port, &["--for", "700ms"]);
    assert_eq!((code, &object["finding"]), (18, &"no-reaction".into()));
    assert!(object["answers"].as_u64().is_some_and(|it| it > 0), "{object}");
    assert!(talker.heard() > 0);
}

#[test]
fn a_target_that_connects_is_not_stopped_unless_that_is_wanted() {
    let setup = Setup::new();
    let mut target = setup.target(&[]);
    let start = Instant::now();
    let (code, object) = doctor(setup.port, &["--for", "60s"]);
    assert_eq!(
        (code, &object["finding"], &object["is_stopped"]),
        (0, &"connected".into(), &false.into()),
        "{object}"
    );
    assert!(start.elapsed() < Duration::from_secs(50), "it ends once the target has connected");
    let (code, object) = doctor(setup.port, &["--for", "20s", "--break-in"]);
    assert_eq!((code, &object["finding"]), (0, &"works".into()), "{object}");
    let before = target.seen_before("Stopped");
    assert!(!before.iter().any(|line| line.contains("Runs on")), "it was never stopped before: {before:?}");
    target.wait_for("Runs on");
}

#[test]
fn a_target_that_ignores_a_break_in_is_told() {
    let port = free_port();
    let deaf = Deaf::start(port);
    let (code, object) = doctor(port, &["--for", "4s", "--break-in"]);
    assert_eq!((code, &object["finding"]), (19, &"no-break-in".into()), "{object}");
    drop(deaf);
}

/// A target that connects and obeys nothing.
struct Deaf(Arc<AtomicBool>);

impl Deaf {
    fn start(port: u16) -> Self {
        struct Counting(u8);
        impl Entropy for Counting {
            fn fill(&mut self, buf: &mut [u8]) {
                self.0 += 1;
                buf.fill(self.0);
            }
        }
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let config = TargetConfig {
            key: KEY.parse().unwrap(),
            version: 5,
            address: socket.local_addr().unwrap(),
            host: (Ipv4Addr::LOCALHOST, port).into(),
        };
        let ends = Arc::new(AtomicBool::new(false));
        let has_ended = Arc::clone(&ends);
        std::thread::spawn(move || {
            let mut link = TargetLink::new(Instant::now(), config, Box::new(Counting(0)));
            let (mut buffer, mut out) = (vec![0; MAX_DATAGRAM], BytesMut::new());
            while !has_ended.load(Ordering::Relaxed) {
                while let Some(to) = link.poll_transmit(&mut out) {
                    let _ = socket.send_to(&out, to);
                }
                while link.poll_event().is_some() {}
                if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                    let _ = link.handle_datagram(Instant::now(), from, &buffer[..len]);
                }
                link.handle_timeout(Instant::now());
            }
        });
        Self(ends)
    }
}

impl Drop for Deaf {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_machine_that_does_not_say_that_it_runs_again_is_told_loudly() {
    let port = free_port();
    let relay = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    relay.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let config = SimulatorConfig::new(relay.local_addr().unwrap(), KEY.parse().unwrap());
    let simulator = Simulator::start(config).unwrap();
    let target_port = simulator.address().unwrap().port();
    let ends = Arc::new(AtomicBool::new(false));
    let has_ended = Arc::clone(&ends);
    // Once the machine stands still, nothing reaches it any more.
    let thread = std::thread::spawn(move || {
        let (mut buffer, mut is_stopped) = (vec![0; MAX_DATAGRAM], false);
        while !has_ended.load(Ordering::Relaxed) {
            while let Some(event) = simulator.next_event(Some(Duration::ZERO)) {
                is_stopped |= event == SimulatorEvent::Stopped;
            }
            let Ok((len, from)) = relay.recv_from(&mut buffer) else { continue };
            let to = match from.port() == target_port {
                true => port,
                false if is_stopped => continue,
                false => target_port,
            };
            let _ = relay.send_to(&buffer[..len], (Ipv4Addr::LOCALHOST, to));
        }
        assert!(!simulator.is_running(), "the machine stands still indeed");
    });
    let (code, object) = doctor(port, &["--for", "4s", "--break-in"]);
    ends.store(true, Ordering::Relaxed);
    thread.join().unwrap();
    assert_eq!((code, &object["finding"]), (20, &"left-stopped".into()), "{object}");
    assert!(object["text"].as_str().unwrap().contains("MAY STAND STILL"), "{object}");
}

/// A line behind a TCP port on which `talk` says everything once; what came from doctor.
fn line(talk: &'static [u8]) -> (String, std::thread::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let connection = format!("com:ipport={},port=127.0.0.1", listener.local_addr().unwrap().port());
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(talk).unwrap();
        let mut heard = Vec::new();
        // The end of a connection may be an error too.
        let _ = stream.read_to_end(&mut heard);
        heard
    });
    (connection, thread)
}

fn finding_on(talk: &'static [u8]) -> (i32, Value, Vec<u8>) {
    let (connection, thread) = line(talk);
    let (code, object) = doctor_of(&connection, &["--for", "400ms"]);
    (code, object, thread.join().unwrap())
}

#[test]
fn a_line_that_is_not_there_is_told_with_advice_that_fits() {
    let (code, object) = doctor_of("com:pipe,port=/no/such.sock", &["--for", "300ms"]);
    assert_eq!((code, &object["finding"]), (30, &"no-line".into()));
    if cfg!(unix) {
        assert!(object["advice"][0].as_str().unwrap().contains("-serial unix:/no/such.sock"), "{object}");
    }
}

#[test]
fn a_silent_line_is_asked_once_and_not_broken_into() {
    let (code, object, heard) = finding_on(b"");
    assert_eq!((code, &object["finding"]), (31, &"silent-line".into()));
    assert!(object["what_to_do"].as_str().unwrap().contains("--break-in"), "{object}");
    assert_eq!(heard, b"iiii\x06\0\0\0\0\0\0\0\0\0\0\0", "one RESET");
}

#[test]
fn a_target_that_stands_still_answers_and_is_told() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let connection = format!("com:ipport={},port=127.0.0.1", listener.local_addr().unwrap().port());
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 16]).unwrap();
        let stop = Packet::data(PacketType::STATE_CHANGE64, PacketId(0x8080_0800), vec![0; 240].into());
        let mut bytes = BytesMut::new();
        kdcom::encode(&stop, &mut bytes);
        stream.write_all(&bytes).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let (code, object) = doctor_of(&connection, &["--for", "10s"]);
    thread.join().unwrap();
    assert_eq!((code, &object["is_stopped"]), (0, &true.into()), "{object}");
}

#[test]
fn a_console_is_shown_as_it_speaks() {
    let (code, object, _) = finding_on(b"\r\nDebian GNU/Linux 12 vm ttyS0\r\n\r\nvm login: ");
    assert_eq!((code, &object["finding"]), (34, &"console".into()));
    assert!(object["tail"].as_str().unwrap().ends_with("vm login: "), "{object}");
}

#[test]
fn bytes_that_are_nothing_are_told() {
    let (code, object, _) = finding_on(&[0xff, 0, 0xfe, 0x80, 0, 0, 0xe0, 0x1c, 0, 0xff, 0xfe, 0, 0x9c]);
    assert_eq!((code, &object["finding"]), (35, &"not-kd".into()));
}

#[test]
fn damaged_packets_are_told_as_a_noisy_line() {
    const DAMAGED: &[u8] = b"0000\x03\x00\x04\x00\x00\x08\x80\x80\x00\x01\x00\x00text\xaa";
    let (code, object, _) = finding_on(DAMAGED);
    assert_eq!((code, &object["finding"]), (32, &"noisy-line".into()), "{object}");
}

#[test]
fn packets_are_heard_without_a_word() {
    // "text" sums up to 0x1c5.
    const PACKET: &[u8] = b"0000\x03\x00\x04\x00\x00\x08\x80\x80\xc5\x01\x00\x00text\xaa";
    let (code, object, heard) = finding_on(PACKET);
    assert_eq!((code, &object["finding"]), (0, &"connected".into()), "{object}");
    assert_eq!(heard, b"", "nothing is sent to a target that talks");
}

#[test]
#[cfg(unix)]
fn a_serial_target_is_stopped_and_let_run_when_that_is_wanted() {
    let setup = Setup::new();
    let path = setup.folder.path().join("vm.sock").display().to_string();
    let mut target = setup.serial_target(&format!("unix:{path}"), &[]);
    let connection = format!("com:pipe,port={path}");
    let (code, object) = doctor_of(&connection, &["--for", "600ms"]);
    assert_eq!((code, &object["finding"]), (31, &"silent-line".into()), "{object}");
    let (code, object) = doctor_of(&connection, &["--for", "15s", "--break-in"]);
    assert_eq!((code, &object["finding"]), (0, &"works".into()), "{object}");
    let before = target.seen_before("Stopped");
    assert!(!before.iter().any(|line| line.contains("Runs on")), "it was never stopped before: {before:?}");
    target.wait_for("Runs on");
}

/// A pseudoterminal has no speed of its own, so that its other end speaks sense only while it is set to 9600 baud.
#[test]
#[cfg(target_os = "linux")]
fn a_device_at_another_speed_is_found_by_listening() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let path = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    // Kept open, since the master fails while nobody has the other side; raw, since a terminal echoes.
    let slave = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut attributes = tcgetattr(&slave).unwrap();
    attributes.make_raw();
    tcsetattr(&slave, OptionalActions::Now, &attributes).unwrap();
    let ends = Arc::new(AtomicBool::new(false));
    let has_ended = Arc::clone(&ends);
    let thread = std::thread::spawn(move || {
        let mut file = std::fs::File::from(master);
        while !has_ended.load(Ordering::Relaxed) {
            let speed = tcgetattr(&file).unwrap().output_speed();
            let bytes: &[u8] =
                if speed == 9600 { b"vm login: \r\n" } else { &[0xff, 0, 0xe0, 0x80, 0, 0xfe] };
            let _ = (&file).write_all(bytes);
            std::thread::park_timeout(Duration::from_millis(10));
        }
        // What would have been sent to the device is there; a byte behind it ends the wait if nothing was.
        (&slave).write_all(b"!").unwrap();
        let mut sent = [0; 64];
        let len = file.read(&mut sent).unwrap();
        sent[..len].to_vec()
    });
    let (code, object) = doctor_of(&format!("com:port={path},baud=115200"), &["--for", "6s"]);
    ends.store(true, Ordering::Relaxed);
    thread.join().unwrap();
    assert_eq!(
        (code, &object["finding"], &object["baud"]),
        (33, &"other-speed".into(), &9600.into()),
        "{object}"
    );
    assert_eq!(object["heard"], "text");
}

#[test]
fn a_command_line_that_is_not_understood_is_exit_code_2() {
    assert_eq!(verikd(&["doctor"]).code, 2);
    assert_eq!(verikd(&["doctor", "-k", "net:port=1"]).code, 2);
    assert_eq!(verikd(&["doctor", "-k", "usb:targetname=x"]).code, 2);
}
