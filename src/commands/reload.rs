//! `.reload`: forgets modules and symbols, so that they are read again.
//!
//! ```text
//!  .reload              the list of modules; symbols when they are needed, the kernel's at once
//!  .reload /f           the symbols of every module at once; servers are asked again for what they did not have
//!  .reload [/f] MODULE  those of one module, at once
//!  .reload /u MODULE    unloads one module's symbols
//! ```
//! `MODULE` is `myfault` or `myfault.sys`, in any case.

use std::fmt;

use serde::Serialize;

use super::answer::{Facts, Found};
use super::context::Context;
use super::error::QueryError;
use super::schema::Schema;
use super::spec::{Category, CommandSpec, Glued, Run, Takes};
use crate::output::{Escaped, TargetText};
use crate::target::{
    MissingSymbols, Module, Note, NoteCode, NoteKind, Notes, OfLink, SymbolKind, SymbolSource, Target,
    TargetError,
};

pub(super) static COMMAND: CommandSpec = CommandSpec {
    names: &[".reload"],
    usage: ".reload [/f] [/u] [MODULE]",
    summary: "read modules and symbols again; /f all at once, /u unloads",
    takes: Takes::Arguments(Glued::Slash),
    category: Category::Symbols,
    details: &[
        ("/f", "look for the symbols of all modules, or of MODULE, at once"),
        ("/u", "forget the symbols of MODULE"),
    ],
    answers: &[Reloaded::SCHEMA],
    run: Run::Symbols(run),
};

/// Modules in a line of dots.
const DOTS: usize = 64;

/// What was reloaded.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct Reloaded {
    /// How many modules are loaded; nothing if no stopped target could be asked.
    modules: Option<usize>,
    /// Those whose symbols were looked for, or unloaded.
    symbols: Vec<Outcome>,
    #[serde(skip)]
    is_listed: bool,
}

#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
struct Outcome {
    module: String,
    #[serde(flatten)]
    status: Status,
}

#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
#[serde(tag = "status", rename_all = "lowercase")]
enum Status {
    Loaded { kind: SymbolKind, path: Option<TargetText> },
    Missing { reason: String },
    Unloaded,
}

#[derive(Clone, Copy, Debug, Default)]
struct Switches {
    force: bool,
    unload: bool,
}

fn run(arguments: &str, source: &SymbolSource, target: Option<&Target<'_>>, notes: &Notes) -> Found {
    let (switches, module) = parse(arguments)?;
    source.look_again(switches.force);
    let Some(target) = target else {
        let text = "No target is stopped: modules and symbols are read when one is.";
        notes.add(Note::remark(NoteCode::NoTarget, text));
        return Ok(Box::new(Reloaded { modules: None, symbols: Vec::new(), is_listed: false }));
    };
    if switches.unload {
        let name = module.ok_or_else(|| usage("which module's symbols to unload is missing"))?;
        return unload(name, target);
    }
    match module {
        Some(name) => {
            let module = module_called(name, target)?;
            target.kernel().unload(&module);
            let mut report = Reloaded { modules: None, symbols: Vec::new(), is_listed: true };
            report.load(target, &module, NoteKind::Failed);
            Ok(Box::new(report))
        }
        None => reload_all(switches, target),
    }
}

fn reload_all(switches: Switches, target: &Target<'_>) -> Found {
    target.kernel().reload();
    let list = target.modules().map_err(failed)?;
    let mut report = Reloaded { modules: Some(list.modules().len()), symbols: Vec::new(), is_listed: false };
    let kernel_base = target.kernel().version().base;
    let wanted = |module: &&Module| switches.force || module.base == kernel_base;
    for module in list.modules().iter().filter(wanted) {
        if !report.load(target, module, NoteKind::Partial) {
            break;
        }
    }
    if !list.end().is_complete() {
        let text = format!("the list of modules breaks off: {}", list.end());
        target.note(Note::partial(NoteCode::ModulesBreakOff, text).broken_off_if(list.end().is_of_link()));
    }
    Ok(Box::new(report))
}

fn unload(name: &str, target: &Target<'_>) -> Found {
    let module = module_called(name, target)?;
    let mut report = Reloaded { modules: None, symbols: Vec::new(), is_listed: true };
    if target.kernel().unload(&module) {
        report.symbols.push(Outcome { module: module.name.to_string(), status: Status::Unloaded });
    } else {
        let text = format!("{} has no symbols loaded.", module.name);
        target.note(Note::remark(NoteCode::NoSymbols, text));
    }
    Ok(Box::new(report))
}

impl Reloaded {
    /// Looks for a module's symbols. False if the user had enough.
    fn load(&mut self, target: &Target<'_>, module: &Module, kind: NoteKind) -> bool {
        let found = target.names(module);
        let goes_on = !found.as_ref().is_err_and(MissingSymbols::is_interrupted);
        let status = match found {
            Ok(symbols) if symbols.kind() == SymbolKind::Export => {
                let missing = target.symbols(module).err();
                let of_link = missing.as_ref().is_some_and(OfLink::is_of_link);
                let why = missing.map_or_else(String::new, |why| why.to_string());
                let image = &module.image_name;
                let shown = Escaped(image);
                let text = format!(
                    "Symbol file could not be found.  Defaulted to export symbols for {shown} - {why}"
                );
                target.note(Note::new(kind, NoteCode::ExportSymbols, text).broken_off_if(of_link));
                Status::Loaded { kind: SymbolKind::Export, path: Some(image.as_str().into()) }
            }
            Ok(symbols) => Status::Loaded {
                kind: symbols.kind(),
                path: symbols.path().map(|path| path.display().to_string().into()),
            },
            Err(missing) => {
                let text = format!("{}: {missing}", module.name);
                target.note(Note::new(kind, NoteCode::NoSymbols, text).broken_off_if(missing.is_of_link()));
                Status::Missing { reason: missing.to_string() }
            }
        };
        self.symbols.push(Outcome { module: module.name.to_string(), status });
        goes_on
    }
}

impl Reloaded {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("reloaded");
}

impl Facts for Reloaded {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, _: &Context, out: &mut dyn fmt::Write) -> fmt::Result {
        if let Some(modules) = self.modules {
            writeln!(out, "Loading Kernel Symbols")?;
            for start in (0..modules).step_by(DOTS) {
                writeln!(out, "{}", ".".repeat(DOTS.min(modules - start)))?;
            }
        }
        for Outcome { module, status } in self.symbols.iter().filter(|_| self.is_listed) {
            match status {
                Status::Loaded { kind, path } => {
                    let path = path.as_ref().map(TargetText::to_string).unwrap_or_default();
                    writeln!(out, "{}", format!("{module}   ({kind} symbols)   {path}").trim_end())?;
                }
                Status::Unloaded => writeln!(out, "Unloaded {module}")?,
                Status::Missing { .. } => {}
            }
        }
        Ok(())
    }
}

fn parse(arguments: &str) -> Result<(Switches, Option<&str>), QueryError> {
    let mut switches = Switches::default();
    let mut module = None;
    for word in arguments.split_whitespace() {
        match word.strip_prefix(['/', '-']) {
            Some("f" | "F") => switches.force = true,
            Some("u" | "U") => switches.unload = true,
            // Told as it goes, the kernel alone, quick and deferred: so it is.
            Some("v" | "n" | "d" | "D" | "o" | "s" | "w") => {}
            Some("i" | "I") => {
                return Err(usage(
                    "/i would take symbols of another build, which would be told as this one's",
                ));
            }
            Some("user" | "l" | "a" | "P" | "unl") => {
                return Err(usage(&format!(
                    "{word}: modules of user mode and unloaded ones have no symbols here"
                )));
            }
            Some(_) => return Err(usage(&format!("{word} is not among the switches of this version"))),
            None if word.contains('=') => {
                return Err(usage("an image cannot be declared; modules are those of the target's own list"));
            }
            None if module.is_none() => module = Some(word),
            None => return Err(usage(&format!("`{word}` is one argument too many"))),
        }
    }
    Ok((switches, module))
}

fn module_called(name: &str, target: &Target<'_>) -> Result<Module, QueryError> {
    target.module_called(name).map_err(failed)
}

fn usage(problem: &str) -> QueryError {
    QueryError::Usage { command: COMMAND.names[0], problem: problem.to_owned(), usage: COMMAND.usage }
}

fn failed(source: TargetError) -> QueryError {
    QueryError::Target { command: COMMAND.names[0], source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_and_a_module_are_read_in_any_order() {
        let (switches, module) = parse("/f nt").unwrap();
        assert_eq!((switches.force, switches.unload, module), (true, false, Some("nt")));
        assert_eq!(parse("myfault.sys /u").unwrap().1, Some("myfault.sys"));
        assert!(parse("").unwrap().1.is_none());
        assert!(parse("/x").unwrap_err().is_usage() && parse("a b").unwrap_err().is_usage());
    }
}
