//! `dt`: what a structure looks like, and what one in memory holds.
//!
//! ```text
//!  dt nt!_VF*                           types whose names fit
//!  dt nt!_VF_POOL_TRACE                 offsets and types
//!  dt nt!_VF_POOL_TRACE ADDRESS         and values
//!  dt nt!_EPROCESS ADDRESS Pcb.DirectoryTableBase Image*       only these fields
//!  -r [DEPTH]   structures inside, and where pointers lead       -v   count and size
//! ```
//! ```text
//! 0: kd> dt nt!_LDR_DATA_TABLE_ENTRY poi(nt!PsLoadedModuleList)
//!    +0x000 InLoadOrderLinks : _LIST_ENTRY [ 0xfffffa80`03667790 - 0xfffff800`01654c90 ]
//!    +0x030 DllBase          : 0xfffff800`0141b000 Void
//!    +0x040 SizeOfImage      : 0x5e9000
//!    +0x058 BaseDllName      : _UNICODE_STRING "ntoskrnl.exe"
//! ```
//! A structure is one read; its texts are read together. A type without a module is looked for in the kernel's symbols,
//! then in all others that are loaded, and named before its fields.
//!
//! Source: columns as in published WinDbg output (`dt nt!_FILE_OBJECT`, `dt nt!_MMPTE_HARDWARE`, `dt nt!_EPROCESS`).

mod fields;
mod text;
mod types;

use serde::Serialize;

use self::fields::{Builder, FieldView, Value};
use super::answer::{Facts, Found, Query, answer};
use super::arguments::Arguments;
use super::context::Context;
use super::error::QueryError;
use super::pattern::Pattern;
use super::schema::Schema;
use super::spec::{Category, CommandSpec, Glued, Run, Takes};
use crate::output::{self, TargetText};
use crate::target::{NamedType, Note, NoteCode, NoteKind, ReadCause, Target, TargetError, VirtAddr};

const FORMS: &[(&str, &str)] = &[
    ("dt nt!_VF*", "types whose names fit"),
    ("dt TYPE", "offsets and types"),
    ("dt TYPE ADDRESS", "and values"),
    ("dt TYPE ADDRESS FIELD ...", "only these fields"),
    ("-r [DEPTH]", "structures inside, and where pointers lead"),
    ("-v", "count and size"),
];

pub(super) static COMMAND: CommandSpec = CommandSpec {
    names: &["dt"],
    usage: "dt [-r [DEPTH]] [-v] [MODULE!]TYPE [ADDRESS] [FIELD ...]",
    summary: "show the fields of a structure, and their values at an address",
    takes: Takes::Arguments(Glued::Dash),
    category: Category::Memory,
    details: FORMS,
    answers: &[TypeView::SCHEMA, TypeList::SCHEMA],
    run: Run::Query(run),
};

/// Deepest nesting shown.
const MAX_DEPTH: u32 = 16;

/// Most types listed; a kernel has some six thousand.
const MAX_TYPES: usize = 0x1_0000;

/// Asks for a structure.
#[derive(Clone, Debug, Default)]
pub(super) struct TypeQuery {
    /// `nt!_VF_POOL_TRACE`, or without a module.
    name: String,
    /// Where one lies.
    address: Option<VirtAddr>,
    /// Only these fields; all if there are none.
    fields: Vec<String>,
    /// How deep structures inside are shown.
    depth: u32,
    /// Count and size too.
    verbose: bool,
}

/// A structure's fields, perhaps with values.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub(super) struct TypeView {
    module: String,
    name: TargetText,
    size: u64,
    elements: usize,
    #[serde(serialize_with = "output::address_or_null")]
    #[schemars(with = "Option<output::Hex>")]
    address: Option<VirtAddr>,
    /// The whole in short, if it has a short form: a list's links, a string's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<Value>,
    fields: Vec<FieldView>,
    #[serde(skip)]
    with_name: bool,
    #[serde(skip)]
    verbose: Option<&'static str>,
}

impl Query for TypeQuery {
    type Facts = TypeView;

    fn run(&self, target: &Target<'_>) -> Result<TypeView, QueryError> {
        let NamedType { module, layout } =
            target.named_type(&self.name).map_err(|error| self.explain(target, error))?;
        let paths: Vec<Vec<&str>> = self.fields.iter().map(|path| path.split('.').collect()).collect();
        let mut builder = Builder::new(target);
        let bytes = self.address.map(|at| (at, target.read_sparse(at, layout.size())));
        let place = bytes.as_ref().map(|(at, bytes)| (*at, bytes, 0));
        let fields = builder.fields(&layout, place, &paths, self.depth);
        let mut view = TypeView {
            module: module.to_string(),
            name: (&**layout.name()).into(),
            size: layout.size() as u64,
            elements: layout.fields().len(),
            address: self.address,
            summary: None,
            fields,
            with_name: !self.name.contains('!'),
            verbose: self.verbose.then(|| if fields::is_union(&layout) { "union" } else { "struct" }),
        };
        if let (Some((_, bytes)), true) = (&bytes, paths.is_empty()) {
            view.summary = fields::short_form(&layout, bytes, 0);
        }
        builder.finish(&mut view.summary, &mut view.fields);
        if let Some((at, bytes)) = bytes {
            let missing = bytes.len() - bytes.readable_len();
            if let Some(cause) = bytes.over() {
                target.note(Note::partial(NoteCode::BrokenOff, format!("Reading was broken off: {cause}")));
            } else if missing > 0 {
                let why = bytes.missing().cloned().unwrap_or(ReadCause::NotMapped);
                let (len, at) = (bytes.len(), target.shown(at));
                let text = format!("{missing:#x} of {len:#x} bytes at {at} cannot be read: {why}");
                let kind = if missing == bytes.len() { NoteKind::Failed } else { NoteKind::Partial };
                target.note(Note::new(kind, NoteCode::Unreadable, text));
            }
        }
        if view.fields.is_empty() && !self.fields.is_empty() {
            let text = format!("{} has no field {}", view.name, self.fields.join(", "));
            target.note(Note::failed(NoteCode::NotFound, text));
        }
        Ok(view)
    }
}

impl TypeQuery {
    /// Says what a name is that is no type.
    fn explain(&self, target: &Target<'_>, error: TargetError) -> QueryError {
        if matches!(error, TargetError::NoType { .. }) && target.resolve(&self.name).is_ok() {
            let name = &self.name;
            let reason = format!(
                "{name} is a symbol, and symbols without private information do not say of which type; \
                 `dt TYPE {name}` shows what lies there"
            );
            return QueryError::NoData { command: "dt", reason };
        }
        QueryError::Target { command: "dt", source: error }
    }
}

impl TypeView {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("type");
}

impl Facts for TypeView {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, context: &Context, out: &mut dyn std::fmt::Write) -> std::fmt::Result {
        if self.with_name {
            writeln!(out, "{}!{}", self.module, self.name)?;
        }
        if let Some(kind) = self.verbose {
            writeln!(out, "{kind} {}, {} elements, {:#x} bytes", self.name, self.elements, self.size)?;
        }
        if let Some(summary) = &self.summary {
            writeln!(out, "{}", text::value_text(summary, None, context))?;
        }
        text::write_fields(&self.fields, 1, context, out)
    }
}

/// Types whose names fit a pattern.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub(super) struct TypeList {
    types: Vec<TargetText>,
}

impl TypeList {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("types");
}

impl Facts for TypeList {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, _: &Context, out: &mut dyn std::fmt::Write) -> std::fmt::Result {
        self.types.iter().try_for_each(|name| writeln!(out, "          {name}"))
    }
}

fn list(pattern: &str, target: &Target<'_>) -> Found {
    let (module, name) = pattern.split_once('!').unwrap_or(("*", pattern));
    let found = super::examine::modules_for(module, target)
        .map_err(|source| QueryError::Target { command: "dt", source })?;
    let name = Pattern::new(name);
    let mut types = Vec::new();
    for (module, symbols) in &found.modules {
        let fitting = symbols.types().filter(|known| name.matches(known));
        types.extend(fitting.map(|known| TargetText::from(format!("{}!{known}", module.name))));
    }
    types.sort_unstable();
    types.dedup();
    if types.len() > MAX_TYPES {
        let count = types.len();
        types.truncate(MAX_TYPES);
        let text = format!("Only the first {MAX_TYPES:#x} of {count:#x} types are listed");
        target.note(Note::partial(NoteCode::Limit, text));
    }
    if types.is_empty() {
        found.explain_exports(target);
        target.note(Note::failed(NoteCode::NotFound, format!("no type's name fits {pattern}")));
    }
    Ok(Box::new(TypeList { types }))
}

fn run(text: &str, target: &Target<'_>) -> Found {
    let mut arguments = Arguments::with_options(&COMMAND, text);
    let mut query = TypeQuery::default();
    while let Some(word) = arguments.peek() {
        let flag = word.strip_prefix('-').filter(|flag| flag.starts_with(|c: char| c.is_ascii_alphabetic()));
        if let Some(flag) = flag {
            arguments.word();
            if flag == "v" {
                query.verbose = true;
            } else if flag.starts_with('l') {
                let problem = format!(
                    "`{word}` would walk a list, which is not done here; show each element by its address"
                );
                return Err(arguments.usage(problem));
            } else if let Some(depth) = flag.strip_prefix('r') {
                query.depth = depth_of(depth, &mut arguments)?;
            } else {
                return Err(arguments.usage(format!("`{word}` is no option")));
            }
        } else if query.name.is_empty() && !begins_address(word) {
            query.name = arguments.word().unwrap_or_default().to_owned();
            if !Pattern::is_plain(&query.name) {
                arguments.end()?;
                return list(&query.name, target);
            }
        } else if query.address.is_none() && (query.name.is_empty() || !is_field(word, &query.name, target)) {
            query.address = Some(arguments.address_before_names(target)?);
        } else {
            // `Field->Sub` leads on as `Field.Sub` does.
            query.fields.push(arguments.word().unwrap_or_default().replace("->", "."));
        }
    }
    if query.name.is_empty() {
        return Err(arguments.usage("a type is missing"));
    }
    answer(&query, target)
}

/// The depth after `-r`, glued to it or as the next word; as deep as it goes without one.
fn depth_of(glued: &str, arguments: &mut Arguments<'_>) -> Result<u32, QueryError> {
    let is_depth = |word: &&str| word.len() <= 2 && word.bytes().all(|byte| byte.is_ascii_digit());
    let word = if glued.is_empty() {
        let next = arguments.peek().filter(is_depth);
        next.and_then(|_| arguments.word())
    } else {
        Some(glued)
    };
    match word {
        None => Ok(MAX_DEPTH),
        Some(word) => match word.parse::<u32>() {
            Ok(depth) => Ok(depth.min(MAX_DEPTH)),
            Err(_) => Err(arguments.usage(format!("`{word}` is no depth"))),
        },
    }
}

/// True for what can be an address only: the type follows it then.
fn begins_address(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit() || c == '@') || word.contains(['`', '(']) || {
        word.len() >= 8 && word.bytes().all(|byte| byte.is_ascii_hexdigit())
    }
}

/// True if `word` names fields of the type rather than an address.
fn is_field(word: &str, ty: &str, target: &Target<'_>) -> bool {
    if word.ends_with(['*', '?', '.']) && word.len() > 1 {
        return true;
    }
    let Ok(NamedType { layout, .. }) = target.named_type(ty) else { return false };
    let first = Pattern::new(word.split(['.', '-']).next().unwrap_or_default());
    layout.fields().iter().any(|field| first.matches(&field.name))
}
