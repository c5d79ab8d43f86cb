//! KDNET's part of the target's end: offers, keys, pings.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::config::TargetConfig;
use crate::kdnet::{
    Channel, Cipher, Control, Datagram, DatagramError, Direction, Endpoint, Envelope, Flags, Offer, Ping,
    Response, TargetRandom,
};
use crate::link::channel::DataChannel;
use crate::link::content::Content;
use crate::link::entropy::Entropy;

/// An offer goes out this far after the last, in every state.
const OFFER_INTERVAL: Duration = Duration::from_secs(3);
/// The offer's timer rises by this much with each.
const OFFER_TIMER_STEP: u64 = 3;

/// How a target's offers differ from those of Windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfferForm {
    /// Bytes of the body: a shorter one lacks its last fields, a longer one has zeros behind them.
    pub body_len: usize,
    /// An offer goes out this far after the last.
    pub interval: Duration,
}

impl Default for OfferForm {
    /// As captured: 344 bytes, every three seconds.
    fn default() -> Self {
        Self { body_len: Offer::LEN, interval: OFFER_INTERVAL }
    }
}

/// What a datagram was.
pub(super) enum Opened {
    /// Dealt with here.
    Control,
    /// A debugger answered an offer: the session is new.
    Connected(SocketAddr),
    /// Something of the debugger.
    Data(Content),
}

#[derive(Debug)]
struct Connection {
    channel: DataChannel,
    host: SocketAddr,
    /// A valid data datagram has come; until then each offer is followed by a ping.
    is_heard: bool,
}

/// Keys, and what is on its way to the debugger.
pub(super) struct NetWire {
    config: TargetConfig,
    control: Cipher,
    entropy: Box<dyn Entropy>,
    random: TargetRandom,
    offer_timer: u64,
    next_offer_at: Instant,
    form: OfferForm,
    connection: Option<Connection>,
    host_connection_info: Box<[u8; 256]>,
    outbox: VecDeque<(SocketAddr, Vec<u8>)>,
    /// What offers carry beside [`Flags::CONTROL`].
    pub(super) status: Flags,
}

impl NetWire {
    pub(super) fn new(now: Instant, config: TargetConfig, mut entropy: Box<dyn Entropy>) -> Self {
        let random = boot_random(&mut *entropy);
        Self {
            control: config.key.control_cipher(),
            config,
            entropy,
            random,
            offer_timer: 0,
            next_offer_at: now,
            form: OfferForm::default(),
            connection: None,
            host_connection_info: Box::new([0; 256]),
            outbox: VecDeque::new(),
            status: Flags::empty(),
        }
    }

    pub(super) const fn offer_as(&mut self, form: OfferForm) {
        self.form = form;
    }

    pub(super) fn reboot(&mut self, now: Instant) {
        self.random = boot_random(&mut *self.entropy);
        self.offer_timer = 0;
        self.next_offer_at = now;
        self.connection = None;
        *self.host_connection_info = [0; 256];
    }

    pub(super) fn receive(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<Opened, DatagramError> {
        let envelope = Envelope::parse(datagram)?;
        if envelope.channel() == Channel::Control {
            let datagram = envelope.open(&self.control)?;
            if datagram.direction == Direction::TargetToHost {
                return Err(DatagramError::OwnDirection);
            }
            return match Content::decode(&datagram)? {
                Content::Control(Control::Response(response)) => self.response(from, &datagram, &response),
                Content::Control(Control::HostPoke) => {
                    self.offer(now);
                    Ok(Opened::Control)
                }
                _ => Ok(Opened::Control),
            };
        }
        let connection = self.connection.as_mut().ok_or(DatagramError::NoSession)?;
        let newest = connection.channel.newest_seen();
        let datagram = connection.channel.open(&envelope)?;
        // Windows drops whatever arrives behind a later datagram, gaps or not.
        if datagram.sequence <= newest {
            return Err(DatagramError::Replayed);
        }
        connection.is_heard = true;
        Ok(Opened::Data(Content::decode(&datagram)?))
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.next_offer_at <= now {
            self.offer(now);
        }
    }

    pub(super) const fn poll_timeout(&self) -> Instant {
        self.next_offer_at
    }

    pub(super) fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.outbox.pop_front()
    }

    pub(super) fn host(&self) -> Option<SocketAddr> {
        self.connection.as_ref().map(|it| it.host)
    }

    /// Puts something on its way to the connected debugger; nowhere if there is none.
    pub(super) fn send(&mut self, content: &Content) {
        if let Some(connection) = &mut self.connection {
            let sealed = connection.channel.seal(content);
            self.outbox.push_back((connection.host, sealed));
        }
    }

    fn offer(&mut self, now: Instant) {
        self.next_offer_at = now + self.form.interval;
        self.offer_timer += OFFER_TIMER_STEP;
        self.random.counter = self.random.counter.wrapping_add(1);
        let connected_host = self.connection.as_ref().map_or(Endpoint::NONE, |it| it.host.into());
        let offer = Offer {
            target_random: self.random,
            target: self.config.address.into(),
            configured_host: self.config.host.into(),
            connected_host,
            host_connection_info: self.host_connection_info.clone(),
        };
        let mut body = Control::Offer(offer).encode().to_vec();
        body.resize(self.form.body_len, 0);
        let datagram = Datagram {
            version: self.config.version,
            flags: Flags::CONTROL | self.status,
            direction: Direction::TargetToHost,
            sequence: self.offer_timer,
            body: body.into(),
        };
        self.outbox.push_back((self.config.host, datagram.seal(&self.control)));
        if self.connection.as_ref().is_some_and(|it| !it.is_heard) {
            self.ping();
        }
    }

    fn response(
        &mut self,
        from: SocketAddr,
        datagram: &Datagram,
        response: &Response,
    ) -> Result<Opened, DatagramError> {
        let age = self.offer_timer.wrapping_sub(datagram.sequence);
        if response.target_random.boot != self.random.boot || !(age == 0 || age == OFFER_TIMER_STEP) {
            return Err(DatagramError::Replayed);
        }
        let cipher = self.config.key.data_cipher(&datagram.body);
        let channel = DataChannel::new(cipher, self.config.version, Direction::TargetToHost);
        self.host_connection_info = response.host_connection_info.clone();
        self.connection = Some(Connection { channel, host: from, is_heard: false });
        self.ping();
        Ok(Opened::Connected(from))
    }

    fn ping(&mut self) {
        let Some(connection) = &self.connection else { return };
        let host = match connection.host.ip().to_canonical() {
            IpAddr::V4(ip) => ip,
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        };
        let last_host_sequence = connection.channel.newest_seen();
        self.send(&Content::Ping(Ping { last_host_sequence, host }));
    }
}

fn boot_random(entropy: &mut dyn Entropy) -> TargetRandom {
    let mut counter = [0; 8];
    let mut boot = [0; 24];
    entropy.fill(&mut counter);
    entropy.fill(&mut boot);
    TargetRandom { counter: u64::from_le_bytes(counter), boot }
}
