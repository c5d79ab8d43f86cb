//! A capture as lines for a person.

use std::io::{self, Write};
use std::net::SocketAddr;

use kd_protocol::kdnet::{Channel, Control, Direction, Flags};
use kd_protocol::link::Content;

use super::datagram::{CapturedDatagram, Opened, Order};
use super::error::ending;
use super::summary::{Census, Ending, Summary};

/// Writes a line a datagram, and one that names the two machines whenever they change.
#[derive(Default)]
pub(super) struct Lines {
    /// Target, host, version.
    link: Option<(SocketAddr, SocketAddr, u8)>,
}

impl Lines {
    pub(super) fn write_datagram(
        &mut self,
        out: &mut impl Write,
        captured: &CapturedDatagram,
    ) -> io::Result<()> {
        if let Ok(opened) = &captured.content {
            self.write_link(out, captured, opened)?;
        }
        write!(out, "{:>7} ", captured.frame)?;
        match captured.time_ns {
            Some(time) => write!(out, "{:>12}", seconds(time))?,
            None => write!(out, "{:>12}", "-")?,
        }
        let channel = channel_word(captured.channel());
        match &captured.content {
            Ok(opened) => {
                let Opened { datagram, .. } = opened;
                write!(out, "  {}  {channel:7} {:>6}  ", arrow(datagram.direction), datagram.sequence)?;
                writeln!(out, "{}{}", content_text(opened), remarks(opened))
            }
            Err(reason) => {
                write!(out, "  ?    {channel:7} {:>6}  {} > {}", "?", captured.source, captured.destination)?;
                writeln!(out, ", {} bytes: {reason}", captured.sealed.len())
            }
        }
    }

    fn write_link(
        &mut self,
        out: &mut impl Write,
        captured: &CapturedDatagram,
        opened: &Opened,
    ) -> io::Result<()> {
        let (target, host) = match opened.datagram.direction {
            Direction::TargetToHost => (captured.source, captured.destination),
            Direction::HostToTarget => (captured.destination, captured.source),
        };
        let version = opened.datagram.version;
        if self.link.replace((target, host, version)) == Some((target, host, version)) {
            return Ok(());
        }
        writeln!(out, "-- target {target}, host {host}, version {version}")
    }
}

/// Writes the census, what was unusual, and as last line how many datagrams there were.
pub(super) fn write_summary(out: &mut impl Write, summary: &Summary) -> io::Result<()> {
    write_census(out, &summary.census)?;
    for sentence in sentences(summary) {
        writeln!(out, "{sentence}")?;
    }
    let Summary { frames, sessions, datagrams, authenticated, .. } = summary;
    writeln!(out, "{frames} frames, {} seconds, sessions begun: {sessions}", seconds(summary.last_time_ns))?;
    writeln!(out, "{datagrams} datagrams, {authenticated} authenticated")
}

/// Writes the counts by direction and kind, with blank lines around.
pub(super) fn write_census(out: &mut impl Write, census: &Census) -> io::Result<()> {
    writeln!(out)?;
    let width = census.rows().map(|row| row.kind.len()).max().unwrap_or(0);
    for row in census.rows() {
        write!(out, "{}  {:width$} {:>8}", arrow(row.direction), row.kind, row.count)?;
        match row.failures {
            0 => writeln!(out)?,
            failures => writeln!(out, "  {failures} failed")?,
        }
    }
    writeln!(out)
}

/// What a person should know about a capture, beside its counts.
fn sentences(summary: &Summary) -> Vec<String> {
    let unopened = &summary.unopened;
    let mut out = Vec::new();
    let mut say = |count: u64, noun: &str, what: &str| match count {
        0 => {}
        1 => out.push(format!("1 {noun} {what}")),
        _ => out.push(format!("{count} {noun}s {what}")),
    };
    say(
        unopened.no_session_key,
        "data datagram",
        "could not be opened: the session began before the capture, and its key comes from the handshake. \
         Begin the capture before the debugger connects; --all lists them",
    );
    say(
        unopened.cut_handshake,
        "data datagram",
        "could not be opened: the capture has only the first bytes of the handshake that its key comes from. \
         Capture whole packets (tcpdump -s 0)",
    );
    say(
        unopened.not_this_session,
        "data datagram",
        "could be opened with no session key of the capture: left over from an older session, damaged, or forged; \
         --all lists them",
    );
    say(
        unopened.not_this_key,
        "control datagram",
        "could not be authenticated with this key: another target's, damaged, or forged; --all lists them",
    );
    say(unopened.cut_short, "KDNET datagram", "came cut short: capture whole packets (tcpdump -s 0)");
    say(unopened.malformed, "datagram", "began as KDNET does, with an impossible length or padding");
    say(summary.missing, "data datagram", "never came: lost before the capture, or by it");
    say(summary.late, "data datagram", "came after a later one");
    say(summary.repeated, "data datagram", "came once more: captured twice, or duplicated on the way");
    say(summary.retransmissions, "KD packet", "sent again");
    say(summary.other_udp(), "other UDP datagram", "skipped");
    say(summary.fragments, "UDP fragment", "not read: KDNET datagrams are never fragmented");
    for (link_type, count) in &summary.unread_link_types {
        say(*count, "frame", &format!("not read: link type {link_type} is none that verikd knows"));
    }
    if summary.ending != Ending::Complete {
        out.push(format!("warning: incomplete capture{}", ending(summary.ending)));
    }
    out
}

/// `T>H` or `H>T`.
pub(super) const fn arrow(direction: Direction) -> &'static str {
    match direction {
        Direction::TargetToHost => "T>H",
        Direction::HostToTarget => "H>T",
    }
}

pub(super) const fn channel_word(channel: Channel) -> &'static str {
    match channel {
        Channel::Control => "control",
        Channel::Data => "data",
    }
}

/// The content, or what is wrong with it.
pub(super) fn content_text(opened: &Opened) -> String {
    match &opened.content {
        Ok(content) => content.to_string(),
        Err(error) => format!("MALFORMED {} bytes: {error}", opened.datagram.body.len()),
    }
}

/// What is unusual about a datagram, each in brackets.
pub(super) fn remarks(opened: &Opened) -> String {
    let mut out = String::new();
    if let (Ok(Content::Control(Control::Response(_))), Some(session)) = (&opened.content, opened.session) {
        out += &format!(" [session {session}]");
    }
    match opened.order {
        Order::Next => {}
        Order::After { missing } => out += &format!(" [{missing} missing before]"),
        Order::Late => out += " [late]",
        Order::Repeated => out += " [repeated]",
    }
    if opened.is_retransmission {
        out += " [sent again]";
    }
    let flags = opened.datagram.flags;
    if flags.contains(Flags::IN_DEBUGGER) {
        out += " [in debugger]";
    }
    let unusual = flags - (Flags::CONTROL | Flags::IN_DEBUGGER);
    if !unusual.is_empty() {
        out += &format!(" [flags {:02x}]", unusual.bits());
    }
    out
}

/// Nanoseconds as seconds, to the microsecond.
pub(super) fn seconds(time_ns: i64) -> String {
    let micros = time_ns.unsigned_abs() / 1000;
    let sign = if time_ns < 0 { "-" } else { "" };
    format!("{sign}{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}
