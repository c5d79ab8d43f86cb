//! `--trace`: the file has what crossed the link, opens with the key and without it, and holds neither key nor data key.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kd_protocol::kdnet::Key;
use verikd::capture::{Capture, CaptureError, Opened, Options, run};
use verikd::key::KeyText;
use verikd::memory::{Memory, VirtAddr};
use verikd::session::{ComLine, ComPort, Connection, OpenTap, Session, SessionConfig};
use verikd::source::Source;
use verikd::trace::{TraceConfig, TraceNews};
use verikd_sim::{SerialPort, Simulator, SimulatorConfig};

const PATIENCE: Duration = Duration::from_secs(60);
const KEY: &str = "1a2b3c4d5e.7f8g9h.3.4secret";

fn fail(news: &TraceNews) {
    panic!("{news}");
}

/// A session that stops the machine, reads it and lets it go, recorded.
fn record(path: &Path, connection: Connection, start: impl FnOnce(&Session) -> Option<Simulator>) -> u64 {
    let tap: Option<Arc<dyn OpenTap>> = Some(Arc::new(TraceConfig::new(path.to_path_buf(), fail)));
    let session = Session::open(&SessionConfig { tap, ..SessionConfig::over(connection) }).unwrap();
    let _target = start(&session);
    session.wait_for_target(Some(PATIENCE)).unwrap();
    session.break_in(PATIENCE).unwrap();
    let base = session.get_version().unwrap().kern_base;
    let mut page = vec![0; 0x1000];
    session.memory().read_virtual(VirtAddr(base.0), &mut page).unwrap();
    assert!(page.starts_with(b"MZ"));
    let counters = session.counters();
    drop(session);
    counters.datagrams_sent + counters.datagrams_received
}

fn over_kdnet(path: &Path) -> u64 {
    let key: Key = KEY.parse().unwrap();
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let connection = Connection::Net { listen, key: key.clone(), target: None };
    record(path, connection, |session| {
        let listens_at = session.listens_at().unwrap();
        Some(Simulator::start(SimulatorConfig::new(listens_at, key)).unwrap())
    })
}

fn over_serial_line(path: &Path) {
    let target =
        Simulator::start(SimulatorConfig::serial(SerialPort::Tcp((Ipv4Addr::LOCALHOST, 0).into()))).unwrap();
    let address = target.address().unwrap();
    let port = ComPort::Tcp { host: address.ip().to_string(), port: address.port() };
    record(path, Connection::Com(ComLine { port, reconnect: false }), |_| Some(target));
}

fn shown(file: &Path, key: Option<&str>, json: bool) -> (String, Result<(), CaptureError>) {
    let key = key.map(KeyText::new);
    let options = Options { file: file.to_path_buf(), key, json, all: false, serial: false };
    let mut out = Vec::new();
    let result = run(&options, &mut out).map(drop);
    (String::from_utf8(out).unwrap(), result)
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.pcapng");
    (folder, path)
}

#[test]
fn a_trace_reads_the_same_with_the_key_and_without() {
    let (_folder, path) = folder();
    let crossed = over_kdnet(&path);
    let (with_key, result) = shown(&path, Some(KEY), false);
    result.unwrap();
    let (without, result) = shown(&path, None, false);
    result.unwrap();
    let datagrams = |text: &str| -> Vec<String> {
        text.lines().take_while(|line| !line.is_empty()).map(str::to_owned).collect()
    };
    assert_eq!(datagrams(&with_key), datagrams(&without));
    assert!(
        datagrams(&without).len() as u64 >= crossed,
        "{crossed} datagrams crossed before the end\n{without}"
    );
    for wanted in ["OFFER #", "RESPONSE #", "PING", "BREAK_IN", "GetVersion", "ReadVirtual", "Continue"] {
        assert!(without.contains(wanted), "{wanted} in\n{without}");
    }
    assert!(without.contains("host 127.0.0.1:"), "{without}");
    assert!(!without.contains("never came"), "{without}");
}

#[test]
fn a_wrong_key_opens_nothing_of_it() {
    let (_folder, path) = folder();
    over_kdnet(&path);
    let error = shown(&path, Some("9.9.9.9"), false).1.unwrap_err();
    assert!(error.to_string().contains("wrong key"), "{error}");
}

#[test]
fn neither_the_key_nor_a_data_key_is_in_the_file() {
    let (_folder, path) = folder();
    over_kdnet(&path);
    let key: Key = KEY.parse().unwrap();
    let file = std::fs::read(&path).unwrap();
    let mut secrets = vec![KEY.as_bytes().to_vec(), key.control_key().to_vec(), key.hmac_key().to_vec()];
    let mut capture = Capture::open(&path, key.clone()).unwrap();
    while let Some(datagram) = capture.next().unwrap() {
        if let Ok(Opened { datagram, session: Some(_), .. }) = &datagram.content
            && datagram.body.starts_with(&[1, 2])
        {
            secrets.push(key.data_key(&datagram.body).to_vec());
        }
    }
    assert!(secrets.len() > 3, "a response was found");
    for secret in secrets {
        assert!(!file.windows(secret.len()).any(|window| window == secret), "{} bytes", secret.len());
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(!file.windows(hex.len()).any(|window| window == hex.as_bytes()));
    }
}

#[test]
fn a_trace_of_a_serial_line_shows_its_packets() {
    let (_folder, path) = folder();
    over_serial_line(&path);
    let (text, result) = shown(&path, None, false);
    result.unwrap();
    for wanted in [
        "H>T  serial  BREAK_IN",
        "T>H  serial  STATE_CHANGE64",
        "H>T  serial  STATE_MANIPULATE",
        "ReadVirtual",
    ] {
        assert!(text.contains(wanted), "{wanted} in\n{text}");
    }
    assert!(!text.contains("DAMAGED"), "{text}");
    let (json, result) = shown(&path, None, true);
    result.unwrap();
    assert!(json.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
}

#[test]
fn a_trace_that_was_cut_off_gives_what_is_there() {
    let (_folder, path) = folder();
    over_kdnet(&path);
    let file = std::fs::read(&path).unwrap();
    for len in (200..file.len()).step_by(997) {
        std::fs::write(&path, &file[..len]).unwrap();
        match shown(&path, None, false).1 {
            Ok(()) | Err(CaptureError::Key(_)) => {}
            Err(error) => panic!("{len} bytes: {error}"),
        }
    }
}

/// Where Wireshark's command line is installed, it reads the file without complaint.
#[test]
fn wireshark_reads_a_trace() {
    let (_folder, path) = folder();
    over_kdnet(&path);
    let fields = ["-T", "fields", "-e", "frame.interface_name", "-e", "udp.length", "-e", "frame.comment"];
    let Ok(output) = std::process::Command::new("tshark").arg("-r").arg(&path).args(fields).output() else {
        eprintln!("skipped: tshark is not installed");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        text.contains("KDNET\t") && text.contains("verikd opened\t") && text.contains("GetVersion"),
        "{text}"
    );
}
