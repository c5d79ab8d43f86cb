//! A symbol server on loopback that does what it is told, right or wrong, and counts what it was asked.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What a debugger asked for.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) path: String,
    /// First byte of `Range: bytes=N-`.
    pub(crate) range: Option<u64>,
    pub(crate) if_range: Option<String>,
}

/// What it is given.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// The file, or the part that was asked for if `tag` is still the file's.
    File { bytes: Vec<u8>, tag: Option<&'static str> },
    /// Only so many bytes of it, and then the connection closes.
    BreaksOff { bytes: Vec<u8>, tag: Option<&'static str>, after: usize },
    /// Only so many bytes of it, and then silence.
    Stalls { bytes: Vec<u8>, after: usize },
    /// All of it, with this length in the header.
    SaysLength { bytes: Vec<u8>, length: usize },
    /// All of it, with no length at all.
    NoLength(Vec<u8>),
    /// A status and no file.
    Status(u16),
    /// Another place.
    Redirect(String),
}

/// A server that stops when dropped.
pub(crate) struct Server {
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<Request>>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// `reply` is called with each request and how many there were before it.
    pub(crate) fn start(reply: impl Fn(&Request, usize) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let ends = Arc::new(AtomicBool::new(false));
        let (log, end) = (Arc::clone(&requests), Arc::clone(&ends));
        let thread = std::thread::spawn(move || {
            let mut stalled = Vec::new();
            for stream in listener.incoming() {
                if end.load(Ordering::Acquire) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let Some(request) = read_request(&stream) else { continue };
                let before = {
                    let mut log = log.lock().unwrap();
                    log.push(request.clone());
                    log.len() - 1
                };
                // A debugger that has had enough closes its end; that is no fault of the server.
                let _ = answer(&stream, &request, &reply(&request, before), &mut stalled);
            }
        });
        Self { url, requests, ends, thread: Some(thread) }
    }

    /// Everything asked for so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        // Wakes the thread, which then sees that it is to end.
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut lines = BufReader::new(stream).lines();
    let path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
    let mut request = Request { path, range: None, if_range: None };
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                request.range = value.trim().strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok();
            }
            "if-range" => request.if_range = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    Some(request)
}

fn answer(
    mut stream: &TcpStream,
    request: &Request,
    reply: &Reply,
    stalled: &mut Vec<TcpStream>,
) -> std::io::Result<()> {
    let mut head = |status: &str, headers: &str| {
        write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n")
    };
    let (bytes, tag, length, sent) = match reply {
        Reply::Status(status) => return head(&format!("{status} Told To"), "Content-Length: 0\r\n"),
        Reply::Redirect(to) => {
            return head("302 Found", &format!("Location: {to}\r\nContent-Length: 0\r\n"));
        }
        Reply::NoLength(bytes) => {
            head("200 OK", "")?;
            return stream.write_all(bytes);
        }
        Reply::File { bytes, tag } => (bytes, *tag, bytes.len(), bytes.len()),
        Reply::BreaksOff { bytes, tag, after } => (bytes, *tag, bytes.len(), *after),
        Reply::Stalls { bytes, after } => (bytes, None, bytes.len(), *after),
        Reply::SaysLength { bytes, length } => (bytes, None, *length, bytes.len()),
    };
    let tag_line = tag.map_or_else(String::new, |tag| format!("ETag: {tag}\r\n"));
    let from = request.range.filter(|_| tag.is_some() && request.if_range.as_deref() == tag);
    let from = from.map_or(0, |from| from as usize);
    if from > 0 {
        let range = format!("Content-Range: bytes {from}-{}/{length}\r\n", length - 1);
        head("206 Partial Content", &format!("{tag_line}{range}Content-Length: {}\r\n", length - from))?;
    } else {
        head("200 OK", &format!("{tag_line}Content-Length: {length}\r\n"))?;
    }
    stream.write_all(&bytes[from..sent.max(from)])?;
    if matches!(reply, Reply::Stalls { .. }) {
        stalled.push(stream.try_clone()?);
        return Ok(());
    }
    stream.shutdown(Shutdown::Write)
}
