//! What lies between the program and a symbol server: a proxy, TLS, and certificates that are not to be believed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::live::Meeting;
use super::{Folder, every_pdb, every_pdb_served};

/// A name that no resolver has: only a proxy can lead there.
const NAME: &str = "symbols.example.invalid";

#[test]
fn a_proxy_of_the_environment_is_used_for_http_and_a_host_that_is_excepted_is_not() {
    let server = every_pdb_served();
    let proxy = Proxy::before(&server.url);
    let direct = [("HTTP_PROXY", &*proxy.url), ("NO_PROXY", "127.0.0.1")];
    assert_eq!(fetches(&server.url, &direct), Ok(()));
    assert_eq!(proxy.asked(), [""; 0], "127.0.0.1 is excepted");

    for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "_NT_SYMBOL_PROXY"] {
        let before = proxy.asked().len();
        assert_eq!(fetches(&format!("http://{NAME}"), &[(variable, &proxy.url)]), Ok(()), "{variable}");
        assert!(proxy.asked().len() > before, "{variable}");
        assert!(proxy.asked().iter().all(|asked| asked.contains(NAME)), "{:?}", proxy.asked());
    }
}

#[test]
fn a_proxy_that_is_not_there_ends_in_a_sentence() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error =
        fetches(&format!("http://{NAME}"), &[("HTTP_PROXY", &format!("http://{nobody}"))]).unwrap_err();
    let expected = format!("\n  http://{NAME}: not asked, since it did not answer before (");
    assert!(error.contains(&expected), "{error}");
}

#[test]
fn a_server_with_a_certificate_of_an_authority_that_the_machine_trusts_is_believed_through_a_proxy_too() {
    let authority = Authority::new();
    let server = TlsServer::start(&authority, &["127.0.0.1", NAME]);
    assert_eq!(fetches(&server.url, &[("SSL_CERT_FILE", &authority.file())]), Ok(()));

    let proxy = Proxy::before(&server.url.replace("https", "http"));
    let environment = [("SSL_CERT_FILE", &*authority.file()), ("HTTPS_PROXY", &proxy.url)];
    assert_eq!(fetches(&format!("https://{NAME}"), &environment), Ok(()));
    assert_eq!(proxy.asked()[0], format!("CONNECT {NAME}:443 HTTP/1.1"));
}

#[test]
fn a_certificate_that_is_not_to_be_believed_is_told_and_nothing_is_kept() {
    let (authority, other) = (Authority::new(), Authority::called("another authority"));
    let server = TlsServer::start(&authority, &["127.0.0.1"]);
    let error = fetches(&server.url, &[("SSL_CERT_FILE", &other.file())]).unwrap_err();
    assert!(error.contains("its certificate is not to be trusted: UnknownIssuer; where a proxy"), "{error}");

    let server = TlsServer::start(&authority, &[NAME]);
    let error = fetches(&server.url, &[("SSL_CERT_FILE", &authority.file())]).unwrap_err();
    assert!(
        error.contains("its certificate is not to be trusted: certificate not valid for name"),
        "{error}"
    );
    assert!(server.paths().is_empty(), "nothing was asked of a server that is not the one");
}

/// Has the program fetch the kernel's symbols from `url`, in this environment. What it says if it does not; then its
/// store has nothing either.
fn fetches(url: &str, environment: &[(&str, &str)]) -> Result<(), String> {
    let (store, meeting) = (Folder::new(), Meeting::new());
    let _target = meeting.boot();
    let mut program = meeting.program(store.path(), url);
    without_proxies(&mut program).args(["-c", "lm m nt"]).envs(environment.iter().copied());
    let output = program.output().unwrap();
    let (listed, status) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if listed.contains("(pdb symbols)") {
        assert!(!store.files().is_empty());
        return Ok(());
    }
    assert!(store.files().is_empty(), "{:?}", store.files());
    Err(status.into_owned())
}

fn without_proxies(program: &mut Command) -> &mut Command {
    for variable in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"] {
        program.env_remove(variable).env_remove(variable.to_ascii_lowercase());
    }
    program.env_remove("_NT_SYMBOL_PROXY")
}

/// Something that listens on loopback until it is dropped; each connection has a thread.
struct Listener {
    address: String,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    fn start(serve: impl Fn(TcpStream) -> Option<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let ends = Arc::new(AtomicBool::new(false));
        let (end, serve) = (Arc::clone(&ends), Arc::new(serve));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::Acquire) {
                    return;
                }
                let (stream, serve) = (stream.unwrap(), Arc::clone(&serve));
                // A debugger that has had enough closes its end; that is no fault of the server.
                std::thread::spawn(move || serve(stream));
            }
        });
        Self { address, ends, thread: Some(thread) }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        let _ = TcpStream::connect(&self.address);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// A proxy that leads every tunnel to the same server.
struct Proxy {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    _listener: Listener,
}

impl Proxy {
    fn before(server: &str) -> Self {
        let server = server.trim_start_matches("http://").to_owned();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let listener = Listener::start(move |client| {
            let head = read_head(&mut BufReader::new(client.try_clone().ok()?))?;
            log.lock().unwrap().push(head);
            let upstream = TcpStream::connect(&server).ok()?;
            (&client).write_all(b"HTTP/1.1 200 Established\r\n\r\n").ok()?;
            let back = (upstream.try_clone().ok()?, client.try_clone().ok()?);
            let answers = std::thread::spawn(move || carry(back.0, back.1));
            carry(client, upstream);
            answers.join().ok()
        });
        Self { url: format!("http://{}", listener.address), asked, _listener: listener }
    }

    /// The first line of every request.
    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

/// The first line of a request, whose other headers are passed over.
fn read_head(reader: &mut impl BufRead) -> Option<String> {
    let mut lines = reader.lines();
    let first = lines.next()?.ok()?;
    lines.take_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty())).last();
    Some(first)
}

/// An authority that signs certificates, and the file that makes a machine trust it.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        Self::called("an authority")
    }

    fn called(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut of_authority = CertificateParams::default();
        of_authority.distinguished_name.push(DnType::CommonName, name);
        of_authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = of_authority.self_signed(&key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("roots.pem"), certificate.pem()).unwrap();
        Self { issuer: Issuer::new(of_authority, key), folder }
    }

    fn file(&self) -> String {
        self.folder.path().join("roots.pem").display().to_string()
    }
}

/// A symbol server behind TLS.
struct TlsServer {
    url: String,
    paths: Arc<Mutex<Vec<String>>>,
    _listener: Listener,
}

impl TlsServer {
    /// Its certificate is for these names.
    fn start(authority: &Authority, names: &[&str]) -> Self {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().copied().map(str::to_owned).collect();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &authority.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let (config, files): (_, BTreeMap<_, _>) = (Arc::new(config), every_pdb());
        let paths = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&paths);
        let listener = Listener::start(move |stream| {
            let connection = ServerConnection::new(Arc::clone(&config)).ok()?;
            let mut stream = BufReader::new(StreamOwned::new(connection, stream));
            let path = read_head(&mut stream)?.split(' ').nth(1)?.to_owned();
            let body = files.get(&path).map_or(&[][..], Vec::as_slice);
            log.lock().unwrap().push(path);
            let status = if body.is_empty() { "404 Not Found" } else { "200 OK" };
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
            let stream = stream.get_mut();
            stream.write_all(&[head.as_bytes(), body].concat()).ok()?;
            stream.conn.send_close_notify();
            stream.flush().ok()?;
            // Until the other end has closed too, so that nothing it has not read yet is lost.
            stream.read_to_end(&mut Vec::new()).ok().map(drop)
        });
        Self { url: format!("https://{}", listener.address), paths, _listener: listener }
    }

    /// What was asked for.
    fn paths(&self) -> Vec<String> {
        self.paths.lock().unwrap().clone()
    }
}
