//! `x` and `ln`: from names to addresses and back.
//!
//! ```text
//! 0: kd> x nt!VfPoolTraces*
//! fffff800`01917058 nt!VfPoolTracesLength
//! fffff800`01917128 nt!VfPoolTraces
//! fffff800`0191714c nt!VfPoolTracesIndex
//! 0: kd> ln fffff880`0447d634
//! (fffff880`0447d2dc)   myfault!MyfaultDeviceControl+0x358   |  (fffff880`0447d670)   myfault!MyfaultDispatch
//! ```
//! A pattern has WinDbg's wildcards; `*!` means every module whose symbols are loaded. Addresses are in order, or with
//! `/n` names; `/0` shows addresses alone, `/1` names alone. C++ names are undecorated, and found with and without their
//! decoration.

use std::fmt;

use serde::Serialize;

use super::answer::{Facts, Found};
use super::arguments::Arguments;
use super::context::Context;
use super::error::QueryError;
use super::pattern::Pattern;
use super::schema::Schema;
use super::spec::{Category, CommandSpec, Glued, Run, Takes};
use crate::output::{self, TargetText};
use crate::target::{
    ModuleSymbols, Neighbours, Note, NoteCode, OfLink, Symbol, SymbolAt, SymbolKind, Target, TargetError,
    VirtAddr, undecorate,
};

pub(super) static EXAMINE: CommandSpec = CommandSpec {
    names: &["x"],
    usage: "x [/0|/1|/2] [/n|/a] [MODULE!]PATTERN",
    summary: "list symbols whose names fit a pattern",
    takes: Takes::Arguments(Glued::Slash),
    category: Category::Symbols,
    details: &[("/0, /1", "addresses alone, names alone"), ("/n, /a", "in order of names, of addresses")],
    answers: &[SymbolList::SCHEMA],
    run: Run::Query(examine),
};

pub(super) static LIST_NEAREST: CommandSpec = CommandSpec {
    names: &["ln"],
    usage: "ln ADDRESS",
    summary: "show the symbols around an address",
    takes: Takes::Arguments(Glued::Slash),
    category: Category::Symbols,
    details: &[],
    answers: &[Nearest::SCHEMA],
    run: Run::Query(nearest),
};

/// Most modules that are named as not looked into.
const MAX_NAMED: usize = 16;
/// Most symbols listed; a kernel has some thirty thousand.
const MAX_SYMBOLS: usize = 0x1_0000;

/// Symbols in order of address.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub(super) struct SymbolList {
    symbols: Vec<Row>,
    #[serde(skip)]
    columns: Columns,
}

/// What is printed of each.
#[derive(Clone, Copy, Debug, Default)]
enum Columns {
    #[default]
    All,
    Address,
    Name,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
struct Row {
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    address: VirtAddr,
    module: String,
    name: TargetText,
}

impl SymbolList {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("symbols");
}

impl Facts for SymbolList {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, context: &Context, out: &mut dyn fmt::Write) -> fmt::Result {
        self.symbols.iter().try_for_each(|Row { address, module, name }| {
            let address = context.address(*address);
            match self.columns {
                Columns::All => writeln!(out, "{address} {module}!{name}"),
                Columns::Address => writeln!(out, "{address}"),
                Columns::Name => writeln!(out, "{module}!{name}"),
            }
        })
    }
}

/// Modules that a pattern means, with their symbols.
pub(super) struct FittingModules {
    pub(super) modules: Vec<ModuleSymbols>,
    /// Some were not looked into.
    pub(super) is_partial: bool,
}

impl FittingModules {
    /// Notes why the modules that have only export symbols have no others.
    pub(super) fn explain_exports(&self, target: &Target<'_>) {
        let exports = self.modules.iter().filter(|(_, symbols)| symbols.kind() == SymbolKind::Export);
        for (module, _) in exports {
            if let Some(Err(why)) = target.kernel().known_symbols(module) {
                let text = format!("{} has only export symbols: {why}", module.name);
                target.note(Note::remark(NoteCode::ExportSymbols, text));
            }
        }
    }
}

/// The modules that `pattern` means. One that is named has its symbols looked for; `*` means those that are loaded.
pub(super) fn modules_for(pattern: &str, target: &Target<'_>) -> Result<FittingModules, TargetError> {
    if Pattern::is_plain(pattern) {
        let modules = vec![target.module_names(pattern)?];
        return Ok(FittingModules { modules, is_partial: false });
    }
    let fits = Pattern::new(pattern);
    let mut found = FittingModules { modules: Vec::new(), is_partial: false };
    let mut deferred = Vec::new();
    let list = target.modules()?;
    for module in list.modules().iter().filter(|module| fits.matches(&module.name)) {
        let symbols = if pattern == "*" { target.known_names(module) } else { Some(target.names(module)) };
        match symbols {
            Some(Ok(symbols)) => found.modules.push((module.clone(), symbols)),
            Some(Err(why)) => {
                let text = format!("{} has no symbols: {why}", module.name);
                target.note(Note::remark(NoteCode::NoSymbols, text));
            }
            None => deferred.push(&*module.name),
        }
    }
    if !deferred.is_empty() {
        let more = deferred.len().saturating_sub(MAX_NAMED);
        let names = deferred[..deferred.len() - more].join(", ");
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        found.is_partial = true;
        // To load them all means to read each image, and perhaps to fetch files, while the target stands still.
        target.note(Note::partial(NoteCode::SymbolsDeferred, format!(
            "Not looked into, because their symbols are not loaded: {names}{more}. MODULE! before the name, with wildcards \
             too, looks into those that fit; .reload /f loads all"
        )));
    }
    Ok(found)
}

fn examine(text: &str, target: &Target<'_>) -> Found {
    let mut arguments = Arguments::new(&EXAMINE, text);
    let (mut columns, mut by_name, mut wants_types) = (Columns::All, false, false);
    let pattern = loop {
        match arguments.word() {
            Some("/0") => columns = Columns::Address,
            Some("/1") => columns = Columns::Name,
            Some("/n") => by_name = true,
            // In order of address, with addresses and names, without links to click on: so it is.
            Some("/2" | "/a" | "/d" | "/D" | "/f" | "/p") => {}
            Some("/t" | "/v" | "/s" | "/q") => wants_types = true,
            Some(option) if option.starts_with('/') => {
                return Err(arguments.usage(format!("{option} is not among the options of this version")));
            }
            Some(pattern) => break pattern,
            None => return Err(arguments.usage("a pattern is missing")),
        }
    };
    arguments.end()?;
    let (module, name) = pattern.split_once('!').unwrap_or(("*", pattern));
    let found = modules_for(module, target).map_err(|source| QueryError::Target { command: "x", source })?;
    let (fits, is_plain) = (Pattern::new(name), Pattern::is_plain(name));
    let mut list = SymbolList { symbols: Vec::new(), columns };
    for (module, symbols) in &found.modules {
        let take = |symbol: Symbol<'_>| {
            let shown = undecorate(&symbol.name);
            if fits.matches(&shown) || fits.matches(&symbol.name) {
                let address = module.base.offset(symbol.rva.0.into());
                let (module, name) = (module.name.to_string(), shown.into_owned().into());
                list.symbols.push(Row { address, module, name });
            }
        };
        match fits.word() {
            _ if is_plain => symbols.named(name).into_iter().for_each(take),
            Some(word) => symbols.with_word(word).into_iter().for_each(take),
            None => symbols.symbols().for_each(take),
        }
    }
    list.symbols.sort_unstable();
    list.symbols.dedup();
    if by_name {
        list.symbols.sort_by_cached_key(|row| (row.module.clone(), row.name.as_str().to_lowercase()));
    }
    if list.symbols.len() > MAX_SYMBOLS {
        let count = list.symbols.len();
        list.symbols.truncate(MAX_SYMBOLS);
        let text = format!("Only the first {MAX_SYMBOLS:#x} of {count:#x} symbols are listed");
        target.note(Note::partial(NoteCode::Limit, text));
    }
    if wants_types && !list.symbols.is_empty() {
        target.note(Note::remark(
            NoteCode::PublicSymbols,
            "Public symbols have neither types nor sizes, so names and addresses are all",
        ));
    }
    let unread = found.modules.iter().filter_map(|(module, symbols)| {
        let exports = (symbols.kind() == SymbolKind::Export).then(|| target.exports(module)).flatten()?;
        (exports.unread() > 0).then(|| (module.name.to_string(), exports.unread()))
    });
    for (module, count) in unread {
        let text = format!("{count:#x} exports of {module} cannot be read: their names are not in memory");
        target.note(Note::partial(NoteCode::Unreadable, text));
    }
    if list.symbols.is_empty() {
        found.explain_exports(target);
        let reach = if found.is_partial { " in the modules that were looked into" } else { "" };
        target.note(Note::failed(NoteCode::NotFound, format!("no symbol's name fits {pattern}{reach}")));
    }
    Ok(Box::new(list))
}

/// The symbols around an address.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub(super) struct Nearest {
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    address: VirtAddr,
    module: Option<String>,
    /// The file name of the driver that was loaded there before, if no module is.
    #[serde(skip_serializing_if = "Option::is_none")]
    unloaded: Option<TargetText>,
    /// The nearest symbol at or below; nothing where the module has none.
    symbol: Option<TargetText>,
    #[serde(serialize_with = "output::address_or_null")]
    #[schemars(with = "Option<output::Hex>")]
    start: Option<VirtAddr>,
    displacement: u64,
    /// Every symbol of the address itself.
    exact: Vec<TargetText>,
    next: Option<TargetText>,
    #[serde(serialize_with = "output::address_or_null")]
    #[schemars(with = "Option<output::Hex>")]
    next_address: Option<VirtAddr>,
}

impl Nearest {
    fn of(address: VirtAddr, target: &Target<'_>) -> Self {
        let mut nearest = Self {
            address,
            module: None,
            unloaded: None,
            symbol: None,
            start: None,
            displacement: 0,
            exact: Vec::new(),
            next: None,
            next_address: None,
        };
        let Some(Neighbours { at, start, exact, above }) = target.neighbours(address) else {
            let at = target.shown(address);
            target.note(match target.module_trouble() {
                None => Note::failed(NoteCode::NotFound, format!("{at} lies in no loaded module")),
                Some(trouble) => Note::partial(NoteCode::ModulesBreakOff, format!(
                    "{at} lies in none of the modules that could be read; the list of modules breaks off: {trouble}"
                )),
            });
            return nearest;
        };
        let SymbolAt { module, symbol, displacement, missing, unloaded, .. } = at;
        nearest.unloaded = unloaded.map(TargetText::from);
        nearest.module = module.map(|module| module.to_string());
        (nearest.symbol, nearest.start, nearest.displacement) =
            (symbol.map(TargetText::from), Some(start), displacement);
        nearest.exact = exact.into_iter().map(TargetText::from).collect();
        if let Some((at, name)) = above {
            (nearest.next, nearest.next_address) = (Some(name.into()), Some(at));
        }
        if let Some(why) = missing {
            target.note(match nearest.symbol {
                Some(_) => Note::remark(NoteCode::ExportSymbols, format!("only export symbols: {why}")),
                None => Note::partial(NoteCode::NoSymbols, format!("no symbols: {why}"))
                    .broken_off_if(why.is_of_link()),
            });
        }
        nearest
    }
}

impl Nearest {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("nearest");
}

impl Facts for Nearest {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, context: &Context, out: &mut dyn fmt::Write) -> fmt::Result {
        let Some(start) = self.start else { return Ok(()) };
        let unloaded = self.unloaded.as_ref().map(|file| format!("<Unloaded_{file}>"));
        let Some(module) = self.module.clone().or(unloaded) else { return Ok(()) };
        let name = self.symbol.as_ref().map_or_else(|| module.clone(), |symbol| format!("{module}!{symbol}"));
        let shown = |address| context.address(address);
        write!(out, "({})   {name}", shown(start))?;
        if self.displacement > 0 {
            write!(out, "+{:#x}", self.displacement)?;
        }
        if let (Some(next), Some(at)) = (&self.next, self.next_address) {
            write!(out, "   |  ({})   {module}!{next}", shown(at))?;
        }
        writeln!(out)?;
        if !self.exact.is_empty() {
            writeln!(out, "Exact matches:")?;
        }
        self.exact.iter().try_for_each(|name| writeln!(out, "    {module}!{name}"))
    }
}

fn nearest(text: &str, target: &Target<'_>) -> Found {
    let mut arguments = Arguments::new(&LIST_NEAREST, text);
    if arguments.is_empty() {
        return Err(arguments.usage("an address is missing"));
    }
    let address = arguments.address(target)?;
    arguments.end()?;
    Ok(Box::new(Nearest::of(address, target)))
}
