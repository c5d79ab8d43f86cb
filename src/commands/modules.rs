//! `lm`: the loaded modules and where their symbols come from.
//!
//! ```text
//! start             end                 module name
//! fffff800`0140a000 fffff800`019f4000   nt         (pdb symbols)          s/ntkrnlmp.pdb/..1/ntkrnlmp.pdb
//! fffff880`0447d000 fffff880`04486000   myfault    (deferred)
//! ```
//! Lists, and looks for no symbols: a module whose symbols nobody needed yet is `deferred`.

use std::fmt;

use serde::Serialize;

use super::pattern::Pattern;
use super::{Answer, Answered, CommandSpec, Needs, Note, Query, QueryError, Run, answer};
use crate::output;
use crate::target::{SymbolKind, Target, VirtAddr, WalkEnd};

pub(super) static COMMAND: CommandSpec = CommandSpec {
    names: &["lm"],
    usage: "lm [m PATTERN]",
    summary: "list loaded modules, their addresses and where their symbols come from",
    needs: Needs::Stopped,
    run: Run::Query(run),
};

/// Asks for the loaded modules.
#[derive(Clone, Debug, Default)]
pub struct Modules {
    /// Only those whose name fits: `*` any text, `?` any character, in any case.
    pub pattern: Option<String>,
}

/// The loaded modules in order of address.
#[derive(Clone, Debug, Serialize)]
pub struct ModuleTable {
    modules: Vec<Row>,
    end: WalkEnd,
    notes: Vec<Note>,
}

#[derive(Clone, Debug, Serialize)]
struct Row {
    #[serde(serialize_with = "output::address")]
    start: VirtAddr,
    #[serde(serialize_with = "output::address")]
    end: VirtAddr,
    name: String,
    image_name: String,
    symbols: SymbolStatus,
}

#[derive(Clone, Debug, Serialize)]
#[serde(tag = "status", rename_all = "lowercase")]
enum SymbolStatus {
    Deferred,
    Loaded { kind: SymbolKind, identity: String, path: Option<String> },
    Missing { reason: String },
}

impl Query for Modules {
    type Answer = ModuleTable;

    fn run(&self, target: &Target<'_>) -> Result<ModuleTable, QueryError> {
        let list = target.modules().map_err(|source| QueryError::Target { command: "lm", source })?;
        let pattern = self.pattern.as_deref().map(Pattern::new);
        let fits = |name: &str| pattern.as_ref().is_none_or(|pattern| pattern.matches(name));
        let row = |module: &crate::target::Module| Row {
            start: module.base,
            end: module.end(),
            name: module.name.to_string(),
            image_name: module.image_name.clone(),
            symbols: match target.kernel().known_symbols(module) {
                None => SymbolStatus::Deferred,
                Some(Ok(symbols)) => SymbolStatus::Loaded {
                    kind: symbols.kind(),
                    identity: symbols.identity().to_string(),
                    path: symbols.path().map(|path| path.display().to_string()),
                },
                Some(Err(reason)) => SymbolStatus::Missing { reason: reason.to_string() },
            },
        };
        let modules: Vec<_> = list.modules().iter().filter(|module| fits(&module.name)).map(row).collect();
        let mut notes = Vec::new();
        if !list.end().is_complete() {
            notes.push(Note::partial(format!("the list of modules breaks off: {}", list.end())));
        }
        if let (true, Some(pattern)) = (modules.is_empty(), &self.pattern) {
            notes.push(Note::failed(format!("no loaded module's name fits {pattern}")));
        }
        Ok(ModuleTable { modules, end: list.end().clone(), notes })
    }
}

impl Answer for ModuleTable {
    fn write_text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        writeln!(out, "start             end                 module name")?;
        for Row { start, end, name, symbols, .. } in &self.modules {
            let (status, path) = match symbols {
                SymbolStatus::Deferred => ("(deferred)".to_owned(), ""),
                SymbolStatus::Loaded { kind, path, .. } => {
                    (format!("({kind} symbols)"), path.as_deref().unwrap_or_default())
                }
                SymbolStatus::Missing { .. } => ("(no symbols)".to_owned(), ""),
            };
            writeln!(out, "{}", format!("{start} {end}   {name:<8}   {status:<23}{path}").trim_end())?;
        }
        Ok(())
    }

    fn notes(&self) -> &[Note] {
        &self.notes
    }
}

fn run(arguments: &str, target: &Target<'_>) -> Answered {
    let mut words = arguments.split_whitespace();
    let pattern = match (words.next(), words.next(), words.next()) {
        (None, ..) => None,
        (Some("m"), Some(pattern), None) => Some(pattern.to_owned()),
        _ => {
            let problem = format!("cannot read `{arguments}`");
            return Err(QueryError::Usage { command: "lm", problem, usage: COMMAND.usage });
        }
    };
    answer(&Modules { pattern }, target)
}
