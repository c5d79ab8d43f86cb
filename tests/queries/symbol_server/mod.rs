//! Symbol servers, good and bad: every case ends in a right file or a clear sentence, and never in a poisoned store.

mod live;
mod network;
mod server;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::machine::{Still, version_of};
use crate::support::text::{assert_same_text, run, text};
use server::{Reply, Server};
use tempfile::TempDir;
use verikd::symbols::PdbIdentity;
use verikd::symbols::pdb::PdbFile;
use verikd::symbols::store::{Attempt, FetchError, Limits, Miss, NotFound, SymbolPath, SymbolSource, Watch};
use verikd::target::{Kernel, Target};
use verikd_sim::windows::{Machine, WINDOWS_7_SP1};

#[test]
fn a_file_is_fetched_once_and_kept_in_the_store() {
    let file = Pdb::new();
    let server = file.served();
    let store = Folder::new();
    assert_eq!(store.source(&server).load(&file.identity).unwrap().identity(), &file.identity);
    assert_eq!(store.files(), [file.place_in_store()]);
    assert_eq!(std::fs::read(store.path().join(file.place_in_store())).unwrap(), file.bytes);
    assert_eq!(server.requests()[0].path, format!("/{}", file.place_in_store()));

    store.source(&server).load(&file.identity).unwrap();
    assert_eq!(server.requests().len(), 1, "the second run finds it in the store");
}

#[test]
fn a_cache_before_the_server_keeps_the_file() {
    let file = Pdb::new();
    let server = file.served();
    let store = Folder::new();
    let path = format!("cache*{};/nowhere;srv*{}", store.path().display(), server.url);
    for _ in 0..2 {
        source(&path).load(&file.identity).unwrap();
    }
    assert_eq!((server.requests().len(), store.files()), (1, vec![file.place_in_store()]));
}

#[test]
fn a_redirect_is_followed() {
    let file = Pdb::new();
    let elsewhere = file.served();
    let to = format!("{}/{}", elsewhere.url, file.place_in_store());
    let server = Server::start(move |_, _| Reply::Redirect(to.clone()));
    let store = Folder::new();
    store.source(&server).load(&file.identity).unwrap();
    assert_eq!((server.requests().len(), elsewhere.requests().len()), (1, 1));
}

#[test]
fn an_endless_redirect_ends_in_a_sentence() {
    let server = Server::start(|request, _| Reply::Redirect(request.path.clone()));
    let (error, store) = refused_by(&server);
    assert!(error.contains("redirect"), "{error}");
    assert!(store.files().is_empty());
}

#[test]
fn a_broken_transfer_is_resumed_where_it_broke() {
    let file = Pdb::new();
    let bytes = file.bytes.clone();
    let server = Server::start(move |_, before| match before {
        0 => Reply::BreaksOff { bytes: bytes.clone(), tag: Some("\"one\""), after: bytes.len() / 2 },
        _ => Reply::File { bytes: bytes.clone(), tag: Some("\"one\"") },
    });
    let store = Folder::new();
    store.source(&server).load(&file.identity).unwrap();
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[1].range, Some(file.bytes.len() as u64 / 2));
    assert_eq!(std::fs::read(store.path().join(file.place_in_store())).unwrap(), file.bytes);
}

#[test]
fn a_transfer_begins_again_where_the_file_has_changed_or_has_no_tag() {
    let file = Pdb::new();
    for first_tag in [Some("\"old\""), None] {
        let bytes = file.bytes.clone();
        let server = Server::start(move |_, before| match before {
            0 => Reply::BreaksOff { bytes: vec![b'x'; bytes.len()], tag: first_tag, after: bytes.len() / 3 },
            _ => Reply::File { bytes: bytes.clone(), tag: Some("\"new\"") },
        });
        let store = Folder::new();
        store.source(&server).load(&file.identity).unwrap();
        assert_eq!(std::fs::read(store.path().join(file.place_in_store())).unwrap(), file.bytes);
        assert_eq!(server.requests()[1].range.is_some(), first_tag.is_some());
    }
}

#[test]
fn a_server_that_stalls_is_given_up() {
    let file = Pdb::new();
    let server = Server::start(move |_, _| Reply::Stalls { bytes: file.bytes.clone(), after: 100 });
    let (error, store) = refused_by(&server);
    assert!(
        error.contains("the transfer broke off after 0x64 bytes, at try 3: timeout: per read"),
        "{error}"
    );
    assert!(store.files().is_empty());
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn a_false_length_is_found_out() {
    let file = Pdb::new();
    let bytes = file.bytes.clone();
    let shorter = bytes.len() - 0x1000;
    let server = Server::start(move |_, _| Reply::SaysLength { bytes: bytes.clone(), length: shorter });
    let (error, store) = refused_by(&server);
    assert!(error.contains("refused: damaged: container header: cut off"), "{error}");
    assert!(store.files().is_empty());

    let bytes = file.bytes.clone();
    let longer = bytes.len() + 0x1000;
    let server = Server::start(move |_, _| Reply::SaysLength { bytes: bytes.clone(), length: longer });
    let (error, store) = refused_by(&server);
    assert!(error.contains("the transfer broke off") && error.contains("at try 3"), "{error}");
    assert!(store.files().is_empty());
}

#[test]
fn a_file_without_a_length_is_checked_like_any_other() {
    let file = Pdb::new();
    let bytes = file.bytes.clone();
    let server = Server::start(move |_, _| Reply::NoLength(bytes.clone()));
    Folder::new().source(&server).load(&file.identity).unwrap();
    let bytes = file.bytes[..0x2345].to_vec();
    let server = Server::start(move |_, _| Reply::NoLength(bytes.clone()));
    let (error, store) = refused_by(&server);
    assert!(error.contains("cut off"), "{error}");
    assert!(store.files().is_empty());
}

#[test]
fn what_a_server_does_not_have_is_asked_once_a_session() {
    let server = Server::start(|_, _| Reply::Status(404));
    let (file, store) = (Pdb::new(), Folder::new());
    let source = store.source(&server);
    for _ in 0..3 {
        let error = source.load(&file.identity).unwrap_err();
        assert!(matches!(last(&error), Miss::Fetch(FetchError::Absent(404))), "{error}");
        assert!(error.to_string().ends_with("the server has no such file (status 404)"), "{error}");
        source.look_again(false);
    }
    assert_eq!(server.requests().len(), 1);
    source.look_again(true);
    source.load(&file.identity).unwrap_err();
    assert_eq!(server.requests().len(), 2, ".reload /f asks again");
    assert!(store.files().is_empty() && !store.path().join(&file.identity.name).exists());
}

#[test]
fn a_server_with_a_fault_is_tried_a_few_times() {
    let file = Pdb::new();
    let bytes = file.bytes.clone();
    let server = Server::start(move |_, before| match before {
        0 | 1 => Reply::Status(500),
        _ => Reply::File { bytes: bytes.clone(), tag: None },
    });
    Folder::new().source(&server).load(&file.identity).unwrap();
    assert_eq!(server.requests().len(), 3);

    let server = Server::start(|_, _| Reply::Status(503));
    let (error, store) = refused_by(&server);
    assert!(error.ends_with("the server answered with status 503 to 3 requests"), "{error}");
    assert!(store.files().is_empty());
    let server = Server::start(|_, _| Reply::Status(401));
    let (error, _) = refused_by(&server);
    assert!(error.ends_with("the server answered with status 401 to 1 request"), "{error}");
}

#[test]
fn the_wrong_builds_file_is_refused_and_not_kept() {
    let file = Pdb::new();
    let other = WINDOWS_7_SP1.images[0].pdb;
    let server = Server::start(move |_, _| Reply::File { bytes: other.to_vec(), tag: None });
    let (error, store) = refused_by(&server);
    assert!(error.contains("it belongs to another build (identity "), "{error}");
    assert!(store.files().is_empty());
    // And where a store has been poisoned by another program, the file in it is not believed either.
    let place = store.path().join(file.place_in_store());
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    std::fs::write(&place, other).unwrap();
    let good = file.served();
    store.source(&good).load(&file.identity).unwrap();
    assert_eq!(std::fs::read(place).unwrap(), file.bytes);
}

#[test]
fn a_cabinet_and_a_web_page_are_recognised() {
    for (bytes, sentence) in [
        (&b"MSCF\0\0\0\0\x10\0\0\0\0\0\0\0 and so on"[..], "a compressed cabinet"),
        (b"\r\n <!DOCTYPE html><title>Sign in</title>", "a web page, not a symbol file"),
        (b"", "not a PDB"),
    ] {
        let server = Server::start(move |_, _| Reply::File { bytes: bytes.to_vec(), tag: None });
        let (error, store) = refused_by(&server);
        assert!(error.contains(&format!("what the server gave was refused: {sentence}")), "{error}");
        assert!(store.files().is_empty());
    }
}

#[test]
fn a_server_that_is_not_there_is_waited_for_once() {
    let url = {
        let server = Server::start(|_, _| Reply::Status(404));
        server.url.clone()
    };
    let (file, store) = (Pdb::new(), Folder::new());
    let source = source(&format!("srv*{}*{url}", store.path().display()));
    let error = source.load(&file.identity).unwrap_err();
    assert!(matches!(last(&error), Miss::Fetch(FetchError::NoAnswer(_))), "{error}");
    let other = PdbIdentity { name: "other.pdb".into(), ..file.identity.clone() };
    let error = source.load(&other).unwrap_err();
    assert!(matches!(last(&error), Miss::Fetch(FetchError::NotAsked(_))), "{error}");
    source.look_again(false);
    let error = source.load(&other).unwrap_err();
    assert!(matches!(last(&error), Miss::Fetch(FetchError::NoAnswer(_))), "{error}");
}

#[test]
fn a_file_that_is_too_large_is_refused_before_it_is_fetched() {
    let file = Pdb::new();
    let server = file.served();
    let store = Folder::new();
    let limits = Limits { max_bytes: 0x1000, ..limits() };
    let path = SymbolPath::parse(&format!("srv*{}*{}", store.path().display(), server.url));
    let source = SymbolSource::watched(path, limits, Box::new(verikd::symbols::store::Unwatched));
    let error = source.load(&file.identity).unwrap_err().to_string();
    assert!(error.ends_with("the file has more than 0x1000 bytes, refused"), "{error}");
    assert!(store.files().is_empty());
}

#[test]
fn progress_is_told_and_a_user_who_has_had_enough_is_heard() {
    type Step = (u64, Option<u64>);
    #[derive(Clone, Default)]
    struct Seen {
        received: Arc<Mutex<Vec<Step>>>,
        has_ended: Arc<AtomicBool>,
        cancels: bool,
    }
    impl Watch for Seen {
        fn received(&self, _: &str, received: u64, total: Option<u64>) {
            self.received.lock().unwrap().push((received, total));
        }
        fn ended(&self, _: &str) {
            self.has_ended.store(true, Ordering::Release);
        }
        fn is_cancelled(&self) -> bool {
            self.cancels && !self.received.lock().unwrap().is_empty()
        }
    }
    let file = Pdb::new();
    let server = file.served();
    let total = file.bytes.len() as u64;
    for cancels in [true, false] {
        let store = Folder::new();
        let path = SymbolPath::parse(&format!("srv*{}*{}", store.path().display(), server.url));
        let seen = Seen { cancels, ..Seen::default() };
        let source = SymbolSource::watched(path, limits(), Box::new(seen.clone()));
        let result = source.load(&file.identity);
        assert_eq!(result.is_err_and(|error| error.is_interrupted()), cancels);
        assert_eq!(store.files().is_empty(), cancels);
        let steps = seen.received.lock().unwrap();
        assert_eq!(steps[0], (0, Some(total)));
        assert_eq!(steps.last(), Some(&(if cancels { 0 } else { total }, Some(total))));
        assert!(seen.has_ended.load(Ordering::Acquire));
    }
}

/// A server that says nothing more is not waited for by a user who has had enough.
#[test]
fn a_user_who_gives_up_waits_for_no_silent_server() {
    #[derive(Default)]
    struct Asked(AtomicBool);
    impl Watch for Asked {
        fn received(&self, _: &str, received: u64, _: Option<u64>) {
            self.0.fetch_or(received == 100, Ordering::AcqRel);
        }
        fn is_cancelled(&self) -> bool {
            self.0.load(Ordering::Acquire)
        }
    }
    let file = Pdb::new();
    let bytes = file.bytes.clone();
    let server = Server::start(move |_, _| Reply::Stalls { bytes: bytes.clone(), after: 100 });
    let store = Folder::new();
    let path = SymbolPath::parse(&format!("srv*{}*{}", store.path().display(), server.url));
    let for_ever = Limits { silence: Duration::from_secs(3600), ..limits() };
    let source = SymbolSource::watched(path, for_ever, Box::new(Asked::default()));
    assert!(source.load(&file.identity).unwrap_err().is_interrupted());
    assert!(store.files().is_empty());
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn two_debuggers_that_fetch_the_same_file_both_get_it() {
    let file = Pdb::new();
    let server = file.served();
    let store = Folder::new();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| store.source(&server).load(&file.identity).unwrap());
        }
    });
    assert_eq!(store.files(), [file.place_in_store()]);
}

/// The first thing a user types, and then the main job, with symbols from nowhere else.
#[test]
fn the_published_leak_prints_with_symbols_from_the_server_only_and_the_second_run_downloads_nothing() {
    let server = every_pdb_served();
    let store = Folder::new();
    let mut machine = Still(Machine::windows_7_sp1());
    machine.break_in();
    for asked in [2, 2] {
        let kernel = Kernel::new(version_of(&machine), SymbolPath::default());
        let target = || Target::new(&machine, &kernel);
        let error = run(&target(), "!verifier 80").err().unwrap().to_string();
        assert!(error.contains("the symbol path is empty"), "{error}");
        let path = text(&target(), &format!(".sympath srv*{}*{}", store.path().display(), server.url));
        assert!(path.contains("Deferred"), "{path}");
        assert_eq!(text(&target(), ".reload"), "Loading Kernel Symbols\n....\n");
        assert_same_text(
            &text(&target(), "!verifier 3 myfault.sys"),
            include_str!("../../golden/verifier-3-myfault.txt"),
        );
        assert_same_text(
            &text(&target(), "!verifier 80 fffffa8005400000"),
            include_str!("../../golden/verifier-80.txt"),
        );
        assert_eq!(server.requests().len(), asked, "nt and myfault, once");
        let reloaded = text(&target(), ".reload /f myfault.sys");
        assert!(reloaded.starts_with("myfault   (pdb symbols)   "), "{reloaded}");
        assert_eq!(text(&target(), ".reload /u myfault"), "Unloaded myfault\n");
        assert!(text(&target(), "lm m myfault").contains("(deferred)"));
        assert!(text(&target(), ".reload /f nosuch").contains("no module called nosuch is loaded"));
    }
}

/// A server that has the PDB of every image of the simulated machine.
fn every_pdb() -> BTreeMap<String, Vec<u8>> {
    let files = WINDOWS_7_SP1.images.iter().map(|image| Pdb::of(image.pdb_file, image.pdb));
    files.map(|file| (format!("/{}", file.place_in_store()), file.bytes)).collect()
}

fn every_pdb_served() -> Server {
    let files = every_pdb();
    Server::start(move |request, _| match files.get(&request.path) {
        Some(bytes) => Reply::File { bytes: bytes.clone(), tag: None },
        None => Reply::Status(404),
    })
}

/// A PDB and its identity.
struct Pdb {
    identity: PdbIdentity,
    bytes: Vec<u8>,
}

impl Pdb {
    fn new() -> Self {
        let image = WINDOWS_7_SP1.images.iter().find(|image| image.file == "myfault.sys").unwrap();
        Self::of(image.pdb_file, image.pdb)
    }

    fn of(name: &str, bytes: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        Self { identity: PdbFile::open(&path).unwrap().identity().clone(), bytes: bytes.to_vec() }
    }

    fn place_in_store(&self) -> String {
        let name = &self.identity.name;
        format!("{name}/{}/{name}", self.identity)
    }

    /// A server that has this file and no other.
    fn served(&self) -> Server {
        let (path, bytes) = (format!("/{}", self.place_in_store()), self.bytes.clone());
        Server::start(move |request, _| match request.path == path {
            true => Reply::File { bytes: bytes.clone(), tag: Some("\"tag\"") },
            false => Reply::Status(404),
        })
    }
}

/// A store that goes away with the test.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn source(&self, server: &Server) -> SymbolSource {
        source(&format!("srv*{}*{}", self.path().display(), server.url))
    }

    /// Every file in it, hidden ones too.
    fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        let mut folders = vec![self.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path: PathBuf = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let inside = path.strip_prefix(self.path()).unwrap();
                    files.push(inside.display().to_string().replace('\\', "/"));
                }
            }
        }
        files
    }
}

/// Patient enough for a busy machine, and quick where a test waits for the end of patience.
fn limits() -> Limits {
    Limits {
        connect: Duration::from_secs(5),
        silence: Duration::from_millis(500),
        pause: Duration::from_millis(1),
        ..Limits::default()
    }
}

fn source(path: &str) -> SymbolSource {
    SymbolSource::watched(SymbolPath::parse(path), limits(), Box::new(verikd::symbols::store::Unwatched))
}

/// Why `server` gives nothing usable for the test's file, and the store after that.
fn refused_by(server: &Server) -> (String, Folder) {
    let store = Folder::new();
    let error = store.source(server).load(&Pdb::new().identity).unwrap_err();
    (error.to_string(), store)
}

fn last(error: &NotFound) -> &Miss {
    let Some(Attempt { miss, .. }) = error.tried.last() else { panic!("{error}: nothing tried") };
    miss
}
