//! The rest of an answer that would scroll away what stands above it: the first screen of it is shown, `.more` shows on.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::leaks::Room;
use crate::output::grouped;

/// Answers of up to so many rows are shown whole.
const WHOLE: usize = 500;
/// Rows of the screen that are left for what is said of the rest, and for the prompt.
const BESIDE: usize = 4;

/// What is left of the last long answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Rest(Arc<Mutex<VecDeque<String>>>);

impl Rest {
    /// The part of an answer that is shown at once, and what is said of the rest.
    pub(super) fn cut(&self, text: String, room: Room) -> (String, Option<String>) {
        let rows = text.lines().count();
        let mut rest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rest.clear();
        if rows <= WHOLE {
            return (text, None);
        }
        rest.extend(text.split_inclusive('\n').map(str::to_owned));
        drop(rest);
        let shown = self.next(Some(room));
        let left = self.len();
        let told = format!(
            "{} of {} rows; .more shows the next ones, .more all the {} that are left",
            grouped((rows - left) as u64),
            grouped(rows as u64),
            grouped(left as u64)
        );
        (shown, Some(told))
    }

    /// The next rows: as many as fit the screen, or all.
    pub(super) fn next(&self, room: Option<Room>) -> String {
        let mut rest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = room.map_or(usize::MAX, |room| room.rows.saturating_sub(BESIDE).max(1));
        let rows = rows.min(rest.len());
        rest.drain(..rows).collect()
    }

    /// Rows that are left.
    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_answer_is_shown_a_screen_at_a_time() {
        let room = Room { columns: 80, rows: 24 };
        let rest = Rest::default();
        let text: String = (0..1501).map(|number| format!("{number}\n")).collect();
        let (shown, told) = rest.cut(text, room);
        assert_eq!((shown.lines().count(), shown.lines().last()), (20, Some("19")));
        assert_eq!(
            told.unwrap(),
            "20 of 1,501 rows; .more shows the next ones, .more all the 1,481 that are left"
        );
        assert!(rest.next(Some(room)).starts_with("20\n"));
        assert!(rest.next(None).ends_with("1500\n"));
        assert_eq!((rest.len(), rest.next(None)), (0, String::new()));
        let (shown, told) = rest.cut("short\n".into(), room);
        assert_eq!((shown.as_str(), told), ("short\n", None));
    }
}
