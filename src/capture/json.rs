//! A capture as JSON lines; the keys are described at [`crate::capture`].

use std::collections::BTreeMap;
use std::io::{self, Write};

use kd_protocol::kd::{Arm, Packet, Payload};
use kd_protocol::link::Content;
use serde::Serialize;

use super::datagram::{CapturedDatagram, Opened, Order};
use super::summary::{Ending, Summary};
use super::text::{arrow, channel_word, content_text};

#[derive(Serialize)]
struct DatagramLine {
    frame: u64,
    time_ns: Option<i64>,
    source: String,
    destination: String,
    channel: &'static str,
    bytes: usize,
    #[serde(flatten)]
    content: ContentFields,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ContentFields {
    Opened(Box<OpenedFields>),
    Unopened { unopened: String },
}

#[derive(Serialize)]
struct OpenedFields {
    direction: &'static str,
    version: u8,
    flags: u8,
    sequence: u64,
    session: Option<u64>,
    order: &'static str,
    missing: u64,
    retransmission: bool,
    kind: String,
    text: String,
    #[serde(flatten)]
    packet: Option<PacketFields>,
    body: String,
}

#[derive(Default, Serialize)]
#[serde(default)]
pub(super) struct PacketFields {
    packet_type: String,
    packet_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    api: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transferred: Option<u32>,
}

#[derive(Serialize)]
struct SummaryLine<'a> {
    summary: SummaryFields<'a>,
}

#[derive(Serialize)]
struct SummaryFields<'a> {
    frames: u64,
    last_time_ns: i64,
    udp: u64,
    other_udp: u64,
    datagrams: u64,
    authenticated: u64,
    no_session_key: u64,
    cut_handshake: u64,
    not_this_session: u64,
    not_this_key: u64,
    cut_short: u64,
    malformed: u64,
    fragments: u64,
    unread_link_types: &'a BTreeMap<i32, u64>,
    sessions: u64,
    missing: u64,
    late: u64,
    repeated: u64,
    retransmissions: u64,
    /// Where the file is cut off; null if it is complete.
    cut_off_at: Option<u64>,
    census: Vec<CensusFields<'a>>,
}

#[derive(Serialize)]
struct CensusFields<'a> {
    direction: &'static str,
    kind: &'a str,
    count: u64,
    failures: u64,
}

pub(super) fn write_datagram(out: &mut impl Write, captured: &CapturedDatagram) -> io::Result<()> {
    let content = match &captured.content {
        Ok(opened) => ContentFields::Opened(Box::new(opened_fields(opened))),
        Err(reason) => ContentFields::Unopened { unopened: reason.to_string() },
    };
    let line = DatagramLine {
        frame: captured.frame,
        time_ns: captured.time_ns,
        source: captured.source.to_string(),
        destination: captured.destination.to_string(),
        channel: channel_word(captured.channel()),
        bytes: captured.sealed.len(),
        content,
    };
    write_line(out, &line)
}

pub(super) fn write_summary(out: &mut impl Write, summary: &Summary) -> io::Result<()> {
    let census = summary.census.rows().map(|row| CensusFields {
        direction: arrow(row.direction),
        kind: row.kind,
        count: row.count,
        failures: row.failures,
    });
    let fields = SummaryFields {
        frames: summary.frames,
        last_time_ns: summary.last_time_ns,
        udp: summary.udp,
        other_udp: summary.other_udp(),
        datagrams: summary.datagrams,
        authenticated: summary.authenticated,
        no_session_key: summary.unopened.no_session_key,
        cut_handshake: summary.unopened.cut_handshake,
        not_this_session: summary.unopened.not_this_session,
        not_this_key: summary.unopened.not_this_key,
        cut_short: summary.unopened.cut_short,
        malformed: summary.unopened.malformed,
        fragments: summary.fragments,
        unread_link_types: &summary.unread_link_types,
        sessions: summary.sessions,
        missing: summary.missing,
        late: summary.late,
        repeated: summary.repeated,
        retransmissions: summary.retransmissions,
        cut_off_at: match summary.ending {
            Ending::Complete => None,
            Ending::CutOff { offset } => Some(offset),
        },
        census: census.collect(),
    };
    write_line(out, &SummaryLine { summary: fields })
}

pub(super) fn write_line(out: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

fn opened_fields(opened: &Opened) -> OpenedFields {
    let datagram = &opened.datagram;
    let (order, missing) = match opened.order {
        Order::Next => ("next", 0),
        Order::After { missing } => ("after", missing),
        Order::Late => ("late", 0),
        Order::Repeated => ("repeated", 0),
    };
    OpenedFields {
        direction: arrow(datagram.direction),
        version: datagram.version,
        flags: datagram.flags.bits(),
        sequence: datagram.sequence,
        session: opened.session,
        order,
        missing,
        retransmission: opened.is_retransmission,
        kind: opened.kind(),
        text: content_text(opened),
        packet: match &opened.content {
            Ok(Content::Kd(packet)) => Some(packet_fields(packet, !packet.id.is_of_host())),
            _ => None,
        },
        body: hex(&datagram.body),
    }
}

pub(super) fn packet_fields(packet: &Packet, is_reply: bool) -> PacketFields {
    let mut fields = PacketFields {
        packet_type: packet.packet_type.to_string(),
        packet_id: packet.id.to_string(),
        ..PacketFields::default()
    };
    if packet.is_control {
        return fields;
    }
    match Payload::decode(packet) {
        Ok(Payload::Manipulate(manipulate)) => {
            // A request has leftovers where a reply has its status and count.
            fields.api = Some(manipulate.api_number.to_string());
            fields.status = is_reply.then(|| manipulate.return_status.to_string());
            let (address, count, transferred) = match manipulate.arm {
                Arm::ReadMemory(arm) => (arm.target_base_address, arm.transfer_count, arm.actual_bytes_read),
                Arm::WriteMemory(arm) => {
                    (arm.target_base_address, arm.transfer_count, arm.actual_bytes_written)
                }
                _ => return fields,
            };
            fields.address = Some(format!("{address:#018x}"));
            fields.count = Some(count);
            fields.transferred = is_reply.then_some(transferred);
        }
        Ok(Payload::StateChange(change)) => {
            fields.api = Some(change.new_state.to_string());
            fields.address = Some(format!("{:#018x}", change.program_counter.0));
        }
        Ok(Payload::DebugIo(io)) => fields.api = Some(io.api_number.to_string()),
        Ok(Payload::FileIo(io)) => {
            fields.api = Some(io.api_number.to_string());
            fields.status = Some(io.status.to_string());
        }
        Ok(Payload::Other(..)) | Err(_) => {}
    }
    fields
}

pub(super) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
