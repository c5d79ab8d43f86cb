//! Makes captures of the protocol crate's vectors, in every container and link type that verikd reads.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use etherparse::{LinuxSllPacketType, PacketBuilder, VlanId};
use serde_json::Value;

pub(crate) const ETHERNET: u32 = 1;
pub(crate) const MICROSECONDS: u32 = 0xa1b2_c3d4;
pub(crate) const NANOSECONDS: u32 = 0xa1b2_3c4d;

/// The two sides of the vectors' session A, as they were in the capture.
pub(crate) const TARGET: &str = "192.168.2.72:51111";
pub(crate) const HOST: &str = "192.168.2.1:51111";

/// Real datagrams, by name.
pub(crate) struct Vectors(Value);

impl Vectors {
    pub(crate) fn load() -> Self {
        let text = include_str!("../../../protocol/tests/vectors/kdnet.json");
        Self(serde_json::from_str(text).expect("the committed vectors parse"))
    }

    /// The datagram's bytes, and whether the host sent it.
    pub(crate) fn datagram(&self, name: &str) -> (Vec<u8>, bool) {
        let all = self.0["datagrams"].as_array().expect("a list of datagrams");
        let vector = all.iter().find(|it| it["name"] == name).expect("a known vector");
        let digits = vector["raw_udp_payload"].as_str().expect("hexadecimal digits").as_bytes();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        (digits.chunks(2).map(byte).collect(), vector["direction"] == "host_to_target")
    }

    /// Payloads of those names, each in a frame that `wrap` makes of source, destination and payload.
    pub(crate) fn frames(
        &self,
        names: &[&str],
        wrap: impl Fn(SocketAddr, SocketAddr, &[u8]) -> Vec<u8>,
    ) -> Vec<Vec<u8>> {
        let (target, host) = (TARGET.parse().unwrap(), HOST.parse().unwrap());
        let frame = |name: &&str| match self.datagram(name) {
            (payload, true) => wrap(host, target, &payload),
            (payload, false) => wrap(target, host, &payload),
        };
        names.iter().map(frame).collect()
    }
}

/// The beginning of session A.
pub(crate) const SESSION_A: &[&str] = &[
    "A.offer_initial",
    "A.response",
    "A.ping",
    "A.print_string",
    "A.host_resend",
    "A.host_ack",
    "A.load_symbols",
    "A.get_version_request",
    "A.target_ack",
    "A.get_version_reply",
    "A.read_virtual_bad_request",
    "A.read_virtual_bad_reply",
];

/// Session B, broken into.
pub(crate) const SESSION_B: &[&str] = &[
    "B.offer_already_connected",
    "B.response",
    "B.ping",
    "B.host_resend",
    "B.breakin",
    "B.exception_breakin",
];

const MACS: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
const TTL: u8 = 16;

macro_rules! ip_udp {
    ($builder:expr, $source:expr, $destination:expr, $payload:expr) => {{
        let builder = $builder;
        let builder = match ($source.ip(), $destination.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => builder.ipv4(from.octets(), to.octets(), TTL),
            (IpAddr::V6(from), IpAddr::V6(to)) => builder.ipv6(from.octets(), to.octets(), TTL),
            _ => panic!("both ends have the same kind of address"),
        };
        let builder = builder.udp($source.port(), $destination.port());
        let mut frame = Vec::new();
        builder.write(&mut frame, $payload).expect("the payload fits UDP");
        frame
    }};
}

pub(crate) fn ethernet(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    ip_udp!(PacketBuilder::ethernet2(MACS.0, MACS.1), source, destination, payload)
}

pub(crate) fn vlan(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let id = VlanId::try_new(42).unwrap();
    ip_udp!(PacketBuilder::ethernet2(MACS.0, MACS.1).single_vlan(id), source, destination, payload)
}

pub(crate) fn linux_sll(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::linux_sll(LinuxSllPacketType::OUTGOING, 6, [2, 0, 0, 0, 0, 1, 0, 0]);
    ip_udp!(builder, source, destination, payload)
}

/// Without a link layer.
pub(crate) fn raw(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    ethernet(source, destination, payload).split_off(14)
}

/// Linux cooked 2: protocol, reserved, interface, hardware type, packet type, address length, address.
pub(crate) fn linux_sll2(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let ether_type: [u8; 2] = if source.is_ipv4() { [8, 0] } else { [0x86, 0xdd] };
    let rest = [0, 0, 0, 0, 0, 3, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0];
    [&ether_type[..], &rest, &raw(source, destination, payload)].concat()
}

/// BSD loopback, of a little-endian machine.
pub(crate) fn null(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let family = if source.is_ipv4() { 2 } else { 30 };
    [&[family, 0, 0, 0], &raw(source, destination, payload)[..]].concat()
}

/// A pcap file with a frame every 1.5 milliseconds; `magic` says the unit of its times.
pub(crate) fn pcap(big_endian: bool, magic: u32, link_type: u32, frames: &[Vec<u8>]) -> Vec<u8> {
    let u32_of = |value: u32| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let version = if big_endian { [0, 2, 0, 4] } else { [2, 0, 4, 0] };
    let mut out = Vec::new();
    out.extend(u32_of(magic));
    out.extend(version);
    for field in [0, 0, 0x4_0000, link_type] {
        out.extend(u32_of(field));
    }
    let per_frame = if magic == NANOSECONDS { 1_500_001 } else { 1500 };
    for (index, frame) in (0..).zip(frames) {
        let len = u32::try_from(frame.len()).unwrap();
        for field in [1_600_000_000, index * per_frame, len, len] {
            out.extend(u32_of(field));
        }
        out.extend(frame);
    }
    out
}

/// A pcapng file, as blocks are appended to it.
pub(crate) struct PcapNg(pub(crate) Vec<u8>);

impl PcapNg {
    pub(crate) fn new() -> Self {
        let mut file = Self(Vec::new());
        // Byte order mark, version 1.0, unknown section length.
        file.block(0x0a0d_0d0a, &[&0x1a2b_3c4d_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat());
        file
    }

    /// An interface; its times count 10^-`resolution` seconds.
    pub(crate) fn interface(&mut self, link_type: u16, resolution: u8) {
        let [low, high] = link_type.to_le_bytes();
        self.block(1, &[low, high, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0, resolution, 0, 0, 0, 0, 0, 0, 0]);
    }

    pub(crate) fn packet(&mut self, interface: u32, time: u64, frame: &[u8]) {
        let len = u32::try_from(frame.len()).unwrap();
        let (high, low) = (u32::try_from(time >> 32).unwrap(), time as u32);
        let fields: Vec<u8> =
            [interface, high, low, len, len].iter().flat_map(|it| it.to_le_bytes()).collect();
        self.block(6, &[&fields, frame].concat());
    }

    /// A packet without a time, of the first interface.
    pub(crate) fn simple_packet(&mut self, frame: &[u8]) {
        let len = u32::try_from(frame.len()).unwrap();
        self.block(3, &[&len.to_le_bytes(), frame].concat());
    }

    pub(crate) fn block(&mut self, block_type: u32, content: &[u8]) {
        let padded = content.len().next_multiple_of(4);
        let len = u32::try_from(padded + 12).unwrap();
        self.0.extend(block_type.to_le_bytes());
        self.0.extend(len.to_le_bytes());
        self.0.extend(content);
        self.0.resize(self.0.len() + padded - content.len(), 0);
        self.0.extend(len.to_le_bytes());
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The committed captures, by file name.
pub(crate) fn committed() -> Vec<(&'static str, Vec<u8>)> {
    let vectors = Vectors::load();
    vec![
        ("session-a.pcap", pcap(false, MICROSECONDS, ETHERNET, &vectors.frames(SESSION_A, ethernet))),
        ("session-b-vlan-be-ns.pcap", pcap(true, NANOSECONDS, ETHERNET, &vectors.frames(SESSION_B, vlan))),
        ("two-keys.pcapng", two_keys(&vectors)),
        ("late.pcapng.gz", gzip(&late(&vectors))),
    ]
}

/// Session A on one interface, session B (of another key) on another over IPv6, and what else a network carries.
fn two_keys(vectors: &Vectors) -> Vec<u8> {
    let (target, host) = ("[fe80::b]:50000".parse().unwrap(), "[fe80::1]:50000".parse().unwrap());
    let mut file = PcapNg::new();
    file.interface(1, 6);
    file.interface(276, 9);
    file.block(5, &[0; 12]);
    let arp = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &[0; 20]].concat();
    file.packet(0, 1_600_000_000_000_000, &arp);
    let dns = ethernet("10.0.0.1:53".parse().unwrap(), "10.0.0.2:4444".parse().unwrap(), b"not KDNET at all");
    file.packet(0, 1_600_000_000_000_100, &dns);
    let a = vectors.frames(&SESSION_A[..4], ethernet);
    let b = vectors.frames(SESSION_B, |source, _, payload| match source.to_string().as_str() {
        TARGET => linux_sll2(target, host, payload),
        _ => linux_sll2(host, target, payload),
    });
    for (index, frame) in (0_u64..).zip(&b) {
        file.packet(1, 1_600_000_000_500_000_000 + index * 1_000_001, frame);
        if let Some(frame) = a.get(index as usize) {
            file.packet(0, 1_600_000_000_500_001 + index * 1000, frame);
        }
    }
    file.simple_packet(&vectors.frames(&["A.host_resend"], ethernet)[0]);
    file.0
}

/// Begins inside session A, whose handshake follows; then a datagram of it again.
fn late(vectors: &Vectors) -> Vec<u8> {
    let names = ["A.host_ack", "A.load_symbols", "A.offer_initial", "A.response", "A.host_ack", "A.host_ack"];
    let mut file = PcapNg::new();
    file.interface(113, 6);
    for (index, frame) in (0..).zip(vectors.frames(&names, linux_sll)) {
        file.packet(0, 1_600_000_000_000_000 + index * 250, &frame);
    }
    file.0
}
