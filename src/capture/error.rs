//! Why a capture could not be shown, and what to try.

use std::io;
use std::path::PathBuf;

use super::summary::{Ending, Summary};
use crate::key::KeySourceError;

/// A capture that could not be read, or had nothing to show.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// The file system refused.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file that was given.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Neither pcap nor pcapng, gzipped or not.
    #[error(
        "{} is not a capture: it {}. Save it as pcap or pcapng; of an .etl file, `pktmon etl2pcap` makes one",
        path.display(), beginning(head)
    )]
    NotACapture {
        /// The file that was given.
        path: PathBuf,
        /// The file's first bytes, which may tell what it is.
        head: Vec<u8>,
    },
    /// The file contradicts itself, and what follows cannot be found.
    #[error(
        "{} is damaged at byte {offset}: {what}. \
         {} frames and {} KDNET datagrams before it were read, {} authenticated; the rest is lost. \
         Copy it again from where it was made, or try to repair it with pcapfix",
        path.display(), summary.frames, summary.datagrams, summary.authenticated
    )]
    Damaged {
        /// The file that was given.
        path: PathBuf,
        /// Where, in bytes of the unzipped file.
        offset: u64,
        /// What is wrong there, as the end of a sentence.
        what: &'static str,
        /// Counts of what was read before the damage.
        summary: Box<Summary>,
    },
    /// A line of a file of JSON lines is none.
    #[error(
        "{}: line {line} {what}. A serial recording has lines like {{\"t\": 1.5, \"dir\": \"h2t\", \"hex\": \"62\"}}, \
         or is the stream's raw bytes", path.display()
    )]
    DamagedLine {
        /// The file that was given.
        path: PathBuf,
        /// Which line, from 1.
        line: u64,
        /// What is wrong with it, as the end of a sentence.
        what: &'static str,
    },
    /// The file was read, but no datagram in it could be authenticated.
    #[error("{}: {}{}", path.display(), sentence(*reason, summary), ending(summary.ending))]
    NothingAuthentic {
        /// The file that was given.
        path: PathBuf,
        /// Why, as far as the counts tell.
        reason: NothingAuthentic,
        /// Counts of what was read.
        summary: Box<Summary>,
    },
    /// There is no key to open it with.
    #[error("{0}")]
    Key(#[from] KeySourceError),
    /// The output could not be written.
    #[error("cannot write the capture's datagrams: {0}")]
    Write(#[from] io::Error),
}

/// Why a capture has no authentic datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NothingAuthentic {
    /// It has no frames.
    Empty,
    /// No frame of it carries UDP.
    NoUdp,
    /// UDP, but nothing that begins as KDNET does.
    NotKdnet,
    /// KDNET, but the key opens none of the control datagrams, which it must.
    WrongKey,
    /// KDNET, but only data datagrams, whose keys come from a handshake that the capture lacks.
    NoHandshake,
    /// KDNET, but no datagram that a key could open is whole.
    NothingWhole,
}

impl NothingAuthentic {
    /// The reason that the counts of a capture give, if none of its datagrams is authentic.
    #[must_use]
    pub const fn of(summary: &Summary) -> Option<Self> {
        Some(match summary {
            Summary { authenticated: 1.., .. } => return None,
            Summary { frames: 0, .. } => Self::Empty,
            Summary { udp: 0, .. } => Self::NoUdp,
            Summary { datagrams: 0, .. } => Self::NotKdnet,
            Summary { unopened, .. } if unopened.not_this_key > 0 => Self::WrongKey,
            Summary { unopened, .. } if unopened.cut_short > 0 => Self::NothingWhole,
            Summary { unopened, .. } if unopened.no_session_key > 0 => Self::NoHandshake,
            _ => Self::NothingWhole,
        })
    }
}

fn beginning(head: &[u8]) -> String {
    if head.is_empty() {
        return "is empty".into();
    }
    format!("begins with {head:02x?}, as neither pcap nor pcapng does")
}

fn sentence(reason: NothingAuthentic, summary: &Summary) -> String {
    let Summary { frames, udp, datagrams, .. } = summary;
    match reason {
        NothingAuthentic::Empty => "has no frames. Capture again, while target and debugger talk".into(),
        NothingAuthentic::NoUdp => {
            let mut text = format!("not KDNET: none of its {frames} frames carries a UDP datagram.");
            for (link_type, count) in &summary.unread_link_types {
                text += &format!(" {count} frames have link type {link_type}, which verikd does not read.");
            }
            text + " Capture on the debugger's network card that faces the target"
        }
        NothingAuthentic::NotKdnet => format!(
            "not KDNET: none of its {udp} UDP datagrams begins with MDBG. \
             Capture the port that `bcdedit /dbgsettings` on the target shows, usually 50000"
        ),
        NothingAuthentic::WrongKey => format!(
            "wrong key: it has {datagrams} KDNET datagrams, and none authenticates with this key. \
             Copy the key from `bcdedit /dbgsettings` on the target"
        ),
        NothingAuthentic::NoHandshake => format!(
            "it has {datagrams} KDNET datagrams, all of a session that began before the capture, so no key can open \
             them. Begin the capture before the debugger connects"
        ),
        NothingAuthentic::NothingWhole if summary.unopened.cut_short > 0 => format!(
            "its packets are cut short: of {} of its {datagrams} KDNET datagrams it has only the first bytes, and \
             without a whole handshake no key opens the others. Capture whole packets (tcpdump -s 0)",
            summary.unopened.cut_short
        ),
        NothingAuthentic::NothingWhole => format!(
            "it has {datagrams} KDNET datagrams, but none whole: 0 cut short, {} with an impossible length. \
             Capture on the debugger's network card that faces the target",
            summary.unopened.malformed
        ),
    }
}

/// What to add to a message about a file that ended so.
pub(super) fn ending(ending: Ending) -> String {
    match ending {
        Ending::Complete => String::new(),
        Ending::CutOff { offset } => {
            format!(". The file is cut off inside the record at byte {offset}; what follows is missing")
        }
    }
}
