//! Writes what is shown, on threads of its own: a reader that does not read, a full disk, a terminal that is stopped must
//! not keep a machine standing still.
//!
//! ```text
//!   shell --- answer, status ---> queue --> one thread a stream --> stdout, stderr
//!     |                              formats the answer, then writes it
//!     `--- drain: all is written, or it cannot be, or nobody wants to wait any longer
//! ```
//! What was handed over first is written first, also where two streams lead to one terminal; but a stream that does not
//! move does not hold up the other for long.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::leaks::Room;
use crate::output::wrapped;

/// A stream that does not move holds up the other for this long.
const COURTESY: Duration = Duration::from_millis(200);
/// Pieces that wait for a stream that does not move: what a target prints without end must not fill this machine.
const MAX_ASIDE: usize = 10_000;
/// What is said where answers are shown that nobody reads elsewhere any more.
const GONE: &str = "Whoever read the answers has gone, as `tee` does at Ctrl+C: they are shown here. .logopen FILE keeps them";
/// How often a wait looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(25);

/// One of the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// Answers.
    Out,
    /// Everything else.
    Aside,
}

/// Shows text above a line that is being typed; false once it cannot.
pub(super) type ShowAbove = Box<dyn FnMut(String) -> bool + Send>;

/// A text to write, made when it is its turn.
type Piece = Box<dyn FnOnce() -> String + Send>;

/// Where what is shown is kept too.
struct Log {
    name: String,
    file: File,
    /// It ends when what was handed over before is in it.
    is_closing: bool,
}

/// A piece in its queue.
struct Queued {
    number: u64,
    make: Piece,
    /// It is on the terminal by other ways, and only kept.
    is_for_log: bool,
}

/// Where a shell writes. Copies write to the same streams.
#[derive(Clone)]
pub struct Writer(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    log: Mutex<Option<Log>>,
    /// Answers go to standard output, which may be a terminal.
    is_standard: bool,
}

#[derive(Default)]
struct State {
    streams: [Queue; 2],
    next: u64,
    /// Shows texts above a line that is being typed.
    above_line: Option<ShowAbove>,
    /// Where answers go once nobody reads them where they go.
    fallback: Option<Box<dyn Write + Send>>,
    /// How often another was put there.
    changes: u64,
    /// A file that was asked for could not be written.
    lacks_file: bool,
}

#[derive(Default)]
struct Queue {
    pieces: VecDeque<Queued>,
    /// The piece that is being written.
    writing: Option<u64>,
    /// It was waited for in vain.
    is_stuck: bool,
    left_out: u64,
    error: Option<io::Error>,
}

impl Queue {
    /// The oldest piece that is not written yet.
    fn oldest(&self) -> Option<u64> {
        self.writing.or_else(|| self.pieces.front().map(|it| it.number))
    }
}

/// How the wait for everything to be written ended.
#[derive(Debug)]
pub enum Drained {
    /// It is written.
    All,
    /// The wait is not wanted any more.
    GivenUp,
    /// Answers cannot be written.
    Failed(io::Error),
}

impl Writer {
    /// Answers go to `out`, everything else to `aside`.
    #[must_use]
    pub fn new(out: impl Write + Send + 'static, aside: impl Write + Send + 'static) -> Self {
        Self::over(out, aside, false)
    }

    fn over(out: impl Write + Send + 'static, aside: impl Write + Send + 'static, is_standard: bool) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            log: Mutex::default(),
            is_standard,
        });
        let sinks: [(Stream, Box<dyn Write + Send>); 2] =
            [(Stream::Out, Box::new(out)), (Stream::Aside, Box::new(aside))];
        for (stream, sink) in sinks {
            let shared = Arc::clone(&shared);
            let name = format!("{stream:?}").to_lowercase();
            // Without threads nothing else of this program works either.
            std::thread::Builder::new()
                .name(name)
                .spawn(move || shared.write(stream, sink))
                .expect("the system has threads");
        }
        Self(shared)
    }

    /// Standard output and standard error.
    #[must_use]
    pub fn standard() -> Self {
        Self::over(io::stdout(), io::stderr(), true)
    }

    /// How much room there is for answers: a terminal's, or a small one's where there is none.
    pub(super) fn room(&self) -> Room {
        let size = if self.0.is_standard { terminal_size::terminal_size_of(io::stdout()) } else { None };
        size.map_or_else(Room::default, |(width, height)| Room {
            columns: width.0.into(),
            rows: height.0.into(),
        })
    }

    /// True if answers are shown on a terminal.
    pub(super) fn is_terminal(&self) -> bool {
        self.0.is_standard && io::stdout().is_terminal()
    }

    /// Shows answers on `terminal` once whoever reads them has gone.
    pub(super) fn fall_back_to(&self, terminal: impl Write + Send + 'static) {
        self.0.lock().fallback = Some(Box::new(terminal));
    }

    pub(super) fn text(&self, stream: Stream, text: String) {
        self.put(stream, Box::new(|| text));
    }

    /// Writes what `make` returns; it is called by the thread that writes it.
    pub(super) fn put(&self, stream: Stream, make: Piece) {
        self.0.lock().put(stream, make, false);
        self.0.changed.notify_all();
    }

    /// Writes what `make` returns, which is told whether this comes right behind the piece `last`. Returns this piece's number.
    pub(super) fn text_after(
        &self,
        stream: Stream,
        last: Option<u64>,
        make: impl FnOnce(bool) -> String + Send + 'static,
    ) -> u64 {
        let mut state = self.0.lock();
        let is_next = last.is_some_and(|last| last + 1 == state.next);
        let number = state.put(stream, Box::new(move || make(is_next)), false);
        drop(state);
        self.0.changed.notify_all();
        number
    }

    /// Keeps a text that is shown by other ways in the log file, if there is one.
    pub(super) fn to_log(&self, text: String) {
        if self.log_file().is_some() {
            self.0.lock().put(Stream::Aside, Box::new(|| text), true);
            self.0.changed.notify_all();
        }
    }

    /// Keeps what is shown from now on in `file` too, instead of another. It is written by the threads that show it: a slow
    /// disk keeps no machine standing still.
    pub(super) fn log_to(&self, name: String, file: File) {
        self.0.log().replace(Log { name, file, is_closing: false });
    }

    /// The log file's name, if there is one.
    pub(super) fn log_file(&self) -> Option<String> {
        self.0.log().as_ref().filter(|log| !log.is_closing).map(|log| log.name.clone())
    }

    /// Ends the log file once all is written that is to be in it; returns its name.
    pub(super) fn close_log(&self) -> Option<String> {
        let name = self.log_file()?;
        if let Some(log) = self.0.log().as_mut() {
            log.is_closing = true;
        }
        let shared = Arc::downgrade(&self.0);
        let close = move || {
            // Another may have been opened since.
            shared.upgrade().and_then(|shared| shared.log().take_if(|log| log.is_closing));
            String::new()
        };
        self.0.lock().put(Stream::Aside, Box::new(close), true);
        self.0.changed.notify_all();
        Some(name)
    }

    /// Why answers cannot be written, once that is known.
    #[must_use]
    pub fn failure(&self) -> Option<io::Error> {
        self.0.lock().failure()
    }

    /// True if whoever read either stream has gone away.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        let is_gone = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
        self.0.lock().streams.iter().any(|stream| stream.error.as_ref().is_some_and(is_gone))
    }

    /// A file that was asked for with an answer could not be written.
    pub(super) fn lacks_file(&self) {
        self.0.lock().lacks_file = true;
    }

    /// True if a file that was asked for could not be written.
    #[must_use]
    pub fn is_file_missing(&self) -> bool {
        self.0.lock().lacks_file
    }

    /// Waits until everything is written, for as long as `is_wanted`.
    #[must_use]
    pub fn drain(&self, is_wanted: impl Fn() -> bool) -> Drained {
        let mut state = self.0.lock();
        loop {
            if let Some(error) = state.failure() {
                return Drained::Failed(error);
            }
            if state.streams.iter().all(|queue| queue.oldest().is_none()) {
                return Drained::All;
            }
            if !is_wanted() {
                return Drained::GivenUp;
            }
            let wait = self.0.changed.wait_timeout(state, LOOK);
            state = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The oldest piece that is not written yet.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.0.lock().streams.iter().filter_map(Queue::oldest).min()
    }

    /// Shows everything that goes to the terminal by `show` from now on, which knows of the line that is being typed. Where it returns false,
    /// standard error is used again.
    pub(super) fn show_above_line(&self, show: Option<ShowAbove>) {
        let mut state = self.0.lock();
        state.above_line = show;
        state.changes += 1;
    }
}

impl State {
    /// Puts a piece at the end of a stream; its number among those of both.
    fn put(&mut self, stream: Stream, make: Piece, is_for_log: bool) -> u64 {
        let number = self.next;
        self.next += 1;
        let queue = &mut self.streams[stream as usize];
        if stream == Stream::Aside && queue.pieces.len() >= MAX_ASIDE {
            queue.left_out += 1;
        } else {
            queue.pieces.push_back(Queued { number, make, is_for_log });
        }
        number
    }

    fn failure(&self) -> Option<io::Error> {
        let error = self.streams[Stream::Out as usize].error.as_ref()?;
        Some(io::Error::new(error.kind(), error.to_string()))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self) -> MutexGuard<'_, Option<Log>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a text in the log file, if there is one. Why that ended, if it did.
    fn keep(&self, text: &str) -> Option<String> {
        let mut log = self.log();
        let error = log.as_mut()?.file.write_all(text.as_bytes()).err()?;
        let name = log.take()?.name;
        self.lock().lacks_file = true;
        Some(format!("cannot write the log file {name}, which ends here: {error}\n"))
    }

    /// Writes piece after piece.
    fn write(&self, stream: Stream, mut sink: Box<dyn Write + Send>) {
        loop {
            let (piece, left_out, above_line) = self.next(stream);
            let mut text = (piece.make)();
            let lost_log = self.keep(&text);
            if piece.is_for_log {
                text.clear();
            }
            text.push_str(&lost_log.unwrap_or_default());
            if left_out > 0 {
                text.insert_str(0, &format!("({left_out} lines were left out: nobody read them in time)\n"));
            }
            let written = match above_line {
                Some((mut show, of_change)) => {
                    let columns = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
                    if let Some(columns) = columns {
                        text = wrapped(&text, columns);
                    }
                    let is_shown = text.is_empty() || show(text);
                    let mut state = self.lock();
                    // It may have been taken away meanwhile: what nobody looks at any more must not swallow the rest.
                    if is_shown && state.changes == of_change {
                        state.above_line.get_or_insert(show);
                    }
                    Ok(())
                }
                None => {
                    let written = sink.write_all(text.as_bytes()).and_then(|()| sink.flush());
                    let is_unread = stream == Stream::Out
                        && matches!(&written, Err(error) if error.kind() == io::ErrorKind::BrokenPipe);
                    match is_unread.then(|| self.lock().fallback.take()).flatten() {
                        Some(terminal) => {
                            sink = terminal;
                            sink.write_all(format!("{GONE}\n{text}").as_bytes()).and_then(|()| sink.flush())
                        }
                        None => written,
                    }
                }
            };
            let mut state = self.lock();
            let queue = &mut state.streams[stream as usize];
            queue.writing = None;
            queue.is_stuck = false;
            if let Err(error) = written {
                // What cannot be shown aside must not end a session that holds a stopped machine.
                queue.error.get_or_insert(error);
                queue.pieces.clear();
            }
            drop(state);
            self.changed.notify_all();
        }
    }

    /// The next piece of a stream, once it is its turn.
    fn next(&self, stream: Stream) -> (Queued, u64, Option<(ShowAbove, u64)>) {
        let mut state = self.lock();
        loop {
            let own = state.streams[stream as usize].pieces.front().map(|it| it.number);
            let other = &state.streams[1 - stream as usize];
            let Some(number) = own else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            if other.oldest().is_none_or(|oldest| oldest > number) || other.is_stuck {
                let queue = &mut state.streams[stream as usize];
                let piece = queue.pieces.pop_front().expect("it was seen above");
                queue.writing = Some(number);
                let left_out = std::mem::take(&mut queue.left_out);
                let of_change = state.changes;
                // Answers too, where they are on that terminal: a line may be being typed by now.
                let is_above = stream == Stream::Aside || self.is_standard && io::stdout().is_terminal();
                let above_line = is_above.then(|| state.above_line.take()).flatten();
                let above_line = above_line.map(|show| (show, of_change));
                return (piece, left_out, above_line);
            }
            let before = other.oldest();
            let (after, timeout) =
                self.changed.wait_timeout(state, COURTESY).unwrap_or_else(PoisonError::into_inner);
            state = after;
            let other = &mut state.streams[1 - stream as usize];
            other.is_stuck |= timeout.timed_out() && other.oldest() == before;
        }
    }
}

/// A stream that keeps what is written to it: for front ends that are no terminal, and for tests.
#[derive(Clone, Debug, Default)]
pub struct Transcript(Arc<Mutex<Vec<u8>>>);

impl Transcript {
    /// What was written so far.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Transcript {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// A stream that does not move until it is let.
    struct Gate(mpsc::Receiver<()>, Transcript);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn two_streams_to_one_place_keep_their_order() {
        let both = Transcript::default();
        let writer = Writer::new(both.clone(), both.clone());
        let mut expected = String::new();
        for number in 0..1000 {
            let text = format!("{number}\n");
            expected += &text;
            writer.text(if number % 3 == 0 { Stream::Out } else { Stream::Aside }, text);
        }
        assert!(matches!(writer.drain(|| true), Drained::All));
        assert_eq!(both.text(), expected);
    }

    #[test]
    fn a_piece_knows_whether_another_stands_below_the_last() {
        let out = Transcript::default();
        let writer = Writer::new(out.clone(), Transcript::default());
        let told = |last| writer.text_after(Stream::Out, last, |is_next| format!("{is_next} "));
        let first = told(None);
        let second = told(Some(first));
        writer.text(Stream::Aside, "news".into());
        told(Some(second));
        assert!(matches!(writer.drain(|| true), Drained::All));
        assert_eq!(out.text(), "false true false ");
        assert_eq!(writer.room().columns, 80, "this is no terminal");
    }

    #[test]
    fn a_stream_that_does_not_move_holds_up_nobody() {
        let (open, gate) = mpsc::channel();
        let (out, aside) = (Transcript::default(), Transcript::default());
        let writer = Writer::new(Gate(gate, out.clone()), aside.clone());
        writer.text(Stream::Out, "answer".into());
        writer.text(Stream::Aside, "the target runs".into());
        while aside.text() != "the target runs" {
            std::thread::yield_now();
        }
        assert!(matches!(writer.drain(|| false), Drained::GivenUp));
        open.send(()).unwrap();
        assert!(matches!(writer.drain(|| true), Drained::All));
        assert_eq!(out.text(), "answer");
    }

    #[test]
    fn what_shows_above_the_line_is_gone_once_it_was_taken_away() {
        let aside = Transcript::default();
        let writer = Writer::new(Transcript::default(), aside.clone());
        let (begun, has_begun) = mpsc::channel();
        let (open, gate) = mpsc::channel();
        writer.show_above_line(Some(Box::new(move |_| {
            begun.send(()).unwrap();
            let _ = gate.recv();
            true
        })));
        writer.text(Stream::Aside, "above the line".into());
        has_begun.recv().unwrap();
        writer.show_above_line(None);
        open.send(()).unwrap();
        writer.text(Stream::Aside, "WARNING".into());
        assert!(matches!(writer.drain(|| true), Drained::All));
        assert_eq!(aside.text(), "WARNING");
    }

    #[test]
    fn answers_that_cannot_be_written_are_told_and_the_rest_goes_on() {
        let aside = Transcript::default();
        let writer = Writer::new(Full, aside.clone());
        writer.text(Stream::Out, "answer".into());
        let Drained::Failed(error) = writer.drain(|| true) else { panic!("the disk is full") };
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        writer.text(Stream::Aside, "status".into());
        while aside.text() != "status" {
            std::thread::yield_now();
        }
    }
}
