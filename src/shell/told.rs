//! What a watch has told of its looks, so that what is the same at each is told once.

use super::report::Report;
use crate::target::{Note, NoteKind};

/// What was told so far.
#[derive(Default)]
pub(super) struct Told(Vec<Note>);

impl Told {
    /// Tells what a look lacks, unless an earlier one lacked the same. A failure is the same by its words; a gap, whose words count
    /// what is in it and so differ from look to look, by what it is about.
    pub(super) fn tell(&mut self, notes: &[Note], report: &Report) {
        for note in notes.iter().filter(|note| note.kind != NoteKind::Remark) {
            let is_same = |told: &Note| match note.kind {
                NoteKind::Failed => told == note,
                _ => (told.kind, told.code) == (note.kind, note.code),
            };
            if !self.0.iter().any(is_same) {
                report.status(&note.to_string());
                self.0.push(note.clone());
            }
        }
    }
}
