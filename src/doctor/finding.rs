//! What can be found, as a table: `docs/no-target.md` is held equal to it.

use std::fmt;
use std::net::SocketAddr;

use serde::Serialize;

/// What was found, with what is particular about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "finding", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Finding {
    /// The target was stopped, let run again, and said that it runs.
    Works {
        /// The target's address and port, or the line's name.
        target: String,
        /// The KDNET version of its datagrams; nothing on a serial line.
        version: Option<u8>,
    },
    /// The target has the key and answers; it was not stopped.
    Connected {
        /// The target's address and port, or the line's name.
        target: String,
        /// The KDNET version of its datagrams; nothing on a serial line.
        version: Option<u8>,
        /// It was stopped already.
        is_stopped: bool,
    },
    /// Another program on this machine listens at the port.
    PortInUse {
        /// The address that was to be listened at.
        address: SocketAddr,
        /// Names and process numbers of the programs that have it, if the system tells.
        by: Option<String>,
    },
    /// This machine cannot listen at the address.
    CannotListen {
        /// The address that was to be listened at.
        address: SocketAddr,
        /// What the system says.
        why: String,
    },
    /// No datagram came to the port.
    NoDatagram {
        /// The address that was listened at.
        address: SocketAddr,
    },
    /// Datagrams came, from other machines than the named target only.
    NotFromTarget {
        /// The sender of the last of them.
        from: SocketAddr,
        /// How many datagrams came.
        count: u64,
    },
    /// Datagrams came that are not KDNET.
    NotKdnet {
        /// The sender of the last of them.
        from: SocketAddr,
        /// How many datagrams came.
        count: u64,
    },
    /// KDNET control datagrams came that another key was used for.
    OtherKey {
        /// The sender of the last of them.
        from: SocketAddr,
        /// How many datagrams came.
        count: u64,
    },
    /// Offers came under this key, of a length that verikd does not know.
    OtherDialect {
        /// The sender of the last of them.
        from: SocketAddr,
        /// The KDNET version of its datagrams.
        version: u8,
        /// Bytes of its offers' bodies.
        length: usize,
    },
    /// The target's offers name another debugger as the connected one.
    OtherDebugger {
        /// The target's address and port.
        target: SocketAddr,
        /// The debugger's address and port, as the offers have it.
        debugger: String,
    },
    /// Offers come, and the target does not react to the answers.
    NoReaction {
        /// The sender of the last of them.
        from: SocketAddr,
        /// Answers that were sent.
        answers: u64,
    },
    /// The target answers and does not stop.
    NoBreakIn {
        /// The target's address and port, or the line's name.
        target: String,
        /// Why it could not be stopped.
        why: String,
    },
    /// The target was stopped and has not said that it runs again.
    LeftStopped {
        /// The target's address and port, or the line's name.
        target: String,
    },
    /// The serial line cannot be opened.
    NoLine {
        /// The line as `-k` named it.
        line: String,
        /// What the system says.
        why: String,
    },
    /// The serial line is open and nothing comes.
    SilentLine {
        /// The line as `-k` named it.
        line: String,
    },
    /// KD packets come over the line, many of them damaged.
    NoisyLine {
        /// The line as `-k` named it.
        line: String,
        /// Packets that came whole.
        packets: u64,
        /// Packets that did not.
        damaged: u64,
    },
    /// What comes makes sense at another speed than the one asked for.
    OtherSpeed {
        /// The line as `-k` named it.
        line: String,
        /// That speed, in bits a second.
        baud: u32,
        /// What was heard then: `KD packets`, `text`.
        heard: &'static str,
    },
    /// Text comes, and no KD: a console or a boot loader.
    Console {
        /// The line as `-k` named it.
        line: String,
        /// The last of it, escaped.
        tail: String,
    },
    /// Bytes come that are neither KD nor text.
    NotKd {
        /// The line as `-k` named it.
        line: String,
        /// How many bytes came.
        bytes: u64,
        /// The last of them, escaped.
        tail: String,
    },
}

/// The kind of a finding: what programs, the exit code and the documentation go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// The word that JSON and the documentation call it by: `no-datagram`.
    pub name: &'static str,
    /// The program's exit code.
    pub exit: u8,
    /// What is the matter.
    pub means: &'static str,
    /// What to do about it.
    pub what_to_do: &'static str,
}

macro_rules! codes {
    ($($constant:ident $name:literal $exit:literal $means:literal $what_to_do:literal)*) => {
        impl Code {
            $(
                #[doc = concat!("`", $name, "`")]
                pub const $constant: Self =
                    Self { name: $name, exit: $exit, means: $means, what_to_do: $what_to_do };
            )*

            /// All of them, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$constant),*];
        }
    };
}

codes! {
    WORKS "works" 0
        "the target was stopped and runs again"
        "nothing; attach with verikd -k"
    CONNECTED "connected" 0
        "the target has the key and answers; it was not stopped"
        "attach with verikd -k; doctor --break-in also tries to stop it and let it run"
    PORT_IN_USE "port-in-use" 10
        "another program on this machine listens at the port"
        "end that program, or give the target and -k another port"
    CANNOT_LISTEN "cannot-listen" 11
        "this machine cannot listen at the address"
        "hostip= takes an address of this machine; ports below 1024 need rights"
    NO_DATAGRAM "no-datagram" 12
        "nothing at all arrived at the port"
        "check that the target's boot settings name this machine and this port, that it was restarted since, and that no firewall drops UDP"
    NOT_FROM_TARGET "not-from-target" 13
        "only machines that target= does not name sent to the port"
        "correct target=, or leave it away"
    NOT_KDNET "not-kdnet" 14
        "datagrams arrive that are not KDNET"
        "another program sends to this port: end it, or give the target and -k another port"
    OTHER_KEY "other-key" 15
        "a KDNET target sends, with another key"
        "copy the key from bcdedit /dbgsettings on the target, or set it there and restart"
    OTHER_DIALECT "other-dialect" 16
        "a target with this key makes offers of a form that verikd does not know"
        "report the version and the length; a trace of the session (--trace) helps"
    OTHER_DEBUGGER "other-debugger" 17
        "the target is connected to another debugger"
        "end that one; if it has ended already, or was an earlier session of this machine behind NAT, attach with verikd -k, which takes the target over"
    NO_REACTION "no-reaction" 18
        "offers arrive, but the target does not react to the answers"
        "datagrams to the target are lost: check firewalls, NAT and virtual switches for UDP from this machine's port back to the target"
    NO_BREAK_IN "no-break-in" 19
        "the target is there but does not stop"
        "it may hang with interrupts disabled; a virtual machine may be paused, or its hypervisor may hide the debugger from Windows"
    LEFT_STOPPED "left-stopped" 20
        "THE MACHINE MAY STAND STILL: it was stopped and did not say that it runs again"
        "attach with verikd -k and let it run with g"
    NO_LINE "no-line" 30
        "the serial line is not there"
        "start the virtual machine, or correct the name"
    SILENT_LINE "silent-line" 31
        "the serial line is there, and nothing comes from it"
        "a running target says nothing by itself: doctor --break-in makes certain; else check bcdedit /dbgsettings on the target, and restart it"
    NOISY_LINE "noisy-line" 32
        "KD packets arrive, many of them damaged"
        "check the cable and that both ends have the same speed and no flow control; use a lower speed"
    OTHER_SPEED "other-speed" 33
        "the other end of the device sends at another speed"
        "write baud= with the speed that was found, or set baudrate: on the target"
    CONSOLE "console" 34
        "text arrives, and no KD: a console or a boot loader is on this port"
        "wait until Windows has started; else give Windows the port (debugport:), or move the console to another one"
    NOT_KD "not-kd" 35
        "bytes arrive that are neither KD packets nor text"
        "another program or another speed is at the other end; bcdedit /dbgsettings on the target shows port and speed"
}

impl Finding {
    /// What kind it is.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Works { .. } => Code::WORKS,
            Self::Connected { .. } => Code::CONNECTED,
            Self::PortInUse { .. } => Code::PORT_IN_USE,
            Self::CannotListen { .. } => Code::CANNOT_LISTEN,
            Self::NoDatagram { .. } => Code::NO_DATAGRAM,
            Self::NotFromTarget { .. } => Code::NOT_FROM_TARGET,
            Self::NotKdnet { .. } => Code::NOT_KDNET,
            Self::OtherKey { .. } => Code::OTHER_KEY,
            Self::OtherDialect { .. } => Code::OTHER_DIALECT,
            Self::OtherDebugger { .. } => Code::OTHER_DEBUGGER,
            Self::NoReaction { .. } => Code::NO_REACTION,
            Self::NoBreakIn { .. } => Code::NO_BREAK_IN,
            Self::LeftStopped { .. } => Code::LEFT_STOPPED,
            Self::NoLine { .. } => Code::NO_LINE,
            Self::SilentLine { .. } => Code::SILENT_LINE,
            Self::NoisyLine { .. } => Code::NOISY_LINE,
            Self::OtherSpeed { .. } => Code::OTHER_SPEED,
            Self::Console { .. } => Code::CONSOLE,
            Self::NotKd { .. } => Code::NOT_KD,
        }
    }

    /// True if it makes sense to try to stop the target.
    pub(super) const fn may_be_stopped(&self) -> bool {
        matches!(self, Self::Connected { is_stopped: false, .. } | Self::SilentLine { .. })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.code().means)?;
        let version_of =
            |version: &Option<u8>| version.map_or_else(String::new, |it| format!(", KDNET version {it}"));
        match self {
            Self::Works { target, version } => write!(f, "{target}{}", version_of(version)),
            Self::Connected { target, version, is_stopped } => {
                let stands = if *is_stopped { "; it stands still, and did so before" } else { "" };
                write!(f, "{target}{}{stands}", version_of(version))
            }
            Self::PortInUse { address, by: Some(by) } => write!(f, "UDP {address}, by {by}"),
            Self::PortInUse { address, by: None } => {
                write!(f, "UDP {address}, by a program that this user may not see")
            }
            Self::CannotListen { address, why } => write!(f, "UDP {address}: {why}"),
            Self::NoDatagram { address } => write!(f, "UDP {address}"),
            Self::NotFromTarget { from, count } => write!(f, "{count} datagrams, the last from {from}"),
            Self::NotKdnet { from, count } => write!(f, "{count} datagrams, the last from {from}"),
            Self::OtherKey { from, count } => write!(f, "{from}, {count} datagrams"),
            Self::OtherDialect { from, version, length } => {
                write!(f, "{from}, version {version}, offers of {length} bytes")
            }
            Self::OtherDebugger { target, debugger } => write!(f, "{target} names {debugger}"),
            Self::NoReaction { from, answers } => write!(f, "{from}, {answers} answers were sent"),
            Self::NoBreakIn { target, why } => write!(f, "{target}: {why}"),
            Self::LeftStopped { target } => write!(f, "{target}"),
            Self::NoLine { line, why } => write!(f, "{line}: {why}"),
            Self::SilentLine { line } => write!(f, "{line}"),
            Self::NoisyLine { line, packets, damaged } => {
                write!(f, "{line}, {packets} packets whole, {damaged} damaged")
            }
            Self::OtherSpeed { line, baud, heard } => write!(f, "{line}: {heard} at {baud} baud"),
            Self::Console { line, tail } => write!(f, "{line}: \"{tail}\""),
            Self::NotKd { line, bytes, tail } => {
                write!(f, "{line}, {bytes} bytes, the last of them \"{tail}\"")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_has_an_exit_code_and_a_name_of_its_own() {
        let failing = || Code::ALL.iter().filter(|code| code.exit != 0);
        let exits: BTreeSet<u8> = failing().map(|code| code.exit).collect();
        assert_eq!(exits.len(), failing().count());
        assert!(exits.iter().all(|exit| *exit >= 10), "below 10 are those of every command");
        let names: BTreeSet<&str> = Code::ALL.iter().map(|code| code.name).collect();
        assert_eq!(names.len(), Code::ALL.len());
    }

    #[test]
    fn json_calls_a_finding_by_its_name() {
        let finding = Finding::SilentLine { line: "x".into() };
        let json = serde_json::to_value(&finding).unwrap();
        assert_eq!(json["finding"], finding.code().name);
        let finding = Finding::NotKdnet { from: "127.0.0.1:1".parse().unwrap(), count: 1 };
        assert_eq!(serde_json::to_value(&finding).unwrap()["finding"], finding.code().name);
    }

    #[test]
    fn the_page_in_docs_has_this_table() {
        let rows = Code::ALL.iter().map(|code| {
            format!("| `{}` | {} | {} | {} |", code.name, code.exit, code.means, code.what_to_do)
        });
        let table = format!(
            "| finding | exit code | what it means | what to do |\n|---|---|---|---|\n{}\n",
            rows.collect::<Vec<_>>().join("\n")
        );
        let page = include_str!("../../docs/no-target.md");
        assert!(page.contains(&table), "docs/no-target.md should have this table:\n\n{table}");
    }
}
