//! `verikd watch --metrics`: what Prometheus gets, by its own programs where they are installed (Debian's package prometheus).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::program::{Running, Setup, verikd};

/// What is waited for comes within this, or not at all.
const PATIENCE: Duration = Duration::from_secs(60);

fn watch(setup: &Setup, options: &[&str]) -> (Running, SocketAddr) {
    let (connection, symbols) = (setup.connection("1.2.3.4"), setup.symbols());
    let first = ["watch", "-k", &connection, "-y", symbols.to_str().unwrap(), "--every", "100ms"];
    let mut running = Running::start(&[&first[..], &["--metrics", "127.0.0.1:0"], options].concat());
    let line = running.line_with("Metrics are served at ");
    let url = line.split_once("http://").unwrap().1;
    (running, url.strip_suffix("/metrics").unwrap().parse().unwrap())
}

/// The body of an answer that is 200.
fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.split_whitespace().nth(1) == Some("200"), "{path}: {answer}");
    body.to_owned()
}

/// What `ask` returns once it returns something.
fn waited_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The value of the series whose line begins so.
fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(series))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[test]
fn a_scrape_gets_the_last_look_and_promtool_has_nothing_to_say() {
    let setup = Setup::new();
    let _target = setup.target(&["--leak-every", "100ms"]);
    let (running, address) = watch(&setup, &["--metrics-name", "lab \"7\""]);
    let bytes = r#"verikd_pool_bytes{target="lab \"7\"",driver="myfault.sys",tag="Leak",group="myfault!MyfaultDeviceControl+0x358 #"#;
    let grown = |before: f64| move |text: &String| value(text, bytes).is_some_and(|now| now > before);
    let first = waited_for("a first look", || Some(get(address, "/metrics")).filter(grown(0.0)));
    let held = value(&first, bytes).unwrap();
    let text = waited_for("a look at more blocks", || Some(get(address, "/metrics")).filter(grown(held)));
    let blocks = value(&text, &bytes.replace("bytes", "blocks")).unwrap();
    assert_eq!(value(&text, bytes).unwrap(), blocks * f64::from(0xfb000));
    assert!(
        value(&text, "verikd_looks_total{target=\"lab \\\"7\\\"\",result=\"taken\"}").unwrap() >= 2.0,
        "{text}"
    );
    let of = |series| value(&text, series).unwrap_or_else(|| panic!("{series} is not in\n{text}"));
    assert!(of("verikd_longest_frozen_seconds") <= of("verikd_frozen_seconds_total"));
    assert!(of("verikd_longest_frozen_seconds") > 0.0);
    assert_eq!(of("verikd_up"), 1.0);
    promtool(&text);
    #[cfg(unix)]
    {
        running.signal("INT");
        let ended = running.finish();
        assert_eq!(ended.code, 0, "{}", ended.err);
        assert!(TcpStream::connect(address).is_err(), "the endpoint goes down with the watch");
    }
    #[cfg(not(unix))]
    drop(running);
}

/// Holds the text to what Prometheus asks of an exporter.
fn promtool(text: &str) {
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = spawned else {
        eprintln!("skipped: there is no promtool here to check the text with");
        return;
    };
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let told = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[told.stdout, told.stderr].concat()).into_owned();
    assert!(told.status.success() && said.is_empty(), "{said}\n{text}");
}

/// A Prometheus server of its own, ended when it is dropped.
struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_real_server_scrapes_a_watch() {
    let setup = Setup::new();
    // The system hands out a port that is free now; nobody else is likely to take it within the test.
    let at = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut target = setup.target(&["--leak-every", "100ms"]);
    let (_running, address) = watch(&setup, &[]);
    let config = setup.folder.path().join("prometheus.yml");
    let text = format!(
        "global:\n  scrape_interval: 1s\nscrape_configs:\n  - job_name: verikd\n    static_configs:\n      - targets: ['{address}']\n"
    );
    std::fs::write(&config, text).unwrap();
    let spawned = Command::new("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", setup.folder.path().join("tsdb").display()))
        .arg(format!("--web.listen-address={at}"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(child) = spawned else {
        eprintln!("skipped: there is no Prometheus here that could scrape");
        return;
    };
    let mut server = Prometheus(child);
    let mut lines = BufReader::new(server.0.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut said = Vec::new();
    let is_ready = lines.by_ref().any(|line| {
        said.push(line.clone());
        line.contains("ready to receive web requests")
    });
    assert!(is_ready, "{said:#?}");
    // What it has to say later must not fill the pipe.
    std::thread::spawn(move || lines.count());
    let ask = |query: &str| -> Option<Value> {
        let answer: Value = serde_json::from_str(&get(at, &format!("/api/v1/query?query={query}"))).unwrap();
        answer["data"]["result"].get(0).cloned()
    };
    let found = waited_for("figures in Prometheus", || ask("verikd_pool_blocks"));
    let labels = &found["metric"];
    assert_eq!((&labels["driver"], &labels["tag"]), (&"myfault.sys".into(), &"Leak".into()), "{found:#}");
    assert_eq!(labels["target"], format!("port {}", setup.port));
    let number = |found: &Value| found["value"][1].as_str().unwrap().parse::<f64>().unwrap();
    let before = number(&found);
    waited_for("more blocks than before", || ask("verikd_pool_blocks").filter(|now| number(now) > before));
    assert_eq!(ask("up").as_ref().map(number), Some(1.0), "Prometheus likes what it reads");
    target.wait_for("leaked");
}

#[test]
fn where_metrics_cannot_be_served_no_target_is_met() {
    let setup = Setup::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let connection = setup.connection("1.2.3.4");
    let watch = |options: &[&str]| verikd(&[&["watch", "-k", &connection], options].concat());
    for (options, code, why) in [
        (&["--metrics", &taken][..], 1, "another program listens there already; take another port"),
        (&["--metrics", "9464"], 2, "Write 127.0.0.1:9464 for this machine alone"),
        (&["--metrics-name", "x"], 2, "--metrics <ADDR:PORT>"),
    ] {
        let ended = watch(options);
        assert_eq!(ended.code, code, "{options:?}: {}", ended.err);
        assert!(ended.err.contains(why) && !ended.err.contains("Waiting for a target"), "{}", ended.err);
        assert_eq!(ended.out, "");
    }
}
