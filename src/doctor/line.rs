//! A serial line: what comes from it, without stopping whoever is at its other end.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use kd_protocol::kd::{Packet, PacketId, PacketType};
use kd_protocol::kdcom::{self, Decoder, Frame};

use super::finding::Finding;
use crate::session::{ComPort, RawLine};

/// Speeds that serial ports of debugged machines have, the usual first.
const SPEEDS: [u32; 8] = [115_200, 57_600, 38_400, 19_200, 9600, 230_400, 460_800, 921_600];
/// What is kept of what came.
const MAX_KEPT: usize = 4096;
/// What a person is shown of it.
const TAIL: usize = 48;
/// So much of a text are letters, digits, signs and line ends.
const TEXT_SHARE: f64 = 0.9;
/// Fewer bytes say nothing about what they are.
const MIN_SAMPLE: usize = 8;
/// One packet in so many may be damaged.
const BEARABLE: u64 = 20;
/// A byte that is answered is answered within this.
const SEND_PATIENCE: Duration = Duration::from_secs(1);

/// What was heard.
#[derive(Debug, Default)]
struct Heard {
    bytes: u64,
    kept: Vec<u8>,
    packets: u64,
    damaged: u64,
    is_stopped: bool,
    ended: Option<String>,
}

pub(super) fn examine(port: &ComPort, time: Duration, break_in: bool) -> (Finding, Vec<String>) {
    let line = port.to_string();
    // Where speeds are to be tried, the given one has half of the time.
    let is_device = matches!(port, ComPort::Device { .. });
    let heard = match listen(port, if is_device { time / 2 } else { time }, has_no_speed(port)) {
        Ok(heard) => heard,
        Err(error) => return (Finding::NoLine { line, why: error.to_string() }, Vec::new()),
    };
    let mut also = Vec::new();
    if let Some(why) = &heard.ended {
        also.push(format!("the line ended: {why}"));
    }
    if heard.bytes > 0 {
        also.push(format!("{} bytes, {} KD packets, {} damaged", heard.bytes, heard.packets, heard.damaged));
    }
    let finding = judge(line.clone(), &heard);
    if break_in && matches!(finding, Finding::SilentLine { .. }) {
        return (finding, also);
    }
    if let (ComPort::Device { path, baud }, Finding::NotKd { .. } | Finding::NoisyLine { .. }) =
        (port, &finding)
        && let Some((baud, found)) = try_speeds(path, *baud, time / 2)
    {
        return (Finding::OtherSpeed { line, baud, heard: found }, also);
    }
    (finding, also)
}

fn judge(line: String, heard: &Heard) -> Finding {
    let tail = || {
        let tail = &heard.kept[heard.kept.len().saturating_sub(TAIL)..];
        String::from_utf8_lossy(tail).escape_default().to_string()
    };
    match heard {
        Heard { bytes: 0, .. } => Finding::SilentLine { line },
        Heard { packets, damaged, .. } if *damaged * BEARABLE > *packets => {
            Finding::NoisyLine { line, packets: *packets, damaged: *damaged }
        }
        Heard { packets: 1.., is_stopped, .. } => {
            Finding::Connected { target: line, version: None, is_stopped: *is_stopped }
        }
        Heard { kept, .. } if is_text(kept) => Finding::Console { line, tail: tail() },
        Heard { bytes, .. } => Finding::NotKd { line, bytes: *bytes, tail: tail() },
    }
}

/// True where nothing is sent at a speed: bytes that arrive at another one than they were sent at are other bytes, and one
/// of them may be the break-in.
fn has_no_speed(port: &ComPort) -> bool {
    match port {
        ComPort::Pipe(_) => true,
        ComPort::Tcp { host, .. } => {
            host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
        }
        ComPort::Device { .. } => false,
    }
}

/// Listens, and if it may, asks once when the first half of the time has passed without a packet.
fn listen(port: &ComPort, time: Duration, may_ask: bool) -> io::Result<Heard> {
    let mut line = RawLine::open(port)?;
    let start = Instant::now();
    let mut heard = Heard::default();
    let mut decoder = Decoder::default();
    let mut has_asked = !may_ask;
    loop {
        let left = time.saturating_sub(start.elapsed());
        let until_asking = (time / 2).saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok(heard);
        }
        if !has_asked && until_asking.is_zero() {
            has_asked = true;
            if heard.packets == 0
                && let Err(error) = line.write(&reset(), SEND_PATIENCE)
            {
                heard.ended = Some(error.to_string());
                return Ok(heard);
            }
        }
        match line.read(if has_asked { left } else { until_asking }) {
            Ok(Some(bytes)) => heard.note(&bytes, &mut decoder),
            Ok(None) => {}
            Err(error) => {
                heard.ended = Some(error.to_string());
                return Ok(heard);
            }
        }
        if heard.is_stopped || heard.packets >= BEARABLE {
            return Ok(heard);
        }
    }
}

/// What a running target drops, since it waits for a break-in byte only, and a stopped one answers. Source: kd-serial.md,
/// "Packets".
fn reset() -> BytesMut {
    let mut bytes = BytesMut::new();
    kdcom::encode(&Packet::control(PacketType::RESET, PacketId(0)), &mut bytes);
    bytes
}

/// The speed at which what comes makes sense, and what it is then.
fn try_speeds(path: &str, but: u32, time: Duration) -> Option<(u32, &'static str)> {
    let slice = time / SPEEDS.len() as u32;
    for baud in SPEEDS.into_iter().filter(|it| *it != but) {
        let port = ComPort::Device { path: path.to_owned(), baud };
        // A speed that the device does not have is none that the other end has.
        let Ok(heard) = listen(&port, slice, false) else { continue };
        match judge(String::new(), &heard) {
            Finding::Connected { .. } => return Some((baud, "KD packets")),
            Finding::Console { .. } => return Some((baud, "text")),
            _ => {}
        }
    }
    None
}

impl Heard {
    fn note(&mut self, bytes: &[u8], decoder: &mut Decoder) {
        self.bytes += bytes.len() as u64;
        self.kept.extend_from_slice(bytes);
        let surplus = self.kept.len().saturating_sub(MAX_KEPT);
        self.kept.drain(..surplus);
        decoder.push(bytes);
        while let Some(frame) = decoder.poll() {
            match frame {
                Frame::Packet(packet) => {
                    self.packets += 1;
                    self.is_stopped |= packet.packet_type == PacketType::STATE_CHANGE64;
                }
                Frame::Damaged(_) => self.damaged += 1,
                Frame::BreakIn => {}
            }
        }
    }
}

/// True for what a console shows: printable ASCII, line ends and the escape that begins a colour.
fn is_text(bytes: &[u8]) -> bool {
    let is_of_text = |byte: &&u8| byte.is_ascii_graphic() || b" \r\n\t\x1b\x08".contains(byte);
    let of_text = bytes.iter().filter(is_of_text).count();
    bytes.len() >= MIN_SAMPLE && of_text as f64 >= TEXT_SHARE * bytes.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(bytes: &[u8]) -> Heard {
        let mut heard = Heard::default();
        heard.note(bytes, &mut Decoder::default());
        heard
    }

    fn name_of(bytes: &[u8]) -> &'static str {
        judge("line".into(), &heard(bytes)).code().name
    }

    fn packet() -> Vec<u8> {
        let mut bytes = BytesMut::new();
        let packet = Packet::data(PacketType::DEBUG_IO, PacketId(0x8080_0800), b"some text"[..].into());
        kdcom::encode(&packet, &mut bytes);
        bytes.to_vec()
    }

    #[test]
    fn what_comes_is_told_apart() {
        assert_eq!(name_of(b""), "silent-line");
        assert_eq!(name_of(b"Debian GNU/Linux 12 vm ttyS0\r\n\r\nvm login: "), "console");
        assert_eq!(name_of(&packet()), "connected");
        assert_eq!(name_of(&[b"Loading bootmgr ...\r\n", &packet()[..]].concat()), "connected");
        assert_eq!(name_of(&[0xff, 0, 0xfe, 0x80, 0, 0, 0xe0, 0x1c, 0, 0xff, 0xfe, 0, 0]), "not-kd");
        let mut damaged = packet();
        damaged[18] ^= 0x20;
        assert_eq!(name_of(&damaged), "noisy-line");
        assert_eq!(name_of(&packet().repeat(30)), "connected");
    }

    #[test]
    fn what_is_kept_of_a_flood_is_bounded() {
        let mut heard = Heard::default();
        let mut decoder = Decoder::default();
        for _ in 0..1000 {
            heard.note(&[0x55; 4096], &mut decoder);
        }
        assert_eq!((heard.bytes, heard.kept.len()), (4_096_000, MAX_KEPT));
    }

    #[test]
    fn only_a_line_without_a_speed_is_asked() {
        let tcp = |host: &str| has_no_speed(&ComPort::Tcp { host: host.into(), port: 5003 });
        assert!(has_no_speed(&ComPort::Pipe("vm.sock".into())) && tcp("127.0.0.1") && tcp("localhost"));
        assert!(!tcp("192.0.2.7") && !tcp("terminal-server"), "a real line may be behind it");
        assert!(!has_no_speed(&ComPort::Device { path: "/dev/ttyS0".into(), baud: 115_200 }));
    }

    #[test]
    fn what_is_sent_to_ask_holds_no_break_in_byte() {
        assert!(!reset().contains(&b'b'));
    }
}
