//! `--trace FILE`: what was sent and received, written as it goes by a thread of its own.
//!
//! ```text
//!  driver thread --Tap--> queue (at most 16 MiB) --> trace thread --> FILE
//! ```
//! The driver never waits for the file: where the disk is slower than the link, what does not fit into the queue is not
//! written, and counted; where writing fails, that is told once, and the session goes on without a trace.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, TryRecvError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kd_protocol::kdnet::Key;

use crate::capture::TraceWriter;
use crate::session::{OpenError, OpenTap, Tap};

/// What waits to be written takes no more memory than this.
const MAX_WAITING: usize = 16 << 20;
/// What a record costs in the queue beside its bytes.
const RECORD_COST: usize = 96;
/// At the end of a session the file is waited for this long.
const FINISH_PATIENCE: Duration = Duration::from_millis(500);

/// Where a trace goes, and who is told how it fares.
#[derive(Clone)]
pub struct TraceConfig {
    path: PathBuf,
    tell: fn(&TraceNews),
}

/// What whoever asked for a trace should know.
#[derive(Debug)]
#[non_exhaustive]
pub enum TraceNews {
    /// Writing failed; the trace ends here and the session goes on.
    Failed {
        /// The trace's file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The trace has gaps: so many records did not fit into the queue.
    Dropped {
        /// The trace's file.
        path: PathBuf,
        /// How many records are missing.
        count: u64,
    },
    /// The session has ended before all was written.
    NotFinished {
        /// The trace's file.
        path: PathBuf,
    },
}

impl TraceConfig {
    /// A trace at `path`; `tell` is called on threads of the session's.
    #[must_use]
    pub const fn new(path: PathBuf, tell: fn(&TraceNews)) -> Self {
        Self { path, tell }
    }
}

impl OpenTap for TraceConfig {
    fn open(&self, key: Option<&Key>, listens_at: Option<SocketAddr>) -> Result<Box<dyn Tap>, OpenError> {
        let failed = |source| OpenError::Trace { path: self.path.clone(), source };
        let trace = Trace::start(self.clone(), key.cloned(), listens_at).map_err(failed)?;
        Ok(Box::new(trace))
    }
}

impl fmt::Debug for TraceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceConfig").field("path", &self.path).finish_non_exhaustive()
    }
}

impl fmt::Display for TraceNews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { path, error } => {
                write!(f, "the trace {} ends here: {error}; the session goes on without it", path.display())
            }
            Self::Dropped { path, count } => write!(
                f,
                "the trace {} has gaps: {count} records were not written, since the file is slower than the link",
                path.display()
            ),
            Self::NotFinished { path } => {
                write!(f, "the end of the trace {} is not written: the file is too slow", path.display())
            }
        }
    }
}

/// A tap whose file is written by a thread of its own. Dropping it ends the file.
#[derive(Debug)]
pub struct Trace {
    queue: Option<mpsc::Sender<Record>>,
    waiting: Arc<Waiting>,
    finished: mpsc::Receiver<()>,
    config: TraceConfig,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: AtomicUsize,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Record {
    time_ns: u64,
    is_outbound: bool,
    remote: Option<SocketAddr>,
    bytes: Box<[u8]>,
}

impl Trace {
    /// Makes the file, which only its owner may read, and writes its header. `key` opens datagrams for their plaintext;
    /// `listens_at` is this machine's end of them.
    ///
    /// # Errors
    /// The file cannot be made or written.
    pub fn start(config: TraceConfig, key: Option<Key>, listens_at: Option<SocketAddr>) -> io::Result<Self> {
        let mut writer = TraceWriter::new(BufWriter::new(create(&config.path)?), key)?;
        writer.flush()?;
        let waiting = Arc::<Waiting>::default();
        let (queue, records) = mpsc::channel();
        let (at_end, finished) = mpsc::channel();
        let task =
            Task { writer, ends: Ends { listens_at, last: None }, records, waiting: Arc::clone(&waiting) };
        let news = config.clone();
        std::thread::Builder::new().name("trace".into()).spawn(move || {
            let waiting = Arc::clone(&task.waiting);
            if let Err(error) = task.run() {
                (news.tell)(&TraceNews::Failed { path: news.path, error });
            } else if let count @ 1.. = waiting.dropped.load(Ordering::Relaxed) {
                (news.tell)(&TraceNews::Dropped { path: news.path, count });
            }
            // Nobody may wait any more.
            let _ = at_end.send(());
        })?;
        Ok(Self { queue: Some(queue), waiting, finished, config })
    }

    fn put(&mut self, is_outbound: bool, remote: Option<SocketAddr>, bytes: &[u8]) {
        let Some(queue) = &self.queue else { return };
        let cost = bytes.len() + RECORD_COST;
        if self.waiting.bytes.fetch_add(cost, Ordering::Relaxed) + cost > MAX_WAITING {
            self.waiting.bytes.fetch_sub(cost, Ordering::Relaxed);
            self.waiting.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_ns = u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX);
        if queue.send(Record { time_ns, is_outbound, remote, bytes: bytes.into() }).is_err() {
            // Writing has failed, which was told.
            self.queue = None;
        }
    }
}

impl Tap for Trace {
    fn sent(&mut self, to: Option<SocketAddr>, bytes: &[u8]) {
        self.put(true, to, bytes);
    }

    fn received(&mut self, from: Option<SocketAddr>, bytes: &[u8]) {
        self.put(false, from, bytes);
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.queue = None;
        if self.finished.recv_timeout(FINISH_PATIENCE) == Err(RecvTimeoutError::Timeout) {
            (self.config.tell)(&TraceNews::NotFinished { path: self.config.path.clone() });
        }
    }
}

/// What the thread has.
struct Task {
    writer: TraceWriter<BufWriter<File>>,
    ends: Ends,
    records: mpsc::Receiver<Record>,
    waiting: Arc<Waiting>,
}

impl Task {
    fn run(mut self) -> io::Result<()> {
        loop {
            let record = match self.records.try_recv() {
                Ok(record) => record,
                Err(TryRecvError::Disconnected) => return self.writer.flush(),
                Err(TryRecvError::Empty) => {
                    // Whoever looks at the file, or kills the program, finds all that has happened.
                    self.writer.flush()?;
                    let Ok(record) = self.records.recv() else { return Ok(()) };
                    record
                }
            };
            self.waiting.bytes.fetch_sub(record.bytes.len() + RECORD_COST, Ordering::Relaxed);
            let Record { time_ns, is_outbound, remote, bytes } = record;
            match remote {
                Some(remote) => {
                    let here = self.ends.this_end_towards(remote);
                    let (source, destination) = if is_outbound { (here, remote) } else { (remote, here) };
                    self.writer.write_datagram(time_ns, source, destination, is_outbound, &bytes)?;
                }
                None => self.writer.write_line(time_ns, is_outbound, &bytes)?,
            }
        }
    }
}

/// This machine's addresses.
struct Ends {
    listens_at: Option<SocketAddr>,
    last: Option<(SocketAddr, SocketAddr)>,
}

impl Ends {
    /// The address that this machine has towards `remote`: a socket that listens at any does not know it.
    fn this_end_towards(&mut self, remote: SocketAddr) -> SocketAddr {
        if let Some((_, here)) = self.last.filter(|(known, _)| *known == remote) {
            return here;
        }
        let any: SocketAddr = match remote {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let listens_at = self.listens_at.unwrap_or(any);
        let here = if listens_at.ip().is_unspecified() {
            // Connecting a datagram socket sends nothing: it asks for the route.
            let route = UdpSocket::bind(any).and_then(|it| it.connect(remote).and_then(|()| it.local_addr()));
            SocketAddr::new(route.map_or_else(|_| listens_at.ip(), |it| it.ip()), listens_at.port())
        } else {
            listens_at
        };
        self.last = Some((remote, here));
        here
    }
}

#[cfg(unix)]
fn create(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    // A file that was there keeps the rights that it had. What is no file (/dev/full, a pipe) has none of ours.
    if file.metadata()?.is_file() {
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

#[cfg(not(unix))]
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).open(path)
}

#[cfg(all(test, unix))]
mod tests {
    use std::sync::Mutex;

    use super::*;

    static NEWS: Mutex<Vec<String>> = Mutex::new(Vec::new());

    fn note(news: &TraceNews) {
        NEWS.lock().unwrap().push(news.to_string());
    }

    fn news_of(path: &Path) -> Vec<String> {
        let name = path.display().to_string();
        NEWS.lock().unwrap().iter().filter(|it| it.contains(&name)).cloned().collect()
    }

    #[test]
    fn a_trace_is_for_its_owner_only_even_where_a_file_was() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.pcapng");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        drop(Trace::start(TraceConfig::new(path.clone(), note), None, None).unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(std::fs::read(&path).unwrap().starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]));
    }

    /// A pipe whose reader takes nothing: the thread stands in a write while the tap goes on.
    #[test]
    fn a_file_that_takes_nothing_holds_nobody_and_the_loss_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("slow");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let reader = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mut trace = Trace::start(TraceConfig::new(path.clone(), note), None, None).unwrap();
        let piece = vec![0; 1 << 20];
        for _ in 0..40 {
            trace.sent(None, &piece);
        }
        let dropped = trace.waiting.dropped.load(Ordering::Relaxed);
        assert!((20..40).contains(&dropped), "{dropped} of 40 MiB, 16 of which may wait");
        drop(trace);
        assert_eq!(news_of(&path).len(), 1, "the end is missing, once");
        drop(reader);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_told_once_and_the_tap_goes_on() {
        // The header alone is not written through, so that opening succeeds only where nothing is written.
        let result = Trace::start(TraceConfig::new("/dev/full".into(), note), None, None);
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gone");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let reader = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mut trace = Trace::start(TraceConfig::new(path.clone(), note), None, None).unwrap();
        drop(reader);
        trace.sent(None, b"first");
        trace.finished.recv_timeout(Duration::from_secs(60)).expect("the thread ends by itself");
        for _ in 0..100 {
            trace.sent(None, b"more");
        }
        let told = news_of(&path);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("the session goes on without it"), "{told:?}");
    }
}
