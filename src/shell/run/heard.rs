//! What a target says that a plan waits for: lines that it prints, drivers that come and go, questions, restarts.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kd_protocol::kd::{StateChange, StateDetail};
use kd_protocol::link::Event;

use crate::plan::{Happening, Planned};
use crate::session::News;

/// A line that is longer is looked at in parts.
const LONGEST_LINE: usize = 0x1_0000;
/// Happenings that wait for their turn; a target that prints without end must not fill this machine.
const MOST_WAITING: usize = 16;

/// Something that was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Occurrence {
    /// Which of what is planned it is.
    pub(super) planned: usize,
    /// What it was, in words.
    pub(super) detail: String,
}

/// Hears what the target says, from whichever thread tells it.
pub(super) struct Heard {
    wanted: Vec<Happening>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    line: Vec<u8>,
    waiting: VecDeque<Occurrence>,
    left_out: u64,
    /// A question of the target was answered, and no stop has come of it yet.
    was_asked: bool,
    /// The machine said that it restarts, and is not back yet.
    restarts_since: Option<Instant>,
}

impl Heard {
    pub(super) fn new(planned: &[Planned]) -> Self {
        Self { wanted: planned.iter().map(|it| it.happening.clone()).collect(), state: Mutex::default() }
    }

    /// Takes note of a piece of news.
    pub(super) fn hear(&self, news: &News) {
        let mut state = self.lock();
        match news {
            News::Event(Event::DebugPrint(text)) => {
                for byte in text {
                    if *byte != b'\n' {
                        state.line.push(*byte);
                    }
                    if *byte == b'\n' || state.line.len() >= LONGEST_LINE {
                        let line = std::mem::take(&mut state.line);
                        self.printed(&line, &mut state);
                    }
                }
            }
            News::Event(Event::ModuleEvent(change)) => self.module(change, &mut state),
            News::Event(Event::Rebooting) => state.restarts_since = Some(Instant::now()),
            News::Event(Event::Restarted(_) | Event::Connected(_)) => state.restarts_since = None,
            News::Answered(..) => state.was_asked = true,
            _ => {}
        }
    }

    fn printed(&self, line: &[u8], state: &mut State) {
        for (planned, happening) in self.wanted.iter().enumerate() {
            if let Happening::Print(pattern) = happening
                && pattern.is_match(line)
            {
                let detail = String::from_utf8_lossy(line).trim_end().to_owned();
                state.add(Occurrence { planned, detail });
            }
        }
    }

    fn module(&self, change: &StateChange, state: &mut State) {
        let StateDetail::LoadSymbols(load) = change.detail else { return };
        let end = change.data.iter().position(|byte| *byte == 0).unwrap_or(change.data.len());
        let path = String::from_utf8_lossy(&change.data[..end]).into_owned();
        let file = path.rsplit(['\\', '/']).next().unwrap_or_default();
        for (planned, happening) in self.wanted.iter().enumerate() {
            let wanted = match happening {
                Happening::Load(driver) if load.unload_symbols == 0 => driver,
                Happening::Unload(driver) if load.unload_symbols != 0 => driver,
                _ => continue,
            };
            let stem = |name: &str| name.to_lowercase().trim_end_matches(".sys").to_owned();
            if stem(file) == stem(wanted) {
                state.add(Occurrence { planned, detail: path.clone() });
            }
        }
    }

    /// The next thing that was heard.
    pub(super) fn next(&self) -> Option<Occurrence> {
        self.lock().waiting.pop_front()
    }

    /// How much was heard and is not told: more came than there was time for.
    pub(super) fn left_out(&self) -> u64 {
        self.lock().left_out
    }

    /// True if a question of the target was answered since the last call.
    pub(super) fn take_question(&self) -> bool {
        std::mem::take(&mut self.lock().was_asked)
    }

    /// The machine was told to restart.
    pub(super) fn restarts(&self) {
        self.lock().restarts_since = Some(Instant::now());
    }

    /// How long the machine has been away, if it restarts.
    pub(super) fn away(&self) -> Option<Duration> {
        self.lock().restarts_since.map(|since| since.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, occurrence: Occurrence) {
        if self.waiting.len() == MOST_WAITING {
            self.left_out += 1;
        } else {
            self.waiting.push_back(occurrence);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    #[test]
    fn a_line_is_matched_whole_however_it_comes() {
        let text = r#"
            [[target]]
            name = "one"
            connection = "net:port=50000,key=1.2.3.4"
            [[on]]
            print = '^myfault: leaked \d+$'
            commands = ["lm"]
        "#;
        let heard = Heard::new(&Plan::parse(text).unwrap().targets[0].on);
        for text in ["myfa", "ult: leaked 1", "2\nother\nmyfault: lea", "ked x\n"] {
            heard.hear(&News::Event(Event::DebugPrint(text.as_bytes().to_vec().into())));
        }
        assert_eq!(heard.next().unwrap().detail, "myfault: leaked 12");
        assert_eq!(heard.next(), None);
        for _ in 0..20 {
            heard.hear(&News::Event(Event::DebugPrint(b"myfault: leaked 1\n".to_vec().into())));
        }
        assert_eq!(heard.left_out(), 4);
    }
}
