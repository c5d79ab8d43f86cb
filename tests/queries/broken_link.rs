//! What was not read is never told as a fact: every command, on a link that breaks at every one of its reads, in every way
//! a link can break, ends in an error or says what is missing and why; or it had already read all that it tells.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::everything::{LINES, named};
use crate::support::text::WithNotes as _;
use crate::support::text::run;
use verikd::commands::{NoteCode, NoteKind};
use verikd::memory::{Address, Memory, PhysAddr, ReadCause, ReadError, StopId, VirtAddr};
use verikd::target::{Kernel, Target};

const CAUSES: [ReadCause; 7] = [
    ReadCause::NoAnswer { seconds: 10 },
    ReadCause::Disconnected,
    ReadCause::TargetRestarted,
    ReadCause::TargetRunning,
    ReadCause::Interrupted,
    ReadCause::FreezeBudget,
    ReadCause::SessionEnded,
];

/// Another memory, whose link breaks after some reads and searches.
struct Breaking<'a> {
    inner: &'a dyn Memory,
    asked: AtomicU64,
    breaks_at: u64,
    cause: ReadCause,
}

impl<'a> Breaking<'a> {
    fn new(inner: &'a dyn Memory, breaks_at: u64, cause: ReadCause) -> Self {
        Self { inner, asked: AtomicU64::new(0), breaks_at, cause }
    }

    fn ask(&self, address: Address, wanted: usize) -> Result<(), ReadError> {
        // Once only: whoever asks again is answered, as by a target that is there again, and must not be believed.
        if self.asked.fetch_add(1, Ordering::Relaxed) != self.breaks_at {
            return Ok(());
        }
        Err(ReadError { address, wanted, got: 0, cause: self.cause.clone() })
    }
}

impl Memory for Breaking<'_> {
    fn read_virtual(&self, address: VirtAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        self.ask(Address::Virtual(address), buf.len())?;
        self.inner.read_virtual(address, buf)
    }

    fn read_physical(&self, address: PhysAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        self.ask(Address::Physical(address), buf.len())?;
        self.inner.read_physical(address, buf)
    }

    fn search_virtual(&self, range: Range<VirtAddr>, pattern: &[u8]) -> Result<Option<VirtAddr>, ReadError> {
        self.ask(Address::Virtual(range.start), pattern.len())?;
        self.inner.search_virtual(range, pattern)
    }

    fn stop(&self) -> StopId {
        self.inner.stop()
    }
}

/// All that is said, and whether it says that something is missing for `cause`.
fn outcome(memory: &dyn Memory, kernel: &Kernel, line: &str, cause: &ReadCause) -> (String, bool) {
    let cause = cause.to_string();
    match run(&Target::new(memory, kernel), line) {
        Ok(answer) => {
            // A search that is not answered is replaced by reads, which are: the answer is whole, and remarks it.
            let is_said = |kind: NoteKind, text: &str| {
                text.contains(&cause) && (kind > NoteKind::Remark || text.contains("did not search"))
            };
            let says_so = answer.notes.iter().any(|note| is_said(note.kind, &note.text));
            (answer.with_notes().to_string(), says_so)
        }
        Err(error) => (format!("error: {error}"), error.to_string().contains(&cause)),
    }
}

/// What is said to be wrong with the target where reading it is broken off: only what is.
fn blamed(breaking: &Breaking<'_>, kernel: &Kernel, line: &str, at: u64) -> Vec<String> {
    let breaking = Breaking::new(breaking.inner, at, breaking.cause.clone());
    let Ok(answer) = run(&Target::new(&breaking, kernel), line) else { return Vec::new() };
    let of_target = [NoteCode::Unreadable, NoteCode::CountsDiffer, NoteCode::UnderWay];
    let wrong = answer.notes.iter().filter(|it| it.kind == NoteKind::Partial);
    wrong.filter(|it| of_target.contains(&it.code)).map(|it| it.text.clone()).collect()
}

#[test]
fn no_command_tells_what_it_did_not_read() {
    let world = named("abc");
    let memory = world.boot().memory;
    let (mut tried, mut unbroken) = (0, 0);
    for line in LINES {
        // What symbols are there is known after the first time, and may be shown.
        let kernel = world.kernel();
        let counting = Breaking::new(&memory, u64::MAX, ReadCause::NotMapped);
        let never = ReadCause::Status(0);
        let truth = outcome(&counting, &kernel, line, &never).0;
        let reads = counting.asked.load(Ordering::Relaxed);
        let truths = [truth, outcome(&memory, &kernel, line, &never).0];
        for at in 0..reads {
            for cause in &CAUSES {
                let kernel = world.kernel();
                let breaking = Breaking::new(&memory, at, cause.clone());
                let (said, says_so) = outcome(&breaking, &kernel, line, cause);
                assert!(
                    says_so || truths.contains(&said),
                    "{line}: read {at} of {reads}, {cause}: {said}\n{truths:#?}"
                );
                for blamed in blamed(&breaking, &world.kernel(), line, at) {
                    assert!(truths[0].contains(&blamed), "{line}: read {at}, {cause}: {blamed}");
                }
                tried += 1;
                unbroken += usize::from(!says_so);
                // And what could not be read is no memory of the next command's.
                let (after, _) = outcome(&memory, &kernel, line, &never);
                assert!(truths.contains(&after), "{line}: after read {at}, {cause}: {after}\n{truths:#?}");
            }
        }
    }
    assert!(tried > 1000, "only {tried} links were broken");
    assert!(unbroken * 10 < tried, "{unbroken} of {tried} breaks made no difference");
}

#[test]
fn a_cause_is_of_the_link_or_of_the_memory() {
    assert!(CAUSES.iter().all(ReadCause::is_of_link));
    for cause in [ReadCause::NotMapped, ReadCause::Status(0xc000_0001), ReadCause::Unsupported("a CPU")] {
        assert!(!cause.is_of_link(), "{cause}");
    }
}
