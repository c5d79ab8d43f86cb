//! A driver that dies, before a target that is nothing but its end of the link.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kd_protocol::kd::{ControlReport, Exception, NtStatus, StateChange};
use kd_protocol::kdnet::Key;
use kd_protocol::link::{TargetConfig, TargetEvent, TargetLink};
use kd_protocol::wire::Reader;

use super::Order;
use crate::session::entropy::OsEntropy;
use crate::session::{Session, SessionConfig, Wait};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_bug_of_ours_lets_the_machine_run() {
    let key: Key = "1.2.3.4".parse().unwrap();
    // Whoever frees the machine must be found at the same port.
    let listen = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let session = Session::open(&SessionConfig::new(listen, key.clone())).unwrap();
    let is_stopped = Arc::new(AtomicBool::new(false));
    let (shared, of_target) = (Arc::clone(&is_stopped), key);
    std::thread::spawn(move || be_target(listen, of_target, &shared));
    session.wait_for_target(Some(PATIENCE)).unwrap();
    session.break_in(PATIENCE).unwrap();
    assert!(is_stopped.load(Ordering::Acquire));
    session.order(Order::Panic);
    let Wait::Ended(why) = session.monitor.wait(None, |_| None::<()>) else { panic!("the session goes on") };
    assert_eq!(why, "a bug in verikd's link; the target was let run");
    assert!(!is_stopped.load(Ordering::Acquire), "left stopped by a panic");
}

/// Offers itself, stops at break-ins, refuses every question, goes on when it is told to. For as long as the tests run.
fn be_target(host: SocketAddr, key: Key, is_stopped: &AtomicBool) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
    let config = TargetConfig { key, version: 5, address: socket.local_addr().unwrap(), host };
    let mut link = TargetLink::new(Instant::now(), config, Box::new(OsEntropy));
    let (mut received, mut to_send) = ([0; 2048], BytesMut::new());
    loop {
        if let Ok((len, from)) = socket.recv_from(&mut received) {
            let _ = link.handle_datagram(Instant::now(), from, &received[..len]);
        }
        let now = Instant::now();
        link.handle_timeout(now);
        while let Some(event) = link.poll_event() {
            match event {
                TargetEvent::BreakIn => link.stop(now, break_in()),
                TargetEvent::Request(request) if request.api_number.has_reply() => {
                    link.reply(now, &request.reply(NtStatus::UNSUCCESSFUL, Bytes::new()));
                }
                _ => {}
            }
        }
        is_stopped.store(link.is_stopped(), Ordering::Release);
        while let Some(to) = link.poll_transmit(&mut to_send) {
            let _ = socket.send_to(&to_send, to);
        }
    }
}

fn break_in() -> StateChange {
    let zeros = [0; 256];
    let exception = Exception::decode(&mut Reader::new("exception", &zeros)).unwrap();
    let report = ControlReport::decode(&mut Reader::new("control report", &zeros)).unwrap();
    StateChange::exception(Exception { exception_code: NtStatus::BREAKPOINT, ..exception }, report)
}
