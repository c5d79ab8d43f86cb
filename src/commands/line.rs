//! The grammar of a line: how what is typed becomes commands, and which lines are refused whole.
//!
//! ```text
//!  lm; .echo "a; b"; g        three commands: quotes and braces group, `;` separates outside of them
//!  * all of it; g             a comment up to the end of the line           $$ up to the next `;`
//!  0: kd> lm                  what a post shows: the prompt is left out, typographic quotes are quotes
//!  .if (0) { .reboot }        refused, with everything on its line: a part of it would do what nobody asked for
//!  $<FILE   $$< FILE; g       the lines of a file; `$` takes all of the line for its name, `$$` all up to the next `;`
//!  $$>a< FILE ARGUMENTS       refused: it would need arguments, and no comment is meant
//! ```
//! Pure functions: nothing here knows a target. A script of several lines may have a block that reaches over lines; it
//! belongs to the line that opens it.

use super::error::QueryError;
use super::registry::COMMANDS;
use super::spec::{CommandSpec, Takes};
use super::{known, script, symbol_path};

/// One line of what was typed, or of a script.
#[derive(Clone, Debug)]
pub enum Line {
    /// Its commands, trimmed, without comments; never empty.
    Commands(Vec<String>),
    /// It is refused as a whole: none of its commands may be run.
    Refused {
        /// The line as it was typed, trimmed.
        text: String,
        /// Why, in a sentence.
        reason: String,
        /// The same for the user, with what was not run therefore: a usage error.
        why: QueryError,
    },
}

impl Line {
    /// Its commands; none if it is refused.
    #[must_use]
    pub fn commands(&self) -> &[String] {
        match self {
            Self::Commands(commands) => commands,
            Self::Refused { .. } => &[],
        }
    }
}

/// The lines of `text`; those without a command are left out.
#[must_use]
pub fn lines(text: &str) -> Vec<Line> {
    let mut scanner = Scanner { rest: text };
    std::iter::from_fn(|| scanner.line()).flatten().collect()
}

/// What stands at the start of a command and has commands inside, or decides whether others are run.
const CONTROL_FLOW: [&str; 19] = [
    ".if",
    ".else",
    ".elsif",
    ".for",
    ".while",
    ".do",
    ".foreach",
    ".block",
    ".catch",
    ".break",
    ".continue",
    ".leave",
    "j",
    "z",
    "as",
    ".shell",
    "!for_each_module",
    "!for_each_process",
    "!for_each_thread",
];

/// Runs a file with arguments.
const WITH_ARGUMENTS: &str = "$$>a<";

/// Reads line after line.
struct Scanner<'a> {
    rest: &'a str,
}

/// A command as it is being read.
struct Piece {
    text: String,
    /// A block is open at the end of the text.
    is_open: bool,
}

impl Scanner<'_> {
    /// The next line; nothing inside if it has no command, nothing at all at the end.
    fn line(&mut self) -> Option<Option<Line>> {
        if self.rest.is_empty() {
            return None;
        }
        let whole = self.rest;
        self.skip_prompts();
        let mut pieces = Vec::new();
        let mut is_open = false;
        loop {
            self.skip(|c| c.is_whitespace() && c != '\n' || is_invisible(c));
            if self.rest.starts_with('*') {
                self.skip(|c| c != '\n');
            } else if let Some(file) = self.script() {
                pieces.push(file);
            } else if self.rest.starts_with("$$") && !self.rest.starts_with(WITH_ARGUMENTS) {
                self.skip(|c| c != ';' && c != '\n');
            } else {
                let piece = self.piece();
                is_open |= piece.is_open;
                pieces.push(piece.text);
            }
            if !self.take(';') {
                self.take('\n');
                break;
            }
        }
        let typed = whole[..whole.len() - self.rest.len()].trim();
        Some(content(typed, pieces, is_open))
    }

    /// The name of a file with commands, which is taken as it stands.
    fn script(&mut self) -> Option<String> {
        let form = script::FORMS.iter().find(|form| self.rest.starts_with(**form))?;
        let ends: &[char] = if form.starts_with("$$") { &[';', '\n'] } else { &['\n'] };
        let (text, rest) = self.rest.split_at(self.rest.find(ends).unwrap_or(self.rest.len()));
        self.rest = rest;
        Some(text.trim().to_owned())
    }

    /// Everything up to a `;` or the line's end outside of quotes and braces.
    fn piece(&mut self) -> Piece {
        let mut text = String::new();
        let mut depth = 0_u32;
        while let Some(c) = self.rest.chars().next() {
            if depth == 0 && matches!(c, ';' | '\n') {
                break;
            }
            match c {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            match self.quoted(c, &text) {
                Some(quoted) => text.push_str(&quoted),
                None => {
                    self.rest = &self.rest[c.len_utf8()..];
                    text.extend(as_meant(c, &text, self.rest));
                }
            }
        }
        Piece { text: text.trim().to_owned(), is_open: depth > 0 }
    }

    /// The quoted text that begins with `c`, which comes next, with straight quotes; nothing if none begins there.
    fn quoted(&mut self, c: char, before: &str) -> Option<String> {
        let (quote, closing): (char, &[char]) = match c {
            '"' => ('"', &['"']),
            '\u{201c}' | '\u{201d}' | '\u{201e}' => ('"', &['\u{201c}', '\u{201d}', '"']),
            '\'' => ('\'', &['\'']),
            '\u{2018}' | '\u{201a}' => ('\'', &['\u{2018}', '\u{2019}', '\'']),
            _ => return None,
        };
        // Within a word it is an apostrophe.
        if quote == '\'' && before.ends_with(|c: char| c.is_alphanumeric()) {
            return None;
        }
        let inside = &self.rest[c.len_utf8()..];
        // A breakpoint's commands may have quotes of their own.
        let is_escaped = |at: usize| quote == '"' && has_commands(before) && inside[..at].ends_with('\\');
        let ends = |(at, c): &(usize, char)| *c == '\n' || closing.contains(c) && !is_escaped(*at);
        let end = inside.char_indices().find(ends).map_or(inside.len(), |(at, _)| at);
        let is_closed = inside[end..].starts_with(closing);
        if quote == '\'' && !is_closed {
            return None;
        }
        let text = &inside[..end];
        self.rest = &inside[end..];
        if !is_closed {
            return Some(format!("{quote}{text}"));
        }
        self.skip_one();
        Some(format!("{quote}{text}{quote}"))
    }

    fn skip_prompts(&mut self) {
        loop {
            self.skip(|c| c.is_whitespace() && c != '\n' || is_invisible(c));
            match after_prompt(self.rest) {
                Some(rest) => self.rest = rest,
                None => return,
            }
        }
    }

    fn skip(&mut self, is_skipped: impl Fn(char) -> bool) {
        self.rest = self.rest.trim_start_matches(is_skipped);
    }

    fn skip_one(&mut self) {
        let mut rest = self.rest.chars();
        rest.next();
        self.rest = rest.as_str();
    }

    fn take(&mut self, sign: char) -> bool {
        let found = self.rest.strip_prefix(sign);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }
}

/// True if what is quoted behind this may be commands: of a breakpoint.
fn has_commands(before: &str) -> bool {
    let name = before.split_whitespace().next().unwrap_or_default();
    ["bp", "bu", "ba"].iter().any(|it| it.eq_ignore_ascii_case(name))
}

/// What a person meant by a character that a word processor or a web page made of another.
fn as_meant(c: char, before: &str, after: &str) -> Option<char> {
    let begins_word = before.is_empty() || before.ends_with(char::is_whitespace);
    match c {
        '\u{2018}' | '\u{2019}' => Some('\''),
        // An option: `–v`.
        '\u{2013}' | '\u{2212}' if begins_word && after.starts_with(|c: char| c.is_alphanumeric()) => {
            Some('-')
        }
        c if is_invisible(c) => None,
        c if c.is_whitespace() && c != '\n' => Some(' '),
        c => Some(c),
    }
}

/// Characters of no width that copying brings along.
const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}')
}

/// What follows a debugger's prompt, if `text` begins with one: `0: kd> `, `lkd> `, `0: kd:x86> `, `0:000> `.
fn after_prompt(text: &str) -> Option<&str> {
    let (prompt, rest) = text.split_once('>')?;
    let mut parts = prompt.split(':').map(str::trim);
    let mut part = parts.next()?;
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let has_number = is_number(part);
    if has_number {
        part = parts.next()?;
    }
    let is_kernel = matches!(part, "kd" | "lkd");
    let is_thread = has_number && part.len() == 3 && is_number(part);
    let is_machine = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let is_prompt = (is_kernel || is_thread) && parts.next().is_none_or(is_machine) && parts.next().is_none();
    is_prompt.then_some(rest)
}

fn content(typed: &str, pieces: Vec<String>, is_open: bool) -> Option<Line> {
    let refused = |reason: String, not_run: &str| {
        let why = QueryError::Line { reason: format!("{reason} {not_run}") };
        Some(Line::Refused { text: typed.to_owned(), reason, why })
    };
    let nothing_of_line = "Nothing of this line was run.";
    let commands: Vec<String> = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
    if let Some(reason) = commands.iter().find_map(|command| refusal(command)) {
        return refused(reason, nothing_of_line);
    }
    if is_open {
        return refused("A brace is opened and not closed.".to_owned(), "Nothing from its line on was run.");
    }
    match with_paths(commands) {
        Ok(commands) if commands.is_empty() => None,
        Ok(commands) => Some(Line::Commands(commands)),
        Err(reason) => refused(reason, nothing_of_line),
    }
}

/// Why a line with this command is refused; nothing if it isn't.
fn refusal(command: &str) -> Option<String> {
    if command.starts_with(['{', '}']) {
        return Some("Blocks of commands are not carried out here.".to_owned());
    }
    if command.starts_with(WITH_ARGUMENTS) {
        return Some(format!(
            "{WITH_ARGUMENTS} would run a file with arguments put in, which verikd doesn't; $$< FILE runs one as it is."
        ));
    }
    let name = name_of(command);
    let runs_others = command.starts_with(['~', '|']) && name.ends_with(['e', 'E']);
    let is_control_flow = CONTROL_FLOW.iter().any(|known| known.eq_ignore_ascii_case(name));
    (is_control_flow || runs_others).then(|| {
        format!("{name} decides which commands are run, or runs some of its own, which verikd doesn't know how to do.")
    })
}

/// The name that a command begins with: its first word, up to a parenthesis or brace.
fn name_of(command: &str) -> &str {
    let end = command.find(|c: char| c.is_whitespace() || "({".contains(c)).unwrap_or(command.len());
    &command[..end]
}

/// Gives symbol paths back the elements that their semicolons cut off.
///
/// A path in quotes ends with them. What looks like a command among the elements of one without quotes is not guessed at.
fn with_paths(pieces: Vec<String>) -> Result<Vec<String>, String> {
    let mut commands: Vec<String> = Vec::new();
    // The path that is being put together is the last command.
    let mut is_path = false;
    for piece in pieces {
        if !is_path {
            is_path = begins_path(&piece);
            commands.push(piece);
            continue;
        }
        if looks_like_command(&piece) {
            let path = commands.last().map(String::as_str).unwrap_or_default();
            let (name, path) = path.split_once(char::is_whitespace).unwrap_or((path, ""));
            return Err(format!(
                "`{piece}` after {name} is an element of the path or a command. Put the path in quotes to have both: \
                 {name} \"{}\"; {piece}.",
                path.trim()
            ));
        }
        if let Some(path) = commands.last_mut() {
            path.push(';');
            path.push_str(&piece);
        }
    }
    Ok(commands)
}

/// True for a command whose argument is a symbol path that goes on behind the next semicolon.
fn begins_path(command: &str) -> bool {
    let (name, path) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    // Its semicolons are its own.
    let is_named = |known: &&str| known.eq_ignore_ascii_case(name);
    let takes_path = |spec: &&&CommandSpec| spec.takes == Takes::Path && spec.names.iter().any(is_named);
    COMMANDS.iter().any(|spec| takes_path(&spec)) && !path.is_empty() && symbol_path::quoted(path).is_none()
}

/// True if an element of a path has the form of a command.
fn looks_like_command(element: &str) -> bool {
    let word = element.split_whitespace().next().unwrap_or_default();
    if word.contains(['/', '\\', '*']) || word.get(1..2) == Some(":") {
        return false;
    }
    let is_named = |name: &&str| name.eq_ignore_ascii_case(word);
    word.starts_with('!')
        || word.starts_with('.') && word[1..].starts_with(|c: char| c.is_ascii_alphabetic())
        || COMMANDS.iter().flat_map(|spec| spec.names).any(is_named)
        || known::sentence(word).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The commands of all lines; a refused line is an error.
    fn split(text: &str) -> Result<Vec<String>, String> {
        let mut commands = Vec::new();
        for line in lines(text) {
            match line {
                Line::Commands(found) => commands.extend(found),
                Line::Refused { why, .. } => return Err(why.to_string()),
            }
        }
        Ok(commands)
    }

    fn assert_splits(text: &str, commands: &[&str]) {
        let expected: Vec<_> = commands.iter().map(|it| (*it).to_owned()).collect();
        assert_eq!(split(text), Ok(expected), "{text:?}");
    }

    #[test]
    fn semicolons_separate_unless_quotes_or_braces_group() {
        assert_splits("!verifier 3 myfault.sys; g", &["!verifier 3 myfault.sys", "g"]);
        assert_splits(r#".echo "a; b" ;; q"#, &[r#".echo "a; b""#, "q"]);
        assert_splits("lm\r\n\n  g  \n", &["lm", "g"]);
        assert_splits("!verifier 3 myfault.sys;", &["!verifier 3 myfault.sys"]);
        assert_splits(r#";!verifier 3 "my fault.sys"; ;"#, &[r#"!verifier 3 "my fault.sys""#]);
        assert_splits(".echo 'a; b'; lm", &[".echo 'a; b'", "lm"]);
        assert_splits("s -b nt L10 'P' ';'; lm", &["s -b nt L10 'P' ';'", "lm"]);
        assert_splits(".echo it's fine; lm", &[".echo it's fine", "lm"]);
        assert_splits(".dump /used a b.dmp; lm", &[".dump /used a b.dmp", "lm"]);
        assert_splits(".dump /used \"a;b.dmp\"; lm", &[".dump /used \"a;b.dmp\"", "lm"]);
        assert_splits(".echo {a; b}; lm", &[".echo {a; b}", "lm"]);
        assert_splits(".echo '; lm", &[".echo '", "lm"]);
        // A path may end with a backslash, commands of a breakpoint have quotes.
        assert_splits(r#".echo "C:\"; lm"#, &[r#".echo "C:\""#, "lm"]);
        assert_splits(r#"bp nt!X ".echo \"a; b\"; g"; g"#, &[r#"bp nt!X ".echo \"a; b\"; g""#, "g"]);
        assert_splits("!verifier 3 \"my fault.sys; q\nlm", &["!verifier 3 \"my fault.sys; q", "lm"]);
    }

    #[test]
    fn comments_are_left_out_and_a_script_is_no_comment() {
        assert_splits("* all of this; g {\nlm; $$ why { \" ; q", &["lm", "q"]);
        assert_splits("$$\n$$$ three; lm", &["lm"]);
        assert_splits("lm; $$>< a.txt ; g", &["lm", "$$>< a.txt", "g"]);
        assert_splits("$<C:\\a; b.txt ; g\nlm", &["$<C:\\a; b.txt ; g", "lm"]);
        assert_splits("$$<a.txt\n$><b\u{feff}.txt", &["$$<a.txt", "$><b\u{feff}.txt"]);
        assert!(split("lm; $$>a< a.txt 1").unwrap_err().contains("$$< FILE runs one"));
    }

    #[test]
    fn control_flow_refuses_its_whole_line_and_its_block() {
        for text in [
            ".if (0) { .echo never; .reboot }",
            ".if(0){.reboot}",
            ".foreach (a {lm}) { .echo a; q }",
            "lm; .while (1) { g }",
            "j 1 '.reboot'; 'g'",
            "j(1) '.reboot'",
            "lm; z(1)",
            ".block { .reboot }",
            ".ELSE { g }",
            "{ .reboot }",
            "} .else { g }",
            "as x lm; g",
            "~*e r; g",
            "!for_each_module .echo; g",
        ] {
            let lines = lines(text);
            assert!(matches!(lines[..], [Line::Refused { .. }]), "{text}: {lines:?}");
        }
        // A block over several lines belongs to the line that opens it.
        let lines = lines(".if (0) {\n  .reboot\n}\nlm");
        assert!(
            matches!(&lines[..], [Line::Refused { .. }, Line::Commands(after)] if after == &["lm"]),
            "{lines:?}"
        );
        assert!(split(".echo { a; g\nq").unwrap_err().contains("not closed"));
    }

    #[test]
    fn what_was_pasted_is_taken_as_meant() {
        assert_splits("0: kd> lm", &["lm"]);
        assert_splits("kd> kd> lm; g", &["lm", "g"]);
        assert_splits("12: kd:x86> lm\nlkd>r\n0:000> lm", &["lm", "r", "lm"]);
        assert_splits("0: kd> * a comment; g", &[]);
        assert_splits("? 1>0", &["? 1>0"]);
        assert_splits(
            "!verifier\u{a0}3\u{202f}\u{201c}my fault.sys\u{201d}\u{200b}; lm",
            &["!verifier 3 \"my fault.sys\"", "lm"],
        );
        assert_splits("!verifier \u{2013}v 80", &["!verifier -v 80"]);
        assert_splits("s -a nt L10 \"\u{201c};\"", &["s -a nt L10 \"\u{201c};\""]);
        assert_splits("s -b nt L10 \u{2018}P\u{2019}", &["s -b nt L10 'P'"]);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic_or_last(text in "[-.*${}();'\"\n \u{201c}\u{a0}0:a-zkd>é]{0,60}") {
            for line in lines(&text) {
                proptest::prop_assert!(line.commands().iter().all(|it| !it.is_empty() && it.trim() == it));
            }
        }
    }

    #[test]
    fn a_symbol_path_keeps_its_semicolons_and_gives_up_commands() {
        assert_splits("lm; .sympath+ /a;srv*/b ;\ng", &["lm", ".sympath+ /a;srv*/b", "g"]);
        assert_splits(".sympath;lm m nt", &[".sympath", "lm m nt"]);
        assert_splits(".sympath+;lm", &[".sympath+", "lm"]);
        assert_splits(".sympath \"/tmp/a b;/c\"; lm", &[".sympath \"/tmp/a b;/c\"", "lm"]);
        assert_splits(r".sympath C:\a;\\server\b;cache*", &[r".sympath C:\a;\\server\b;cache*"]);
        for text in [
            ".sympath+ /x; .reload /f",
            ".sympath /x;lm",
            ".sympath /x;/y; !sym noisy",
            ".sympath /x; .rebot",
        ] {
            assert!(split(text).unwrap_err().contains("Put the path in quotes"), "{text}");
        }
    }
}
