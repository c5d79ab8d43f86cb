//! `.sympath`, `.sympath+`, `.symfix`, `!sym`: where symbols are looked for, and whether the search is told.
//!
//! ```text
//! 0: kd> .symfix /tmp/symbols
//! Symbol search path is: srv*/tmp/symbols*https://msdl.microsoft.com/download/symbols
//! Expanded Symbol search path is: srv*/tmp/symbols*https://msdl.microsoft.com/download/symbols
//!
//! ************* Path validation summary **************
//! Response                         Time (ms)     Location
//! Deferred                                       srv*/tmp/symbols*https://msdl.microsoft.com/download/symbols
//! ```
//! They work with and without a target. What was missing is looked for on the path as it becomes, when it is next
//! needed; symbols that were found stay until `.reload`. The path reaches to the end of the line, semicolons included,
//! unless it stands in quotes.

use std::fmt;

use serde::Serialize;

use super::answer::{Facts, Found};
use super::context::Context;
use super::error::QueryError;
use super::schema::Schema;
use super::spec::{Category, CommandSpec, Glued, Run, Takes};
use crate::target::{Note, NoteCode, Notes, SymbolPart, SymbolPath, SymbolSource, Target};

const PATH: &[(&str, &str)] =
    &[("PATH", "reaches to the end of the line, semicolons included, unless it stands in quotes")];

pub(super) static SYMPATH: CommandSpec = CommandSpec {
    names: &[".sympath"],
    usage: ".sympath [PATH]",
    summary: "show or set where symbols are looked for: folders, srv*CACHE*URL, cache*DIR",
    takes: Takes::Path,
    category: Category::Symbols,
    details: PATH,
    answers: &[SearchPath::SCHEMA],
    run: Run::Symbols(|arguments, source, _, notes| {
        if !arguments.is_empty() {
            source.set_path(SymbolPath::parse(quoted(arguments).unwrap_or(arguments)));
        }
        show(source, notes)
    }),
};

pub(super) static SYMPATH_APPEND: CommandSpec = CommandSpec {
    names: &[".sympath+"],
    usage: ".sympath+ PATH",
    summary: "look for symbols in PATH too, after the places there are",
    takes: Takes::Path,
    category: Category::Symbols,
    details: PATH,
    answers: &[SearchPath::SCHEMA],
    run: Run::Symbols(|arguments, source, _, notes| {
        if arguments.is_empty() {
            return Err(usage(&SYMPATH_APPEND, "what to append is missing"));
        }
        source.set_path(source.path().followed_by(quoted(arguments).unwrap_or(arguments)));
        show(source, notes)
    }),
};

pub(super) static SYMFIX: CommandSpec = CommandSpec {
    names: &[".symfix"],
    usage: ".symfix [DIR]",
    summary: "look for symbols on Microsoft's public server, kept in DIR or the platform's cache folder",
    takes: Takes::Arguments(Glued::Slash),
    category: Category::Symbols,
    details: &[],
    answers: &[SearchPath::SCHEMA],
    run: Run::Symbols(|arguments, source, _, notes| {
        source.set_path(SymbolPath::microsoft(
            Some(quoted(arguments).unwrap_or(arguments)).filter(|folder| !folder.is_empty()),
        ));
        show(source, notes)
    }),
};

pub(super) static SYM: CommandSpec = CommandSpec {
    names: &["!sym"],
    usage: "!sym [noisy|quiet]",
    summary: "tell each step of the search for symbols, or none",
    takes: Takes::Arguments(Glued::Slash),
    category: Category::Symbols,
    details: &[],
    answers: &[Noise::SCHEMA],
    run: Run::Symbols(sym),
};

/// The symbol path and what is known of its places.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct SearchPath {
    path: String,
    /// With every default written out.
    expanded: String,
    places: Vec<Place>,
}

#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
struct Place {
    location: String,
    response: Response,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Response {
    /// A folder that is there.
    Ok,
    /// A folder that is not.
    Missing,
    /// Stores and servers are asked when symbols are needed.
    Deferred,
}

impl SearchPath {
    /// The path of `source`; what is wrong with it is noted.
    #[must_use]
    pub fn of(source: &SymbolSource, notes: &Notes) -> Self {
        let path = source.path();
        let place = |part: &SymbolPart| Place {
            location: part.to_string(),
            response: match part {
                SymbolPart::Folder(folder) if folder.is_dir() => Response::Ok,
                SymbolPart::Folder(_) => Response::Missing,
                SymbolPart::Chain(_) | SymbolPart::Cache(_) => Response::Deferred,
            },
        };
        let places: Vec<_> = path.parts().iter().map(place).collect();
        if places.is_empty() {
            notes.add(Note::remark(
                NoteCode::SymbolPathEmpty,
                "The symbol path is empty: no symbols are found. .symfix sets it to Microsoft's public server.",
            ));
        }
        for Place { location, .. } in places.iter().filter(|place| place.response == Response::Missing) {
            notes.add(Note::remark(NoteCode::SymbolPathFolder, format!("There is no folder {location}.")));
        }
        for folder in path.foreign() {
            let instead = crate::target::default_store();
            notes.add(Note::remark(
                NoteCode::SymbolPathFolder,
                format!("{folder} is a folder of Windows; {} is used in its place", instead.display()),
            ));
        }
        Self { path: path.text().to_owned(), expanded: path.to_string(), places }
    }
}

impl SearchPath {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("search_path");
}

impl Facts for SearchPath {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, _: &Context, out: &mut dyn fmt::Write) -> fmt::Result {
        let or_empty = |text: &str| if text.is_empty() { "<empty>".to_owned() } else { text.to_owned() };
        writeln!(out, "Symbol search path is: {}", or_empty(&self.path))?;
        writeln!(out, "Expanded Symbol search path is: {}", or_empty(&self.expanded))?;
        if self.places.is_empty() {
            return Ok(());
        }
        writeln!(out, "\n************* Path validation summary **************")?;
        writeln!(out, "{:<33}{:<14}Location", "Response", "Time (ms)")?;
        for Place { location, response } in &self.places {
            let response = match response {
                Response::Ok => "OK",
                Response::Missing => "Error",
                Response::Deferred => "Deferred",
            };
            writeln!(out, "{response:<47}{location}")?;
        }
        Ok(())
    }
}

/// Whether the search for symbols is told.
#[derive(Clone, Copy, Debug, Serialize, schemars::JsonSchema)]
pub struct Noise {
    noisy: bool,
}

impl Noise {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("noise");
}

impl Facts for Noise {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, _: &Context, out: &mut dyn fmt::Write) -> fmt::Result {
        writeln!(out, "{} mode - symbol prompts off", if self.noisy { "noisy" } else { "quiet" })
    }
}

fn sym(arguments: &str, source: &SymbolSource, _: Option<&Target<'_>>, _: &Notes) -> Found {
    match arguments.to_ascii_lowercase().as_str() {
        "" => {}
        "noisy" => source.set_noisy(true),
        "quiet" => source.set_noisy(false),
        other => return Err(usage(&SYM, &format!("cannot read `{other}`"))),
    }
    Ok(Box::new(Noise { noisy: source.is_noisy() }))
}

fn show(source: &SymbolSource, notes: &Notes) -> Found {
    Ok(Box::new(SearchPath::of(source, notes)))
}

/// What stands between the quotes around a path; nothing if there are none.
pub(super) fn quoted(path: &str) -> Option<&str> {
    path.trim().strip_prefix('"')?.strip_suffix('"')
}

fn usage(spec: &'static CommandSpec, problem: &str) -> QueryError {
    QueryError::Usage { command: spec.names[0], problem: problem.to_owned(), usage: spec.usage }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::{Answer, Style, find};

    fn run(line: &str, source: &SymbolSource) -> Result<String, String> {
        let (spec, arguments) = find(line).unwrap();
        let Run::Symbols(run) = spec.run else { panic!("{line} is no symbol command") };
        let answer = run(arguments, source, None, &Notes::new()).map_err(|error| error.to_string())?;
        let mut text = String::new();
        Answer::of_no_target(answer).write_text(Style::default(), &mut text).unwrap();
        Ok(text)
    }

    #[test]
    fn the_path_is_shown_set_and_appended_to() {
        let source = SymbolSource::new(SymbolPath::default());
        assert!(run(".sympath", &source).unwrap().starts_with("Symbol search path is: <empty>\n"));
        run(".sympath srv*/s*https://symbols.example;/nowhere at all", &source).unwrap();
        let text = run(".sympath+ cache*/c", &source).unwrap();
        assert_eq!(
            text,
            "\
Symbol search path is: srv*/s*https://symbols.example;/nowhere at all;cache*/c
Expanded Symbol search path is: srv*/s*https://symbols.example;/nowhere at all;cache*/c

************* Path validation summary **************
Response                         Time (ms)     Location
Deferred                                       srv*/s*https://symbols.example
Error                                          /nowhere at all
Deferred                                       cache*/c
"
        );
        run(".symfix /t", &source).unwrap();
        assert_eq!(source.path().text(), "srv*/t*https://msdl.microsoft.com/download/symbols");
        assert!(run(".sympath+", &source).unwrap_err().contains("usage: .sympath+ PATH"));
    }

    #[test]
    fn the_search_is_told_or_not() {
        let source = SymbolSource::new(SymbolPath::default());
        assert_eq!(run("!sym noisy", &source).unwrap(), "noisy mode - symbol prompts off\n");
        assert_eq!(run("!sym", &source).unwrap(), "noisy mode - symbol prompts off\n");
        assert_eq!(run("!sym QUIET", &source).unwrap(), "quiet mode - symbol prompts off\n");
        assert!(run("!sym loud", &source).is_err());
    }
}
