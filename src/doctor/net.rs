//! A KDNET target: what arrives at the port is told apart, and a target that has no debugger is answered.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use kd_protocol::kdnet::{
    Channel, Cipher, Control, DatagramError, Direction, Endpoint, Envelope, Key, Offer,
};
use kd_protocol::link::{Content, Event, HostLink, LinkConfig, Peer, RunState};

use super::finding::Finding;
use super::{advice, owner};
use crate::session::{OsEntropy, TargetPlace};

/// The most that UDP carries.
const MAX_DATAGRAM: usize = 65_536;
/// Machines that are told apart; whoever sends from more is counted with the last of these.
const MAX_SENDERS: usize = 64;
/// A target that has connected says within this whether it stands still: a stopped one repeats its state change.
const LINGER: Duration = Duration::from_millis(700);
/// The socket is looked at this often even if nothing comes.
const TICK: Duration = Duration::from_millis(50);

/// What a machine has sent.
#[derive(Debug, Default)]
struct Sender {
    other: u64,
    not_this_key: u64,
    /// Of a session that is not ours.
    of_sessions: u64,
    offers: u64,
    /// Version and body length of offers that are not understood.
    dialect: Option<(u8, usize)>,
    other_debugger: Option<Endpoint>,
    answers: u64,
}

struct Listener {
    link: HostLink,
    control: Cipher,
    port: u16,
    own_addresses: Vec<IpAddr>,
    senders: BTreeMap<SocketAddr, Sender>,
    strangers: (u64, Option<SocketAddr>),
    waits_at_prompt: bool,
}

pub(super) fn examine(
    listen: SocketAddr,
    key: &Key,
    target: Option<TargetPlace>,
    time: Duration,
) -> (Finding, Vec<String>) {
    let socket = match UdpSocket::bind(listen).and_then(|it| it.set_read_timeout(Some(TICK)).map(|()| it)) {
        Ok(socket) => socket,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let by = owner::of_udp_port(listen.port());
            return (Finding::PortInUse { address: listen, by }, Vec::new());
        }
        Err(error) => {
            return (Finding::CannotListen { address: listen, why: error.to_string() }, Vec::new());
        }
    };
    let mut listener = Listener {
        link: HostLink::new(LinkConfig::new(key.clone()), Box::new(OsEntropy)),
        control: key.control_cipher(),
        port: listen.port(),
        own_addresses: advice::addresses().into_iter().map(|(_, ip)| ip).collect(),
        senders: BTreeMap::new(),
        strangers: (0, None),
        waits_at_prompt: false,
    };
    let deadline = Instant::now() + time;
    let mut connected_at = None;
    let mut datagram = vec![0; MAX_DATAGRAM];
    loop {
        let now = Instant::now();
        if listener.link.peer().is_some() {
            connected_at.get_or_insert(now);
        }
        let is_known = listener.link.state() == RunState::Stopped || listener.waits_at_prompt;
        if now >= deadline || connected_at.is_some_and(|at| is_known || at + LINGER <= now) {
            break;
        }
        // Errors here are of earlier sends, or the tick's.
        if let Ok((len, from)) = socket.recv_from(&mut datagram) {
            if target.is_some_and(|it| !it.hears(from)) {
                listener.strangers = (listener.strangers.0 + 1, Some(from));
            } else {
                listener.received(from, &datagram[..len]);
            }
        }
        listener.drive(&socket);
    }
    (listener.finding(listen), listener.also())
}

impl Listener {
    fn received(&mut self, from: SocketAddr, datagram: &[u8]) {
        let key = match self.senders.len() < MAX_SENDERS || self.senders.contains_key(&from) {
            true => from,
            false => *self.senders.keys().next_back().expect("there are as many as may be"),
        };
        let sender = self.senders.entry(key).or_default();
        let Ok(envelope) = Envelope::parse(datagram) else {
            sender.other += 1;
            return;
        };
        if envelope.channel() == Channel::Data {
            // One that is not ours is another debugger's: asking for an offer could cost it its session.
            if sender.answers == 0 || self.link.handle_datagram(Instant::now(), from, datagram).is_err() {
                sender.of_sessions += 1;
            }
            return;
        }
        let opened = match envelope.open(&self.control) {
            Ok(opened) if opened.direction == Direction::TargetToHost => opened,
            Ok(_) => {
                // Another debugger's answer, looped back.
                sender.other += 1;
                return;
            }
            Err(DatagramError::NotAuthentic) => {
                sender.not_this_key += 1;
                return;
            }
            Err(_) => {
                sender.other += 1;
                return;
            }
        };
        sender.offers += 1;
        match Content::decode(&opened) {
            // Once it was answered, whom it names is this machine, as it looks from there.
            Ok(Content::Control(Control::Offer(offer)))
                if sender.answers == 0 && is_of_another(&offer, &self.own_addresses, self.port) =>
            {
                sender.other_debugger = Some(offer.connected_host);
                return;
            }
            Ok(Content::Control(Control::Offer(_))) => sender.other_debugger = None,
            _ => sender.dialect = Some((opened.version, opened.body.len())),
        }
        // Whatever is wrong with it, the link drops it; what it understands, it answers.
        let _ = self.link.handle_datagram(Instant::now(), from, datagram);
    }

    fn drive(&mut self, socket: &UdpSocket) {
        let now = Instant::now();
        if self.link.poll_timeout().is_some_and(|at| at <= now) {
            self.link.handle_timeout(now);
        }
        let mut datagram = BytesMut::new();
        loop {
            while let Some(to) = self.link.poll_transmit(&mut datagram) {
                if is_response(&datagram, &self.control)
                    && let Some(sender) = self.senders.get_mut(&to)
                {
                    sender.answers += 1;
                }
                // What cannot be sent is lost like any datagram.
                let _ = socket.send_to(&datagram, to);
            }
            match self.link.poll_event() {
                Some(Event::Prompt(_)) => self.waits_at_prompt = true,
                Some(_) => {}
                None => break,
            }
        }
    }

    /// What matters most, of all that was seen.
    fn finding(&self, address: SocketAddr) -> Finding {
        if let Some(Peer::Kdnet(peer)) = self.link.peer() {
            return Finding::Connected {
                target: peer.address.to_string(),
                version: Some(peer.version),
                is_stopped: self.link.state() == RunState::Stopped || self.waits_at_prompt,
            };
        }
        let find = |is_it: fn(&Sender) -> bool| self.senders.iter().find(|(_, it)| is_it(it));
        if let Some((target, Sender { other_debugger: Some(debugger), .. })) =
            find(|it| it.other_debugger.is_some())
        {
            return Finding::OtherDebugger { target: *target, debugger: debugger.to_string() };
        }
        if let Some((from, Sender { dialect: Some((version, length)), .. })) = find(|it| it.dialect.is_some())
        {
            return Finding::OtherDialect { from: *from, version: *version, length: *length };
        }
        if let Some((from, sender)) = find(|it| it.offers > 0) {
            return Finding::NoReaction { from: *from, answers: sender.answers };
        }
        if let Some((from, sender)) = find(|it| it.not_this_key + it.of_sessions > 0) {
            return Finding::OtherKey { from: *from, count: sender.not_this_key + sender.of_sessions };
        }
        if let Some((from, sender)) = find(|it| it.other > 0) {
            return Finding::NotKdnet { from: *from, count: sender.other };
        }
        match self.strangers {
            (count, Some(from)) => Finding::NotFromTarget { from, count },
            (_, None) => Finding::NoDatagram { address },
        }
    }

    /// What was seen, in sentences: a finding tells of one machine only.
    fn also(&self) -> Vec<String> {
        let mut sentences = Vec::new();
        for (from, sender) in &self.senders {
            let mut say = |count: u64, what: &str| {
                if count > 0 {
                    sentences.push(format!("{from}: {count} {what}"));
                }
            };
            say(sender.offers, "authentic offers");
            say(sender.not_this_key, "control datagrams that do not open with this key");
            say(sender.of_sessions, "datagrams of a session that is not this debugger's");
            say(sender.other, "datagrams that are not KDNET");
        }
        if let (count, Some(from)) = self.strangers {
            sentences.push(format!(
                "{count} datagrams of others than target=, the last from {from}, were dropped"
            ));
        }
        if self.waits_at_prompt {
            sentences.push(
                "the target waits at a prompt, as after a failed assertion: attach and answer it".into(),
            );
        }
        sentences
    }
}

/// True if the target is connected to somebody that is not this program: whatever was at our port is gone, since the port
/// is ours now.
fn is_of_another(offer: &Offer, own_addresses: &[IpAddr], port: u16) -> bool {
    let Endpoint { ip, port: connected_port } = offer.connected_host;
    let is_ours = connected_port == port && own_addresses.contains(&ip.to_canonical());
    connected_port != 0 && !is_ours
}

fn is_response(datagram: &[u8], control: &Cipher) -> bool {
    let Ok(envelope) = Envelope::parse(datagram) else { return false };
    let opened = (envelope.channel() == Channel::Control).then(|| envelope.open(control));
    matches!(
        opened.map(|it| it.map(|it| Content::decode(&it))),
        Some(Ok(Ok(Content::Control(Control::Response(_)))))
    )
}
