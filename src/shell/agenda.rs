//! What is still to be run of what was typed, pasted or read from a file, in order.

use std::collections::VecDeque;

use crate::commands::line::{Line, lines};

/// Files that name files that name files: more than this many deep are a circle.
const MAX_DEPTH: usize = 16;

/// Lines and their commands, those due first in front.
#[derive(Clone, Debug, Default)]
pub(super) struct Agenda {
    due: VecDeque<Due>,
    /// How deep in files the command is that was taken last.
    depth: usize,
}

#[derive(Clone, Debug)]
struct Due {
    next: Next,
    depth: usize,
}

/// What is due.
#[derive(Clone, Debug)]
pub(super) enum Next {
    /// A line that is refused.
    Refused(Line),
    /// A command.
    Command {
        text: String,
        /// It is the first of its line.
        begins_line: bool,
    },
}

impl Next {
    /// An empty line.
    pub(super) fn nothing() -> Self {
        Self::Command { text: String::new(), begins_line: true }
    }
}

impl Agenda {
    pub(super) fn of(text: &str) -> Self {
        Self { due: due(text, 0).collect(), depth: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    /// True if more than one line is due.
    pub(super) fn has_lines(&self) -> bool {
        self.due.iter().filter(|due| due.begins_line()).nth(1).is_some()
    }

    pub(super) fn next(&mut self) -> Option<Next> {
        let Due { next, depth } = self.due.pop_front()?;
        self.depth = depth;
        Some(next)
    }

    /// Puts the lines of a file in front, which the command that was taken last names.
    ///
    /// # Errors
    /// A sentence, if files name each other in a circle.
    pub(super) fn put_file_first(&mut self, text: &str) -> Result<(), String> {
        let depth = self.depth + 1;
        if depth > MAX_DEPTH {
            return Err(format!("files of commands name each other, {MAX_DEPTH} deep; not read"));
        }
        let mut due: VecDeque<_> = due(text, depth).collect();
        due.append(&mut self.due);
        self.due = due;
        Ok(())
    }

    /// Puts what was taken last back, and the commands of a breakpoint before it.
    pub(super) fn put_commands_first(&mut self, commands: &str, taken: Next) {
        let mut due: VecDeque<_> = due(commands, 0).collect();
        due.push_back(Due { next: taken, depth: self.depth });
        due.append(&mut self.due);
        self.due = due;
    }

    /// Puts these behind.
    pub(super) fn append(&mut self, mut other: Self) {
        self.due.append(&mut other.due);
    }

    /// Leaves out the rest of the line: its commands.
    pub(super) fn drop_line(&mut self) -> Vec<String> {
        let end = self.due.iter().position(Due::begins_line).unwrap_or(self.due.len());
        self.due.drain(..end).filter_map(Due::command).collect()
    }

    /// The commands that are left; none afterwards.
    pub(super) fn take_commands(&mut self) -> Vec<String> {
        self.due.drain(..).filter_map(Due::command).collect()
    }
}

impl Due {
    fn command(self) -> Option<String> {
        match self.next {
            Next::Command { text, .. } if !text.is_empty() => Some(text),
            Next::Command { .. } | Next::Refused(_) => None,
        }
    }

    const fn begins_line(&self) -> bool {
        !matches!(self.next, Next::Command { begins_line: false, .. })
    }
}

fn due(text: &str, depth: usize) -> impl Iterator<Item = Due> {
    let of_line = |line: Line| -> Vec<Next> {
        match line {
            Line::Commands(commands) => {
                let commands = commands.into_iter().enumerate();
                commands.map(|(place, text)| Next::Command { text, begins_line: place == 0 }).collect()
            }
            refused @ Line::Refused { .. } => vec![Next::Refused(refused)],
        }
    };
    lines(text).into_iter().flat_map(of_line).map(move |next| Due { next, depth })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(next: Option<Next>) -> String {
        match next {
            Some(Next::Command { text, begins_line }) => {
                format!("{}{text}", if begins_line { "" } else { "; " })
            }
            Some(Next::Refused(_)) => "refused".into(),
            None => String::new(),
        }
    }

    #[test]
    fn a_file_s_lines_come_before_the_rest() {
        let mut agenda = Agenda::of("lm; r\n.if (1) { g }\ng");
        assert!(agenda.has_lines() && !Agenda::of("lm; r").has_lines());
        assert_eq!(text(agenda.next()), "lm");
        agenda.put_file_first(".echo a; .echo b\n.echo c").unwrap();
        let rest: Vec<_> = std::iter::from_fn(|| agenda.next()).map(|next| text(Some(next))).collect();
        assert_eq!(rest, [".echo a", "; .echo b", ".echo c", "; r", "refused", "g"]);
    }

    #[test]
    fn the_rest_of_a_line_can_be_left_out_and_files_in_a_circle_end() {
        let mut agenda = Agenda::of("lm; r; q\ng");
        agenda.next();
        assert_eq!(agenda.drop_line(), ["r", "q"]);
        assert_eq!(agenda.clone().take_commands(), ["g"]);
        let circle = std::iter::from_fn(|| {
            agenda.next();
            agenda.put_file_first("$<circle").ok()
        });
        assert_eq!(circle.take(100).count(), MAX_DEPTH);
    }
}
