//! Fetches symbol files from servers into a store.
//!
//! ```text
//!  SERVER/name/GUIDage/name --> STORE/name/GUIDage/.name.x7Kq2p (whole? of the wanted build?) --rename--> name
//! ```
//! Nothing is at the final name before it is whole and its GUID and age are the wanted ones, so neither a broken
//! transfer nor a lying server leaves anything behind. A transfer that breaks is resumed where the server says that the
//! file is still the same, and begun again elsewhere. What a server does not have is asked once a session.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use ureq::http::header::{self, HeaderMap};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, Proxy, http};

use super::Watch;
use super::error::{Miss, url_of};
use crate::symbols::PdbIdentity;
use crate::symbols::pdb::PdbFile;

/// How long and how often a server is tried.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Until a connection stands.
    pub connect: Duration,
    /// Between two bytes: a server that is silent for longer has stalled.
    pub silence: Duration,
    /// For a whole file.
    pub whole: Duration,
    /// Requests made for one file, the first included.
    pub tries: u32,
    /// Wait before the second request; twice as long before the third.
    pub pause: Duration,
    /// Largest file taken.
    pub max_bytes: u64,
}

/// How often it is looked whether the user has had enough.
const ATTENTION: Duration = Duration::from_millis(50);

/// For a person who waits: Microsoft's server answers within a second, and gives a kernel's PDB in a few.
impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            silence: Duration::from_secs(15),
            whole: Duration::from_secs(30 * 60),
            tries: 3,
            pause: Duration::from_millis(500),
            max_bytes: 2 << 30,
        }
    }
}

/// Why a server did not give a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// It does not have it.
    #[error("the server has no such file (status {0})")]
    Absent(u16),
    /// It refuses, or has a fault of its own.
    #[error("the server answered with status {status} to {tries} request{}", plural(*tries))]
    Status {
        /// HTTP status of the last answer.
        status: u16,
        /// Requests made.
        tries: u32,
    },
    /// The transfer broke each time.
    #[error("the transfer broke off after {received:#x} bytes, at try {tries}: {reason}")]
    Broken {
        /// Bytes that were there at the last break.
        received: u64,
        /// Requests made.
        tries: u32,
        /// What the network said.
        reason: String,
    },
    /// No connection, or no answer.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// It may be somebody else: nothing was asked of it.
    #[error(
        "its certificate is not to be trusted: {0}; where a proxy inspects TLS, this machine has to trust the proxy's \
         root certificate (SSL_CERT_FILE may name it)"
    )]
    Certificate(String),
    /// An earlier file was not to be had for this reason; nothing was sent for this one.
    #[error("not asked, since it did not answer before ({0}); .reload asks again")]
    NotAsked(String),
    /// The file is larger than any symbol file should be.
    #[error("the file has more than {0:#x} bytes, refused")]
    TooLarge(u64),
    /// What arrived is no symbol file of the wanted build.
    #[error("what the server gave was refused: {0}")]
    Refused(String),
    /// What arrived cannot be kept.
    #[error("cannot write {}: {reason}", path.display())]
    Store {
        /// Folder or file.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
    /// The user gave up.
    #[error("interrupted")]
    Interrupted,
}

const fn plural(count: u32) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// What servers have said in this session.
#[derive(Debug)]
pub(super) struct Servers {
    limits: Limits,
    agent: OnceLock<Agent>,
    /// Files that are not there, by URL.
    absent: Mutex<HashMap<String, u16>>,
    /// Servers that did not answer, and why.
    silent: Mutex<HashMap<String, String>>,
}

impl Servers {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, agent: OnceLock::new(), absent: Mutex::default(), silent: Mutex::default() }
    }

    /// Asks again those that did not answer, and what they did not have too if `all`.
    pub(super) fn forget(&self, all: bool) {
        lock(&self.silent).clear();
        if all {
            lock(&self.absent).clear();
        }
    }

    /// Fetches `wanted` from `server` into the store `folder`. Returns the file there.
    pub(super) fn fetch(
        &self,
        server: &str,
        wanted: &PdbIdentity,
        folder: &Path,
        watch: &Arc<dyn Watch>,
    ) -> Result<PathBuf, Miss> {
        let url = url_of(server, wanted);
        if let Some(status) = lock(&self.absent).get(&url) {
            return Err(FetchError::Absent(*status).into());
        }
        if let Some(why) = lock(&self.silent).get(server) {
            return Err(FetchError::NotAsked(why.clone()).into());
        }
        // Who has had enough of one file does not want to wait for the next.
        if watch.is_cancelled() {
            return Err(FetchError::Interrupted.into());
        }
        let key = folder.join(&wanted.name).join(wanted.to_string());
        watch.begins(&url);
        let result = self.fetch_into(&url, wanted, &key, watch);
        watch.ended(&url);
        match &result {
            Err(Miss::Fetch(FetchError::Absent(status))) => {
                lock(&self.absent).insert(url, *status);
            }
            Err(Miss::Fetch(FetchError::NoAnswer(why))) => {
                lock(&self.silent).insert(server.to_owned(), why.clone());
            }
            _ => {}
        }
        if result.is_err() {
            // Only what this made and left empty goes away; a folder with files in it stays.
            let _ = std::fs::remove_dir(&key).and_then(|()| std::fs::remove_dir(folder.join(&wanted.name)));
        }
        result
    }

    fn fetch_into(
        &self,
        url: &str,
        wanted: &PdbIdentity,
        key: &Path,
        watch: &Arc<dyn Watch>,
    ) -> Result<PathBuf, Miss> {
        let keep = |path: &Path, error: io::Error| FetchError::Store {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        std::fs::create_dir_all(key).map_err(|error| keep(key, error))?;
        let part = tempfile::Builder::new()
            .prefix(&format!(".{}.", wanted.name))
            .tempfile_in(key)
            .map_err(|error| keep(key, error))?;
        let same_file = part.as_file().try_clone().map_err(|error| keep(part.path(), error))?;
        let transfer = Transfer {
            agent: self.agent().clone(),
            limits: self.limits.clone(),
            url: url.to_owned(),
            watch: Arc::clone(watch),
            is_abandoned: Arc::default(),
            received: 0,
            validator: None,
        };
        transfer.run_apart(same_file)?;
        check(part.path(), wanted)?;
        let file = key.join(&wanted.name);
        match part.persist(&file) {
            Ok(_) => Ok(file),
            // Another process may have been faster, and its file may be open.
            Err(_) if check(&file, wanted).is_ok() => Ok(file),
            Err(error) => Err(keep(&file, error.error).into()),
        }
    }

    fn agent(&self) -> &Agent {
        self.agent.get_or_init(|| {
            // Companies that inspect TLS install their own root on the machine, so its roots are the ones to trust.
            let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
            // WinDbg's own variable wins over those that every program reads.
            let windbg = std::env::var("_NT_SYMBOL_PROXY").ok().and_then(|proxy| Proxy::new(&proxy).ok());
            let config = Agent::config_builder()
                .http_status_as_error(false)
                .user_agent(concat!("verikd/", env!("CARGO_PKG_VERSION")))
                .tls_config(tls)
                .proxy(windbg.or_else(Proxy::try_from_env))
                .timeout_connect(Some(self.limits.connect))
                .timeout_recv_response(Some(self.limits.silence))
                .timeout_per_read(Some(self.limits.silence))
                .timeout_recv_body(Some(self.limits.whole))
                .build();
            config.new_agent()
        })
    }
}

/// One file on its way.
struct Transfer {
    agent: Agent,
    limits: Limits,
    url: String,
    watch: Arc<dyn Watch>,
    /// True once nobody waits for it.
    is_abandoned: Arc<AtomicBool>,
    /// Bytes written so far.
    received: u64,
    /// What the server calls this version of the file; only with one is a transfer resumed.
    validator: Option<String>,
}

/// How one request ended, if not with the whole file.
enum Setback {
    /// Another request may do better.
    Again(FetchError),
    /// None will.
    Final(FetchError),
}

impl Transfer {
    /// Runs on a thread of its own: whoever has had enough need not wait until a silent server is given up, while a
    /// machine may be standing still.
    fn run_apart(self, part: File) -> Result<(), FetchError> {
        let (watch, is_abandoned) = (Arc::clone(&self.watch), Arc::clone(&self.is_abandoned));
        let (done, ended) = mpsc::sync_channel(1);
        let run = move || {
            // Nobody listens any more to a transfer that was abandoned.
            let _ = done.send(self.run(part));
        };
        let thread = std::thread::Builder::new().name("transfer".into()).spawn(run);
        thread.map_err(|error| FetchError::NoAnswer(error.to_string()))?;
        loop {
            match ended.recv_timeout(ATTENTION) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) if watch.is_cancelled() => {
                    is_abandoned.store(true, Ordering::Release);
                    return Err(FetchError::Interrupted);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("the thread sends before it ends"),
            }
        }
    }

    fn is_over(&self) -> bool {
        self.is_abandoned.load(Ordering::Acquire) || self.watch.is_cancelled()
    }

    fn run(mut self, mut part: File) -> Result<(), FetchError> {
        let mut pause = self.limits.pause;
        for tried in 1.. {
            match self.request(&mut part, tried) {
                Ok(()) => return Ok(()),
                Err(Setback::Final(error)) => return Err(error),
                Err(Setback::Again(error)) if tried >= self.limits.tries => return Err(error),
                Err(Setback::Again(_)) => {}
            }
            if self.is_over() {
                return Err(FetchError::Interrupted);
            }
            std::thread::sleep(pause);
            pause *= 2;
        }
        unreachable!("the loop ends at the last try")
    }

    fn request(&mut self, part: &mut File, tries: u32) -> Result<(), Setback> {
        let mut request = self.agent.get(&self.url);
        if let (1.., Some(validator)) = (self.received, &self.validator) {
            request = request
                .header(header::RANGE, format!("bytes={}-", self.received))
                .header(header::IF_RANGE, validator);
        }
        let response = request.call().map_err(|error| self.lost(&error, tries))?;
        let (head, body) = response.into_parts();
        match head.status.as_u16() {
            206 if resumes_at(&head.headers) == Some(self.received) => {}
            200 => self.received = 0,
            status @ (403 | 404 | 410) => return Err(Setback::Final(FetchError::Absent(status))),
            status @ (206 | 408 | 416 | 429 | 500..=599) => {
                self.validator = None;
                return Err(Setback::Again(FetchError::Status { status, tries }));
            }
            status => return Err(Setback::Final(FetchError::Status { status, tries })),
        }
        self.validator = validator(&head.headers);
        let total = length(&head).map(|rest| self.received.saturating_add(rest));
        self.receive(body, total, part, tries)
    }

    fn receive(
        &mut self,
        mut body: Body,
        total: Option<u64>,
        part: &mut File,
        tries: u32,
    ) -> Result<(), Setback> {
        let max = self.limits.max_bytes;
        if total.is_some_and(|total| total > max) {
            return Err(Setback::Final(FetchError::TooLarge(max)));
        }
        let keep = |error: io::Error| {
            let path = PathBuf::from("the symbol store");
            Setback::Final(FetchError::Store { path, reason: error.to_string() })
        };
        part.set_len(self.received).and_then(|()| part.seek(SeekFrom::Start(self.received))).map_err(keep)?;
        let mut reader = body.as_reader();
        let mut chunk = vec![0; 0x1_0000];
        loop {
            if self.is_abandoned.load(Ordering::Acquire) {
                return Err(Setback::Final(FetchError::Interrupted));
            }
            self.watch.received(&self.url, self.received, total);
            if self.is_over() {
                return Err(Setback::Final(FetchError::Interrupted));
            }
            let len = reader.read(&mut chunk).map_err(|error| Setback::Again(self.broken(&error, tries)))?;
            if len == 0 {
                break;
            }
            self.received += len as u64;
            if self.received > max {
                return Err(Setback::Final(FetchError::TooLarge(max)));
            }
            part.write_all(&chunk[..len]).map_err(keep)?;
        }
        match total {
            Some(total) if self.received < total => {
                let end = io::Error::from(io::ErrorKind::UnexpectedEof);
                Err(Setback::Again(self.broken(&end, tries)))
            }
            _ => part.flush().map_err(keep),
        }
    }

    /// A request that got no answer; after a broken transfer still that.
    fn lost(&self, error: &ureq::Error, tries: u32) -> Setback {
        let reason = error.to_string();
        if let Some((_, why)) = reason.split_once("invalid peer certificate: ") {
            return Setback::Final(FetchError::Certificate(why.to_owned()));
        }
        Setback::Again(match self.received {
            0 => FetchError::NoAnswer(reason),
            received => FetchError::Broken { received, tries, reason },
        })
    }

    fn broken(&self, error: &io::Error, tries: u32) -> FetchError {
        FetchError::Broken { received: self.received, tries, reason: error.to_string() }
    }
}

/// Checks that `file` is whole and the wanted build's.
fn check(file: &Path, wanted: &PdbIdentity) -> Result<(), FetchError> {
    let refused = |what: String| Err(FetchError::Refused(what));
    let mut head = [0; 16];
    let len = File::open(file).and_then(|mut file| file.read(&mut head)).unwrap_or(0);
    let head = &head[..len];
    if head.starts_with(b"MSCF") {
        return refused("a compressed cabinet, as symstore /compress writes it".to_owned());
    }
    let text = head.trim_ascii_start();
    if text.starts_with(b"<") {
        return refused(
            "a web page, not a symbol file; a proxy or a login page may stand before the server".to_owned(),
        );
    }
    match PdbFile::open(file) {
        Ok(pdb) if pdb.identity().same_build(wanted) => Ok(()),
        Ok(pdb) => refused(format!("it belongs to another build (identity {})", pdb.identity())),
        Err(error) => refused(error.what()),
    }
}

/// Where a partial answer begins: `Content-Range: bytes 4096-8191/8192`.
fn resumes_at(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(header::CONTENT_RANGE)?.to_str().ok()?.trim();
    range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

/// A strong entity tag, or else the time of the last change.
fn validator(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::to_owned);
    let tag = text(header::ETAG).filter(|tag| !tag.starts_with("W/"));
    tag.or_else(|| text(header::LAST_MODIFIED))
}

fn length(head: &http::response::Parts) -> Option<u64> {
    head.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
