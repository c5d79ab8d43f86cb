//! A small HTTP server with one page of text, on a thread of its own: who reads it, and how slowly, holds up nobody else.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};

/// Where the figures are.
const PATH: &str = "/metrics";
const PROMETHEUS_TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const PLAIN_TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// Connections at a time; others wait.
const MOST_CONNECTIONS: usize = 32;
/// Who does not say within this what is wanted is not waited for.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// A connection ends after this, whatever it is used for. Prometheus makes another.
const LONGEST_CONNECTION: Duration = Duration::from_secs(120);
/// Bytes of a request's head.
const LARGEST_HEAD: usize = 16 << 10;
/// A system without a free descriptor is asked again after this.
const PAUSE: Duration = Duration::from_millis(100);

/// Why figures cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// It is no place.
    #[error(
        "`{place}` is no address with a port ({why}). Write 127.0.0.1:9464 for this machine alone, [::1]:9464 for the same by \
         IPv6, 0.0.0.0:9464 or [::]:9464 for whoever reaches it"
    )]
    Place {
        /// What was typed.
        place: String,
        /// What the system says.
        why: io::Error,
    },
    /// Somebody else is there.
    #[error("metrics cannot be served at {0}: another program listens there already; take another port")]
    InUse(SocketAddr),
    /// The port is not for everyone.
    #[error(
        "metrics cannot be served at {0}: the system does not let this user have that port; take one from 1024 on, such as 9464"
    )]
    NotPermitted(SocketAddr),
    /// The address is another machine's.
    #[error("metrics cannot be served at {0}: no network interface of this machine has that address")]
    NotHere(SocketAddr),
    /// Anything else.
    #[error("metrics cannot be served at {address}: {why}")]
    Io {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        why: io::Error,
    },
}

impl EndpointError {
    /// True if what was typed cannot be right anywhere.
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        matches!(self, Self::Place { .. })
    }
}

/// A place where `GET /metrics` is answered with the text that was shown last, until this is dropped.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    text: Arc<Mutex<Bytes>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Endpoint {
    /// Listens at `place`, an address or a name with a port: of several addresses that a name has, at the first that can be had.
    /// Port 0 is one that the system chooses.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub fn bind(place: &str) -> Result<Self, EndpointError> {
        let not_a_place = |why| EndpointError::Place { place: place.to_owned(), why };
        let addresses: Vec<SocketAddr> = place.to_socket_addrs().map_err(not_a_place)?.collect();
        let mut refused = not_a_place(io::Error::other("the name has no address"));
        for address in addresses {
            match Self::listen(address) {
                Ok(endpoint) => return Ok(endpoint),
                Err(why) => refused = why_not(address, why),
            }
        }
        Err(refused)
    }

    fn listen(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let text = Arc::new(Mutex::new(Bytes::new()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let listener = {
            let _entered = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let (stop, stopped) = oneshot::channel();
        let shown = Arc::clone(&text);
        let thread = std::thread::Builder::new().name("metrics".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = serve(&listener, &shown) => {}
                }
            });
        })?;
        Ok(Self { address, text, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the figures are: `http://127.0.0.1:9464/metrics`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}{PATH}", self.address)
    }

    /// From now on this is what is served.
    pub fn show(&self, text: String) {
        *self.text.lock().unwrap_or_else(PoisonError::into_inner) = text.into();
    }
}

/// Nobody listens there any more afterwards, and no connection is left.
impl Drop for Endpoint {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn why_not(address: SocketAddr, why: io::Error) -> EndpointError {
    match why.kind() {
        io::ErrorKind::AddrInUse => EndpointError::InUse(address),
        io::ErrorKind::PermissionDenied => EndpointError::NotPermitted(address),
        io::ErrorKind::AddrNotAvailable => EndpointError::NotHere(address),
        _ => EndpointError::Io { address, why },
    }
}

async fn serve(listener: &tokio::net::TcpListener, text: &Arc<Mutex<Bytes>>) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("nobody closes it");
        let Ok((stream, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let text = Arc::clone(text);
        tokio::spawn(async move {
            // How a reader goes is the reader's.
            let _ = timeout(LONGEST_CONNECTION, connection(stream, text)).await;
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, text: Arc<Mutex<Bytes>>) -> hyper::Result<()> {
    let service = service_fn(move |request: Request<_>| {
        let text = text.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let answer = answer(request.method(), request.uri().path(), text);
        async move { Ok::<_, Infallible>(answer) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_WITHIN)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

/// A body for HEAD too: the server counts it and leaves it out.
fn answer(method: &Method, path: &str, text: Bytes) -> Response<Full<Bytes>> {
    let told = |status, kind: HeaderValue, text: Bytes| {
        let mut response = Response::new(Full::new(text));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    };
    let plain = |status, text: &'static str| told(status, PLAIN_TEXT, Bytes::from_static(text.as_bytes()));
    match (method, path) {
        (&Method::GET | &Method::HEAD, PATH) => told(StatusCode::OK, PROMETHEUS_TEXT, text),
        (&Method::GET | &Method::HEAD, "/") => {
            plain(StatusCode::OK, "verikd watches a target; its figures for Prometheus are at /metrics\n")
        }
        (&Method::GET | &Method::HEAD, _) => plain(StatusCode::NOT_FOUND, "The figures are at /metrics\n"),
        _ => {
            let mut refused = plain(
                StatusCode::METHOD_NOT_ALLOWED,
                "Figures are read with GET, and nothing else is done\n",
            );
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            refused
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    /// What the endpoint says to these bytes until it closes the connection.
    fn said(endpoint: &Endpoint, request: &str) -> String {
        let mut stream = std::net::TcpStream::connect(endpoint.address()).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
    }

    fn asked(endpoint: &Endpoint, line: &str) -> String {
        said(endpoint, &format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
    }

    #[test]
    fn the_text_that_was_shown_last_is_served() {
        let endpoint = Endpoint::bind("127.0.0.1:0").unwrap();
        endpoint.show("verikd_up 0\n".into());
        endpoint.show("verikd_up 1\n".into());
        let said = asked(&endpoint, "GET /metrics");
        assert!(said.starts_with("HTTP/1.1 200 OK\r\n") && said.ends_with("\r\n\r\nverikd_up 1\n"), "{said}");
        assert!(said.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{said}");
        let head = asked(&endpoint, "HEAD /metrics");
        assert!(head.contains("content-length: 12\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        assert_eq!(endpoint.url(), format!("http://{}/metrics", endpoint.address()));
    }

    #[test]
    fn what_is_no_scrape_is_told_where_to_go() {
        let endpoint = Endpoint::bind("127.0.0.1:0").unwrap();
        for (line, status, text) in [
            ("GET /", "200", "are at /metrics"),
            ("GET /metric", "404", "are at /metrics"),
            ("GET /metrics/../etc/passwd", "404", "are at /metrics"),
            ("POST /metrics", "405", "allow: GET, HEAD"),
            ("DELETE /", "405", "nothing else is done"),
        ] {
            let said = asked(&endpoint, line);
            assert!(
                said.starts_with(&format!("HTTP/1.1 {status} ")) && said.contains(text),
                "{line}: {said}"
            );
        }
        assert!(said(&endpoint, "nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(2 * LARGEST_HEAD));
        let mut stream = std::net::TcpStream::connect(endpoint.address()).unwrap();
        // It may hang up before all is written.
        let _ = stream.write_all(long.as_bytes());
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        assert!(!String::from_utf8_lossy(&said).contains(" 200 "));
        assert!(asked(&endpoint, "GET /").contains(" 200 "), "it goes on");
    }

    #[test]
    fn it_goes_down_with_its_owner_and_takes_waiting_readers_along() {
        let endpoint = Endpoint::bind("127.0.0.1:0").unwrap();
        let address = endpoint.address();
        let mut idle = std::net::TcpStream::connect(address).unwrap();
        idle.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
        drop(endpoint);
        let mut rest = Vec::new();
        // A connection that was never accepted is reset instead of closed.
        let _ = idle.read_to_end(&mut rest);
        assert_eq!(rest, b"");
        assert!(std::net::TcpStream::connect(address).is_err());
        let again = Endpoint::bind(&address.to_string()).unwrap();
        assert!(asked(&again, "GET /").contains(" 200 "));
    }

    #[test]
    fn a_place_that_cannot_be_had_is_told_with_what_to_do() {
        let taken = Endpoint::bind("127.0.0.1:0").unwrap();
        let error = Endpoint::bind(&taken.address().to_string()).unwrap_err();
        assert!(matches!(error, EndpointError::InUse(at) if at == taken.address()) && !error.is_usage());
        assert!(error.to_string().contains("another program listens there already"));
        for place in ["9464", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", ":", ""] {
            let error = Endpoint::bind(place).unwrap_err();
            assert!(
                error.is_usage() && error.to_string().contains("Write 127.0.0.1:9464"),
                "{place}: {error}"
            );
        }
        // Kept for documentation: no machine has it.
        let error = Endpoint::bind("192.0.2.1:9464").unwrap_err();
        assert!(error.to_string().contains("no network interface of this machine"), "{error}");
    }

    #[test]
    fn a_port_of_the_system_s_is_told_apart() {
        let error = why_not("127.0.0.1:80".parse().unwrap(), io::ErrorKind::PermissionDenied.into());
        assert!(error.to_string().contains("take one from 1024 on"), "{error}");
    }

    #[test]
    fn ipv6_is_a_place_too() {
        match Endpoint::bind("[::1]:0") {
            Ok(endpoint) => {
                assert!(endpoint.url().starts_with("http://[::1]:"), "{}", endpoint.url());
                assert!(asked(&endpoint, "GET /").contains(" 200 "));
            }
            Err(EndpointError::NotHere(_)) => eprintln!("skipped: this machine has no IPv6"),
            Err(error) => panic!("{error}"),
        }
    }
}
