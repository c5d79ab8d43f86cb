//! Writes that a target does not take: told, whatever it said to them.

use verikd::commands::{NoteKind, Run, find};
use verikd::memory::{Changeable, ReadCause, WriteError};
use verikd::target::{NoteCode, Target, VirtAddr};

use crate::support::machine::stopped;
use crate::support::text::run;

/// A target that says that it did, and did not: a page protected from its own kernel, a processor that is not to be changed.
struct Deaf(Vec<u8>);

impl Changeable for Deaf {
    fn write_virtual(&self, _: VirtAddr, _: &[u8]) -> Result<(), WriteError> {
        Ok(())
    }

    fn change_context(
        &self,
        _: Option<u16>,
        change: &mut dyn FnMut(&mut [u8]),
    ) -> Result<Vec<u8>, ReadCause> {
        change(&mut self.0.clone());
        Ok(self.0.clone())
    }
}

#[test]
fn a_write_that_did_not_take_is_told() {
    let (memory, kernel) = stopped("writing_deaf");
    let deaf = Deaf(vec![0; 0x4d0]);
    for (line, told) in [
        ("eb nt 1 2", "fffff800`0141b000 has 4d 5a there: the write did not take."),
        ("r rax=5", "rax is 0: the target did not take 5."),
    ] {
        let answer = run(&Target::new(&memory, &kernel).with_changes(&deaf), line).unwrap();
        let [note] = &answer.notes[..] else { panic!("{line}: {:?}", answer.notes) };
        assert_eq!((note.kind, note.code), (NoteKind::Failed, NoteCode::NotWritten), "{line}");
        assert!(note.text.starts_with(told), "{}", note.text);
    }
}

/// No question is given what a change takes: a command that changes something fails on a target that was made for questions.
#[test]
fn a_target_that_is_asked_cannot_be_changed() {
    let (memory, kernel) = stopped("writing");
    for line in ["eb nt 1", "ea nt \"x\"", "r rax=1"] {
        assert!(matches!(find(line).unwrap().0.run, Run::Change(_)), "{line}");
        let Err(error) = run(&Target::new(&memory, &kernel), line) else { panic!("{line} has an answer") };
        assert!(error.to_string().contains("nothing is changed here"), "{line}: {error}");
    }
}
