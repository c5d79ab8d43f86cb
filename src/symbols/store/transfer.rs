//! One file over HTTP: asked for, resumed where it broke off, ended when nobody waits for it any more.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ureq::http::header::{self, HeaderMap};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, Proxy, http};

use super::error::FetchError;
use super::limits::Limits;
use super::watch::Watch;

/// How often it is looked whether the user has had enough.
const ATTENTION: Duration = Duration::from_millis(50);

/// Transfers of one session.
#[derive(Debug)]
pub(super) struct Transfers {
    limits: Limits,
    agent: OnceLock<Agent>,
}

impl Transfers {
    pub(super) const fn new(limits: Limits) -> Self {
        Self { limits, agent: OnceLock::new() }
    }

    /// Writes what is at `url` to `part`.
    pub(super) fn run(&self, url: &str, part: File, watch: &Arc<dyn Watch>) -> Result<(), FetchError> {
        let transfer = Transfer {
            agent: self.agent().clone(),
            limits: self.limits.clone(),
            url: url.to_owned(),
            watch: Arc::clone(watch),
            is_abandoned: Arc::default(),
            received: 0,
            validator: None,
        };
        transfer.run_apart(part)
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
