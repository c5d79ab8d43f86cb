//! `lm`: the loaded modules and where their symbols come from.
//!
//! ```text
//!  lm                     all          lm m PATTERN   those whose names fit     lm a ADDRESS   the one there
//!  lmv m NAME, lmvm NAME  and what its headers say                              lml, lme       with symbols, without a file
//!  lmn, lmf, lmt, lmnt    image names, paths, times, instead of symbols         lmsm, lm1m     by name, names alone
//!  lmo                    loaded ones only, not those that were unloaded
//! ```
//! ```text
//! 0: kd> lm
//! start             end                 module name
//! fffff800`0141b000 fffff800`01a04000   nt         (pdb symbols)          s/ntkrnlmp.pdb/..1/ntkrnlmp.pdb
//! fffff880`01633000 fffff880`01726000   ndis       (export symbols)       ndis.sys
//! fffff880`0447c000 fffff880`04484000   myfault    (deferred)
//! 0: kd> lmvm myfault
//! start             end                 module name
//! fffff880`0447c000 fffff880`04484000   myfault    (deferred)
//!     Image path: \SystemRoot\system32\drivers\myfault.sys
//!     Image name: myfault.sys
//!     Timestamp:        Tue Jun 18 06:36:52 2013 (51C00004)
//!     CheckSum:         00000000
//!     ImageSize:        00008000
//! ```
//! Lists, and looks for no symbols: a module whose symbols nobody needed yet is `deferred`. One whose symbol file was not
//! found has what its image exports, if that was needed and it exports anything, or `no symbols`. Times are UTC.

use std::fmt;

use serde::Serialize;

use super::answer::{Facts, Found, Query, answer};
use super::arguments::Arguments;
use super::context::Context;
use super::error::QueryError;
use super::pattern::Pattern;
use super::schema::Schema;
use super::spec::{Category, CommandSpec, Glued, Run, Takes};
use crate::output::{self, TargetText};
use crate::target::{
    Module, Note, NoteCode, OfLink, SymbolKind, Target, TargetError, VirtAddr, WalkEnd, module_name,
};

const FORMS: &[(&str, &str)] = &[
    ("lm m PATTERN", "those whose names fit"),
    ("lm a ADDRESS", "the one there"),
    ("lmv m NAME, lmvm NAME", "and what its headers say"),
    ("lml, lme", "with symbols, without a file"),
    ("lmn, lmf, lmt, lmnt", "image names, paths, times, instead of symbols"),
    ("lmsm, lm1m", "by name, names alone"),
    ("lmo", "loaded ones only, not those that were unloaded"),
];

pub(super) static COMMAND: CommandSpec = CommandSpec {
    names: &["lm"],
    usage: "lm[v][n|f][t][l|e|o][sm|1m] [m PATTERN | a ADDRESS]",
    summary: "list loaded modules, their addresses and where their symbols come from",
    takes: Takes::Arguments(Glued::Anything),
    category: Category::Symbols,
    details: FORMS,
    answers: &[ModuleTable::SCHEMA],
    run: Run::Query(run),
};

/// Asks for the loaded modules.
#[derive(Clone, Debug, Default)]
pub struct Modules {
    /// Only those whose name fits: `*` any text, `?` any character, in any case.
    pub pattern: Option<String>,
    /// Only the one that this lies in.
    pub address: Option<VirtAddr>,
    /// Only those whose symbols were looked for and found; or of which there is no symbol file, so exports at best.
    pub found: Option<bool>,
    /// What their headers say too, at up to three reads a module.
    pub verbose: bool,
    /// When they were linked, at a read a module.
    pub with_time: bool,
    /// What of it is printed.
    pub columns: Columns,
    /// By name instead of address.
    pub by_name: bool,
    /// Not those that were unloaded.
    pub only_loaded: bool,
    /// Those of user mode, of which none are known.
    pub of_user_mode: bool,
}

/// What is printed of each module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Columns {
    /// Where its symbols come from.
    #[default]
    Symbols,
    /// The name of its image, and when that was linked if it was asked for.
    Image,
    /// The path of its image.
    Path,
    /// When its image was linked.
    Time,
    /// Its name alone.
    Name,
}

/// The loaded modules in order of address.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct ModuleTable {
    modules: Vec<Row>,
    /// Those that were loaded before, the last first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unloaded: Vec<Unloaded>,
    end: WalkEnd,
    #[serde(skip)]
    columns: Columns,
}

#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
struct Unloaded {
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    start: VirtAddr,
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    end: VirtAddr,
    image_name: TargetText,
}

#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
struct Row {
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    start: VirtAddr,
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    end: VirtAddr,
    name: String,
    image_name: TargetText,
    symbols: SymbolStatus,
    /// Where the kernel loaded it from, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<TargetText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<Headers>,
}

#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
#[serde(tag = "status", rename_all = "lowercase")]
enum SymbolStatus {
    Deferred,
    Loaded { kind: SymbolKind, identity: String, path: Option<TargetText> },
    Missing { reason: String },
}

/// What an image's headers say.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
struct Headers {
    timestamp: u32,
    check_sum: u32,
    image_size: u32,
    machine: String,
    /// Where the kernel loaded it from; nothing if it does not say.
    path: Option<TargetText>,
    /// Name and identity of its PDB: what a symbol server is asked for. Nothing if it names none.
    pdb: Option<TargetText>,
    pdb_identity: Option<String>,
}

impl Query for Modules {
    type Facts = ModuleTable;

    fn run(&self, target: &Target<'_>) -> Result<ModuleTable, QueryError> {
        let list = target.modules().map_err(|source| QueryError::Target { command: "lm", source })?;
        let pattern = self.pattern.as_deref().map(Pattern::new);
        let fits = |module: &&Module| {
            pattern.as_ref().is_none_or(|pattern| pattern.matches(&module.name))
                && self.address.is_none_or(|address| module.contains(address))
        };
        let mut table = ModuleTable {
            modules: Vec::new(),
            unloaded: Vec::new(),
            end: list.end().clone(),
            columns: self.columns,
        };
        if self.of_user_mode {
            let text = "Modules of user mode are not looked at here; lm lists the kernel's";
            target.note(Note::remark(NoteCode::UserMode, text));
            return Ok(table);
        }
        for module in list.modules().iter().filter(fits) {
            let symbols = status(module, target);
            let is_wanted = match (self.found, &symbols) {
                (None, _) | (Some(_), SymbolStatus::Loaded { kind: SymbolKind::Export, .. }) => true,
                (Some(found), SymbolStatus::Loaded { .. }) => found,
                (Some(found), SymbolStatus::Missing { .. }) => !found,
                (Some(_), SymbolStatus::Deferred) => false,
            };
            if !is_wanted {
                continue;
            }
            let mut row = Row {
                start: module.base,
                end: module.end(),
                name: module.name.to_string(),
                image_name: module.image_name.as_str().into(),
                symbols,
                path: None,
                timestamp: None,
                headers: None,
            };
            if self.columns == Columns::Path {
                match target.image_path(module) {
                    Ok(path) => row.path = Some(path.into()),
                    Err(error) => note_unread(target, "path", module, &error),
                }
            }
            if self.with_time {
                match target.timestamp(module) {
                    Ok(time) => row.timestamp = Some(time),
                    Err(error) => note_unread(target, "headers", module, &error),
                }
            }
            if self.verbose {
                Self::Facts::add_headers(&mut row, module, target);
            }
            table.modules.push(row);
        }
        // Whose symbols were or were not found is asked of loaded modules only, and names alone are theirs.
        if self.found.is_none() && self.columns != Columns::Name && !self.only_loaded {
            table.add_unloaded(self, pattern.as_ref(), target);
        }
        if self.by_name {
            table.modules.sort_by_cached_key(|row| row.name.to_lowercase());
        }
        if !list.end().is_complete() {
            let text = format!("the list of modules breaks off: {}", list.end());
            target
                .note(Note::partial(NoteCode::ModulesBreakOff, text).broken_off_if(list.end().is_of_link()));
        }
        if table.modules.is_empty() && table.unloaded.is_empty() {
            let nothing = match (&self.pattern, self.address) {
                (Some(pattern), _) => format!("no loaded module's name fits {pattern}"),
                (_, Some(address)) => format!("{} lies in no loaded module", target.shown(address)),
                _ => "no such module".to_owned(),
            };
            target.note(if !list.end().is_complete() {
                let text = format!("{nothing}, as far as the list could be read");
                Note::partial(NoteCode::ModulesBreakOff, text)
            } else if self.found.is_some() {
                Note::remark(NoteCode::NotFound, nothing)
            } else {
                Note::failed(NoteCode::NotFound, nothing)
            });
        }
        Ok(table)
    }
}

impl ModuleTable {
    fn add_unloaded(&mut self, query: &Modules, pattern: Option<&Pattern>, target: &Target<'_>) {
        let mut add = || -> Result<(), TargetError> {
            let unloaded = target.unloaded_modules()?;
            if query.address.is_none() {
                target.read_unloaded_names(&unloaded);
            }
            for driver in &*unloaded {
                if query.address.is_some_and(|address| !driver.contains(address)) {
                    continue;
                }
                let name = target.unloaded_name(driver)?;
                let fits = |pattern: &Pattern| pattern.matches(&name) || pattern.matches(&module_name(&name));
                if pattern.is_none_or(fits) {
                    let (start, end, image_name) = (driver.base, driver.end, name.into());
                    self.unloaded.push(Unloaded { start, end, image_name });
                }
            }
            Ok(())
        };
        if let Err(error) = add() {
            let text = format!("unloaded modules: {error}");
            target.note(Note::partial(NoteCode::Unreadable, text).broken_off_if(error.is_of_link()));
        }
    }

    fn add_headers(row: &mut Row, module: &Module, target: &Target<'_>) {
        match target.image(module) {
            Ok(image) => {
                let path = match target.image_path(module) {
                    Ok(path) => Some(path).filter(|path| !path.is_empty()),
                    Err(error) => {
                        note_unread(target, "path", module, &error);
                        None
                    }
                };
                let pdb = match image.pdb {
                    Ok(pdb) => Some(pdb),
                    Err(why) => {
                        let text = format!("{} names no PDB: {why}", module.name);
                        target.note(Note::remark(NoteCode::NoPdb, text));
                        None
                    }
                };
                row.headers = Some(Headers {
                    timestamp: image.timestamp,
                    check_sum: image.check_sum,
                    image_size: image.size,
                    machine: format!("{:#x}", image.machine),
                    path: path.map(TargetText::from),
                    pdb_identity: pdb.as_ref().map(ToString::to_string),
                    pdb: pdb.map(|pdb| pdb.name.into()),
                });
            }
            Err(error) => note_unread(target, "headers", module, &error),
        }
        if let Some(Err(reason)) = target.kernel().known_symbols(module) {
            let is_missing = matches!(row.symbols, SymbolStatus::Missing { .. });
            let (code, has) = match is_missing {
                true => (NoteCode::NoSymbols, "no symbols"),
                false => (NoteCode::ExportSymbols, "only export symbols"),
            };
            target.note(Note::remark(code, format!("{} has {has}: {reason}", module.name)));
        }
    }
}

fn note_unread(target: &Target<'_>, what: &str, module: &Module, error: &impl OfLink) {
    let text = format!("{what} of {}: {error}", module.name);
    target.note(Note::partial(NoteCode::Unreadable, text).broken_off_if(error.is_of_link()));
}

fn status(module: &Module, target: &Target<'_>) -> SymbolStatus {
    match target.known_names(module) {
        None => SymbolStatus::Deferred,
        Some(Ok(symbols)) => SymbolStatus::Loaded {
            kind: symbols.kind(),
            identity: symbols.identity().to_string(),
            path: symbols.path().map(|path| path.display().to_string().into()),
        },
        Some(Err(reason)) => SymbolStatus::Missing { reason: reason.to_string() },
    }
}

impl ModuleTable {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("modules");
}

impl Facts for ModuleTable {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, context: &Context, out: &mut dyn fmt::Write) -> fmt::Result {
        if self.columns == Columns::Name {
            return self.modules.iter().try_for_each(|row| writeln!(out, "{}", row.name));
        }
        let shown = |address| context.address(address);
        let width = shown(VirtAddr(0)).to_string().len();
        writeln!(out, "{:<width$} {:<width$}   module name", "start", "end")?;
        for row in &self.modules {
            let range = [shown(row.start), shown(row.end)];
            if self.columns != Columns::Symbols {
                write_image(row, range, self.columns, out)?;
            } else {
                write_symbols(row, range, out)?;
            }
            if let Some(headers) = &row.headers {
                write_headers(row, headers, out)?;
            }
        }
        if !self.unloaded.is_empty() {
            writeln!(out, "\nUnloaded modules:")?;
        }
        self.unloaded.iter().try_for_each(|Unloaded { start, end, image_name }| {
            writeln!(out, "{} {}   {image_name}", shown(*start), shown(*end))
        })
    }
}

fn write_image(
    row: &Row,
    [start, end]: [output::Address; 2],
    columns: Columns,
    out: &mut dyn fmt::Write,
) -> fmt::Result {
    let Row { name, image_name, path, timestamp, .. } = row;
    let image = match columns {
        Columns::Image => format!("{image_name:<12} "),
        Columns::Path => {
            format!("{:<12} ", path.as_ref().map_or_else(|| image_name.to_string(), TargetText::to_string))
        }
        _ => String::new(),
    };
    let time = timestamp.map(|time| format!("{} ({time:08X})", output::unix_time(time.into())));
    let line = format!("{start} {end}   {name:<8} {image}{}", time.unwrap_or_default());
    writeln!(out, "{}", line.trim_end())
}

fn write_symbols(row: &Row, [start, end]: [output::Address; 2], out: &mut dyn fmt::Write) -> fmt::Result {
    let Row { name, symbols, .. } = row;
    let (status, path) = match symbols {
        SymbolStatus::Deferred => ("(deferred)".to_owned(), String::new()),
        SymbolStatus::Loaded { kind: SymbolKind::Export, .. } => {
            ("(export symbols)".to_owned(), row.image_name.to_string())
        }
        SymbolStatus::Loaded { kind, path, .. } => {
            (format!("({kind} symbols)"), path.as_ref().map(TargetText::to_string).unwrap_or_default())
        }
        SymbolStatus::Missing { .. } => ("(no symbols)".to_owned(), String::new()),
    };
    writeln!(out, "{}", format!("{start} {end}   {name:<8}   {status:<23}{path}").trim_end())
}

fn write_headers(row: &Row, headers: &Headers, out: &mut dyn fmt::Write) -> fmt::Result {
    if matches!(row.symbols, SymbolStatus::Loaded { .. }) {
        writeln!(out, "    Loaded symbol image file: {}", row.image_name)?;
    }
    if let Some(path) = &headers.path {
        writeln!(out, "    Image path: {path}")?;
    }
    writeln!(out, "    Image name: {}", row.image_name)?;
    let time = output::unix_time(headers.timestamp.into());
    writeln!(out, "    Timestamp:        {time} ({:08X})", headers.timestamp)?;
    writeln!(out, "    CheckSum:         {:08X}", headers.check_sum)?;
    writeln!(out, "    ImageSize:        {:08X}", headers.image_size)
}

/// Options are letters, glued or not: `vm nt`, `v m nt`, `ntsm`; so is a pattern, `mnt`.
fn run(text: &str, target: &Target<'_>) -> Found {
    let mut arguments = Arguments::new(&COMMAND, text);
    let mut query = Modules::default();
    while let Some(mut word) = arguments.word() {
        while let Some(letter) = word.chars().next() {
            let rest = &word[letter.len_utf8()..];
            word = match (letter, rest) {
                ('s', sorted) if sorted.starts_with('m') => {
                    query.by_name = true;
                    &sorted[1..]
                }
                ('1', alone) if alone.starts_with('m') => {
                    query.columns = Columns::Name;
                    &alone[1..]
                }
                ('m', glued) => {
                    let pattern = if glued.is_empty() { arguments.word() } else { Some(glued) };
                    let Some(pattern) = pattern else {
                        return Err(arguments.usage("a pattern is missing"));
                    };
                    query.pattern = Some(pattern.to_owned());
                    ""
                }
                ('a', "") => {
                    query.address = Some(arguments.address(target)?);
                    ""
                }
                ('v', rest) => {
                    query.verbose = true;
                    rest
                }
                ('l' | 'e', rest) => {
                    query.found = Some(letter == 'l');
                    rest
                }
                ('n', rest) => {
                    query.columns = Columns::Image;
                    rest
                }
                ('t', rest) => {
                    query.with_time = true;
                    if query.columns == Columns::Symbols {
                        query.columns = Columns::Time;
                    }
                    rest
                }
                ('o', rest) => {
                    query.only_loaded = true;
                    rest
                }
                ('f', rest) => {
                    query.columns = Columns::Path;
                    rest
                }
                ('u', rest) => {
                    query.of_user_mode = true;
                    rest
                }
                ('i', rest) => {
                    query.columns = Columns::Image;
                    rest
                }
                // Kernel modules, links to click on: so it is.
                ('k' | 'D', rest) => rest,
                _ => return Err(arguments.usage(format!("cannot read `{word}`"))),
            };
        }
    }
    answer(&query, target)
}
