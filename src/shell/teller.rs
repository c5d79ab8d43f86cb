//! Tells what happens on the session when it happens, also while a command runs or a line is typed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kd_protocol::link::Event;

use super::report::Report;
use crate::session::{News, Watcher};

/// What a kernel prints when it bug-checks.
const FATAL_SYSTEM_ERROR: &[u8] = b"*** Fatal System Error";

/// Shows news, from a thread of its own or at once.
pub(super) struct Teller {
    watcher: Watcher,
    report: Report,
    /// Who tells takes the news and shows them, before another does.
    telling: Mutex<()>,
    /// The kernel itself has printed its bug check.
    has_fatal_text: AtomicBool,
    /// Who else hears the news, before they are shown.
    listener: Mutex<Option<Listener>>,
}

/// Hears news.
pub(super) type Listener = Box<dyn Fn(&News) + Send>;

impl Teller {
    /// A teller whose thread lives as long as the session.
    pub(super) fn start(watcher: Watcher, report: Report) -> Arc<Self> {
        let has_fatal_text = AtomicBool::new(false);
        let teller = Arc::new(Self {
            watcher,
            report,
            telling: Mutex::new(()),
            has_fatal_text,
            listener: Mutex::default(),
        });
        let own = Arc::clone(&teller);
        let thread = std::thread::Builder::new().name("teller".into()).spawn(move || {
            while own.watcher.wait_for_news() {
                own.tell();
            }
            own.tell();
        });
        // Without a thread, news are told between two commands.
        drop(thread);
        teller
    }

    /// Shows what has happened so far: what comes after this is shown after it.
    pub(super) fn tell(&self) {
        let telling = self.telling.lock().unwrap_or_else(PoisonError::into_inner);
        for news in self.watcher.take_news() {
            if let News::Event(Event::DebugPrint(text)) = &news
                && memchr::memmem::find(text, FATAL_SYSTEM_ERROR).is_some()
            {
                self.has_fatal_text.store(true, Ordering::Release);
            }
            if let Some(listener) = &*self.listener.lock().unwrap_or_else(PoisonError::into_inner) {
                listener(&news);
            }
            self.report.news(&news);
        }
        drop(telling);
    }

    /// Lets `listener` hear the news from now on.
    pub(super) fn listen(&self, listener: Listener) {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner).replace(listener);
    }

    /// True if the kernel has printed its bug check since the last call.
    pub(super) fn take_fatal_text(&self) -> bool {
        self.has_fatal_text.swap(false, Ordering::AcqRel)
    }
}
