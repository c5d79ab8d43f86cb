//! `verikd capture FILE --key W.X.Y.Z`: what a debugger and a target said to each other, from a packet capture.
//!
//! ```text
//! file --container--> frames --link_layer--> UDP --sessions--> CapturedDatagram --+--> text or json, one line each
//!                                                                                 `--> Summary, at the end
//! ```
//!
//! Reads pcap and pcapng, gzipped or not, of any size, holding one frame at a time. A capture can have several
//! targets, ports and sessions, as long as they share the key. A session can be read if the capture has its
//! handshake; of one that began earlier, datagrams are counted, and `--all` lists them.
//!
//! Without a key it reads the traces that `--trace` writes (see [`TraceWriter`]): they have the plaintext beside the datagrams as
//! they were sent. Of a trace of a serial line, and of recorded lines (`--serial`), it shows packets, break-ins and damage.
//!
//! # Text
//! A line names the two machines whenever they change; then one line a datagram: frame, seconds since the first
//! frame, who to whom (`T` target, `H` host), channel, sequence, content:
//!
//! ```text
//! -- target 192.168.2.72:51111, host 192.168.2.1:51111, version 4
//!     197     0.528150  H>T  data        97  STATE_MANIPULATE id=8000005e GetContext
//!     198     0.528193  T>H  data        99  RESEND id=00000000
//!     199     0.543656  H>T  data        98  STATE_MANIPULATE id=8000005e GetContext [sent again]
//! ```
//!
//! What is unusual stands in brackets behind it: a session that begins, datagrams that are missing before this one
//! or came late or twice, a KD packet that is sent again. At the end a census, and warnings as sentences. The last
//! line is `N datagrams, M authenticated`.
//!
//! # JSON
//! `--json` writes one object a line. Each datagram has `frame`, `time_ns`, `source`, `destination`, `direction`,
//! `channel`, `version`, `flags`, `sequence`, `session`, `order` (`next`, `after`, `late`, `repeated`), `missing`,
//! `retransmission`, `bytes` (of the UDP payload), `kind` (the census's word), `text` (as the text output has it)
//! and `body` (the plaintext, in hexadecimal); a KD packet also `packet_type`, `packet_id`, and where it has them
//! `api`, `status`, `address`, `count` and `transferred`. One that could not be opened (with `--all`) has `unopened`,
//! the reason, instead. The last line has one key, `summary`, with the counts.

mod container;
mod datagram;
mod error;
mod interfaces;
mod json;
mod link_layer;
mod serial;
mod sessions;
mod summary;
mod text;
mod write;

use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use kd_protocol::kdnet::{Channel, DatagramError, Envelope, Key};
use pcap_parser::Linktype;

use crate::key::{self, KeySourceError, KeyText};

use self::container::{ContainerError, Frames, Role};
pub use self::datagram::{CapturedDatagram, Opened, Order, Unopened};
pub use self::error::{CaptureError, NothingAuthentic};
use self::link_layer::{Carried, Udp};
use self::sessions::Sessions;
pub use self::summary::{Census, CensusRow, Ending, Summary, UnopenedCounts};
pub use self::write::TraceWriter;

/// What to show, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Capture file: pcap or pcapng, gzipped or not.
    pub file: PathBuf,
    /// The target's KDNET key, or where it is; `None` takes it from the environment.
    pub key: Option<KeyText>,
    /// JSON: one object per line and datagram, and at the end the summary.
    pub json: bool,
    /// The datagrams that no key opens, too.
    pub all: bool,
    /// The file holds what crossed a serial line: its raw bytes, or JSON lines of `t`, `dir` (`h2t`, `t2h`) and `hex`.
    pub serial: bool,
}

/// Reads the capture that `options` name and writes its datagrams and summary to `out`.
///
/// # Errors
/// [`CaptureError`]: the file cannot be read, is damaged, or has nothing that the key opens. Of a damaged file
/// everything before the damage was written to `out`, summary included. A file that is only cut off is no error:
/// [`Summary::ending`].
pub fn run(options: &Options, out: &mut dyn Write) -> Result<Summary, CaptureError> {
    let mut out = BufWriter::new(out);
    if options.serial {
        return serial::run(&options.file, options.json, &mut out);
    }
    let (key, without_key) = match key::find(options.key.as_ref()) {
        Ok((key, _)) => (Some(key), None),
        // A trace of verikd's own has the datagrams opened already.
        Err(error @ KeySourceError::Missing) => (None, Some(error)),
        Err(error) => return Err(error.into()),
    };
    let mut capture = Capture::new(&options.file, Frames::open(&options.file), key)?;
    let mut lines = text::Lines::default();
    let failure = loop {
        let datagram = match capture.next() {
            Ok(Some(datagram)) => datagram,
            Ok(None) => break None,
            Err(error) => break Some(error),
        };
        if datagram.content.is_err() && !options.all {
            continue;
        }
        if options.json {
            json::write_datagram(&mut out, &datagram)?;
        } else {
            lines.write_datagram(&mut out, &datagram)?;
        }
    };
    let summary = capture.summary();
    if summary.line_pieces > 0 && summary.datagrams == 0 && failure.is_none() {
        return serial::run_trace(&options.file, options.json, &mut out);
    }
    if let Some(error) = without_key.filter(|_| summary.authenticated == 0 && failure.is_none()) {
        return Err(error.into());
    }
    if let Some(reason) = NothingAuthentic::of(summary) {
        out.flush()?;
        let nothing = || capture.nothing_authentic(reason);
        return Err(failure.unwrap_or_else(nothing));
    }
    if options.json {
        json::write_summary(&mut out, summary)?;
    } else {
        text::write_summary(&mut out, summary)?;
    }
    out.flush()?;
    failure.map_or_else(|| Ok(summary.clone()), Err)
}

/// A capture being read.
pub struct Capture {
    path: PathBuf,
    frames: Frames,
    sessions: Sessions,
    summary: Summary,
    has_ended: bool,
    /// Without a key, what was opened when the file was written is taken, and not what is sealed.
    takes_opened: bool,
    /// A sealed datagram, until it is known whether it is there opened too.
    sealed: Option<CapturedDatagram>,
}

impl Capture {
    /// Opens a capture file.
    ///
    /// # Errors
    /// [`CaptureError::Read`] or [`CaptureError::NotACapture`].
    pub fn open(path: &Path, key: Key) -> Result<Self, CaptureError> {
        Self::new(path, Frames::open(path), Some(key))
    }

    /// Reads a capture from `input`; `name` is what errors call it.
    ///
    /// # Errors
    /// As [`Capture::open`].
    pub fn from_reader(name: &Path, input: impl Read + 'static, key: Key) -> Result<Self, CaptureError> {
        Self::new(name, Frames::new(Box::new(input)), Some(key))
    }

    fn new(
        path: &Path,
        frames: Result<Frames, ContainerError>,
        key: Option<Key>,
    ) -> Result<Self, CaptureError> {
        let takes_opened = key.is_none();
        let path = path.to_path_buf();
        let summary = Summary::default();
        match frames {
            Ok(frames) => Ok(Self {
                path,
                frames,
                sessions: Sessions::new(key),
                summary,
                has_ended: false,
                takes_opened,
                sealed: None,
            }),
            Err(ContainerError::Read(source)) => Err(CaptureError::Read { path, source }),
            Err(ContainerError::Unknown(head)) => Err(CaptureError::NotACapture { path, head }),
            Err(ContainerError::Damaged(what)) => {
                Err(CaptureError::Damaged { path, offset: 0, what, summary: summary.into() })
            }
            Err(ContainerError::CutOff) => Err(CaptureError::NothingAuthentic {
                path,
                reason: NothingAuthentic::Empty,
                summary: Summary { ending: Ending::CutOff { offset: 0 }, ..summary }.into(),
            }),
        }
    }

    /// The next KDNET datagram, opened or not; None at the end of the capture, and after an error.
    ///
    /// # Errors
    /// [`CaptureError::Read`] or [`CaptureError::Damaged`].
    #[expect(clippy::should_implement_trait, reason = "an Iterator's items would hide that an error ends it")]
    pub fn next(&mut self) -> Result<Option<CapturedDatagram>, CaptureError> {
        while !self.has_ended {
            let frame = match self.frames.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => {
                    self.has_ended = true;
                    break;
                }
                Err(error) => return self.end(error),
            };
            self.summary.frames = frame.number;
            self.summary.last_time_ns = frame.time_ns.unwrap_or(self.summary.last_time_ns);
            if frame.role == Role::Line {
                self.summary.line_pieces += 1;
                continue;
            }
            if frame.role == Role::Opened && !self.takes_opened {
                continue;
            }
            let link_type = if frame.role == Role::Opened { Linktype::RAW } else { frame.link_type };
            let udp = match link_layer::carried(link_type, frame.bytes) {
                Carried::Udp(udp) => udp,
                Carried::Fragment => {
                    self.summary.fragments += 1;
                    continue;
                }
                Carried::UnknownLinkType => {
                    *self.summary.unread_link_types.entry(frame.link_type.0).or_default() += 1;
                    continue;
                }
                Carried::Other => continue,
            };
            if frame.role == Role::Opened {
                let Some(datagram) = write::from_plain(udp.payload) else { continue };
                let Some(sealed) = self.sealed.take() else { continue };
                let content = Ok(self.sessions.note_opened(datagram, udp.source, udp.destination));
                return Ok(Some(self.counted(CapturedDatagram { content, ..sealed })));
            }
            self.summary.udp += 1;
            let Some(content) = open(&mut self.sessions, &udp) else { continue };
            let datagram = CapturedDatagram {
                frame: frame.number,
                time_ns: frame.time_ns,
                source: udp.source,
                destination: udp.destination,
                sealed: Bytes::copy_from_slice(udp.payload),
                content,
            };
            if !self.takes_opened {
                return Ok(Some(self.counted(datagram)));
            }
            if let Some(unopened) = self.sealed.replace(datagram) {
                return Ok(Some(self.counted(unopened)));
            }
        }
        Ok(self.sealed.take().map(|unopened| self.counted(unopened)))
    }

    fn counted(&mut self, datagram: CapturedDatagram) -> CapturedDatagram {
        self.summary.count(&datagram);
        self.summary.sessions = self.sessions.begun();
        datagram
    }

    /// The counts of what was read so far.
    #[must_use]
    pub const fn summary(&self) -> &Summary {
        &self.summary
    }

    fn end(&mut self, error: ContainerError) -> Result<Option<CapturedDatagram>, CaptureError> {
        self.has_ended = true;
        let path = self.path.clone();
        let offset = self.frames.offset();
        match error {
            ContainerError::CutOff => {
                self.summary.ending = Ending::CutOff { offset };
                Ok(None)
            }
            ContainerError::Read(source) => Err(CaptureError::Read { path, source }),
            ContainerError::Damaged(what) => {
                Err(CaptureError::Damaged { path, offset, what, summary: self.summary.clone().into() })
            }
            ContainerError::Unknown(head) => Err(CaptureError::NotACapture { path, head }),
        }
    }

    fn nothing_authentic(&self, reason: NothingAuthentic) -> CaptureError {
        CaptureError::NothingAuthentic {
            path: self.path.clone(),
            reason,
            summary: self.summary.clone().into(),
        }
    }
}

/// What `udp` carries, if it begins as KDNET does.
fn open(sessions: &mut Sessions, udp: &Udp<'_>) -> Option<Result<Opened, Unopened>> {
    const SIGNATURE: &[u8] = b"MDBG";
    const FLAGS_AT: usize = 5;
    if !udp.payload.starts_with(SIGNATURE) {
        return None;
    }
    if udp.is_cut {
        let is_control = udp.payload.get(FLAGS_AT).is_some_and(|flags| flags & 1 != 0);
        let channel = if is_control { Channel::Control } else { Channel::Data };
        sessions.note_cut(channel, udp.source, udp.destination);
        return Some(Err(Unopened::CutShort));
    }
    Some(match Envelope::parse(udp.payload) {
        Ok(envelope) => sessions.open(&envelope, udp.source, udp.destination),
        Err(DatagramError::Signature) => return None,
        Err(error) => Err(Unopened::Malformed(error)),
    })
}
