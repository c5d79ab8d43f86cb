//! From a captured frame to the UDP datagram in it: link types, VLAN tags, IPv4 and IPv6.
//!
//! The headers are `etherparse`'s part; this names the link types that captures of a debugging link have. Never
//! fails: a frame without a UDP datagram says what it is instead.

use std::net::{IpAddr, SocketAddr};

use etherparse::{EtherType, IpNumber, LaxNetSlice, LaxSlicedPacket, TransportSlice};
use pcap_parser::Linktype;

/// What a frame carries.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Carried<'a> {
    /// A UDP datagram.
    Udp(Udp<'a>),
    /// A piece of a UDP datagram that IP took apart. KDNET forbids that to its datagrams.
    Fragment,
    /// Something else.
    Other,
    /// Unknown: frames of this link type are not read.
    UnknownLinkType,
}

/// A UDP datagram.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Udp<'a> {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) payload: &'a [u8],
    /// The capture kept only the first bytes of it.
    pub(super) is_cut: bool,
}

/// What `frame` carries, if its first bytes are of `link_type`.
///
/// | link type            | before the IP header                                       |
/// |----------------------|------------------------------------------------------------|
/// | Ethernet             | 14 bytes, VLAN tags                                        |
/// | Linux cooked (SLL)   | 16 bytes, of which the last two are an EtherType           |
/// | Linux cooked 2       | 20 bytes, of which the first two are an EtherType          |
/// | null, loop           | 4 bytes: an address family in whichever byte order         |
/// | raw, IPv4, IPv6      | nothing                                                    |
///
/// Source: the list of link types at tcpdump.org.
pub(super) fn carried(link_type: Linktype, frame: &[u8]) -> Carried<'_> {
    /// `DLT_RAW` of BSD and of OpenBSD, written by some programs instead of `LINKTYPE_RAW`.
    const RAW_OF_BSD: [Linktype; 2] = [Linktype(12), Linktype(14)];
    let packet = match link_type {
        Linktype::ETHERNET => LaxSlicedPacket::from_ethernet(frame).ok(),
        Linktype::LINUX_SLL => cooked(frame, 14, 16),
        Linktype::LINUX_SLL2 => cooked(frame, 0, 20),
        Linktype::NULL | Linktype::LOOP => frame.get(4..).and_then(|ip| LaxSlicedPacket::from_ip(ip).ok()),
        Linktype::RAW | Linktype::IPV4 | Linktype::IPV6 => LaxSlicedPacket::from_ip(frame).ok(),
        link_type if RAW_OF_BSD.contains(&link_type) => LaxSlicedPacket::from_ip(frame).ok(),
        _ => return Carried::UnknownLinkType,
    };
    packet.map_or(Carried::Other, |packet| udp_of(&packet))
}

fn cooked(frame: &[u8], ether_type_at: usize, header_len: usize) -> Option<LaxSlicedPacket<'_>> {
    let ether_type = frame.get(ether_type_at..)?.first_chunk().copied().map(u16::from_be_bytes)?;
    Some(LaxSlicedPacket::from_ether_type(EtherType(ether_type), frame.get(header_len..)?))
}

fn udp_of<'a>(packet: &LaxSlicedPacket<'a>) -> Carried<'a> {
    let (source, destination): (IpAddr, IpAddr) = match &packet.net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        _ => return Carried::Other,
    };
    if let Some(TransportSlice::Udp(udp)) = &packet.transport {
        return Carried::Udp(Udp {
            source: SocketAddr::new(source, udp.source_port()),
            destination: SocketAddr::new(destination, udp.destination_port()),
            payload: udp.payload(),
            is_cut: usize::from(udp.length()) > udp.slice().len(),
        });
    }
    match packet.net.as_ref().and_then(LaxNetSlice::ip_payload_ref) {
        Some(payload) if payload.fragmented && payload.ip_number == IpNumber::UDP => Carried::Fragment,
        _ => Carried::Other,
    }
}
