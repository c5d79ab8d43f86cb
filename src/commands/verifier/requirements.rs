//! What each query needs of the kernel's symbols: `verikd symbols check` tells which a symbol file allows.

use serde::Serialize;

use super::traces::{TRACES, TraceKind};
use crate::commands::number;
use crate::symbols::Symbols;
use crate::target::stands_in;

/// What a query reads; an empty list of the missing means that it works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Allowed {
    /// As it is typed: `!verifier 3`.
    pub query: &'static str,
    /// What it shows.
    pub shows: &'static str,
    /// Symbols (`nt!VfPoolTraces`) and fields (`_VF_POOL_TRACE.Address`) that are not there.
    pub missing: Vec<String>,
    /// Structures that are not there, and for which built-in layouts of x64 kernels stand in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub built_in: Vec<&'static str>,
}

/// A type and fields of it; of fields separated by `|` one is enough, since builds differ.
type Fields = (&'static str, &'static [&'static str]);

/// Symbols and fields that belong together.
struct Part {
    symbols: &'static [&'static str],
    fields: &'static [Fields],
}

struct Requirement {
    query: &'static str,
    shows: &'static str,
    parts: &'static [&'static Part],
}

static SETTINGS: Part =
    Part { symbols: &["MmVerifierData"], fields: &[("_MM_DRIVER_VERIFIER_DATA", &["Level"])] };

static DRIVERS: Part = Part {
    symbols: &["ViTargetDriversAvl"],
    fields: &[
        ("_VF_AVL_TREE", &["Tables", "TablesNo"]),
        ("_VF_AVL_TABLE", &["RtlTable.BalancedRoot.RightChild"]),
        ("_RTL_BALANCED_LINKS", &["LeftChild", "RightChild"]),
        ("_VF_TARGET_DRIVER", &["TreeNode.p|TreeNode.Base.p", "VerifiedData"]),
        ("_VF_TARGET_VERIFIED_DRIVER_DATA", &["SuspectDriverEntry"]),
        ("_VF_SUSPECT_DRIVER_ENTRY", &["BaseName.Buffer"]),
    ],
};

static TRACKERS: Part = Part {
    symbols: &[],
    fields: &[
        (
            "_VF_TARGET_VERIFIED_DRIVER_DATA",
            &["PoolPageHeaders.HeaderX64.NextEntry|PoolPageHeaders.Header16.NextEntry|\
               PoolPageHeaders.HeaderArm64.NextEntry|PoolPageHeaders.Next"],
        ),
        ("_VI_POOL_PAGE_HEADER", &["NextPage", "VerifierEntry", "Signature"]),
        (
            "_VI_POOL_ENTRY",
            &["NextFree", "InUse.VirtualAddress", "InUse.CallingAddress", "InUse.NumberOfBytes", "InUse.Tag"],
        ),
    ],
};

static POOL_LOG: Part = Part {
    symbols: &["VfPoolTraces", "VfPoolTracesIndex", "VfPoolTracesLength"],
    fields: &[("_VF_POOL_TRACE", &["Address", "Size", "Thread", "StackTrace"])],
};

static WATCHED: Part = Part {
    symbols: &["VfWdIrpListHead"],
    fields: &[("_VF_WATCHDOG_IRP", &["ListEntry", "Irp"]), ("_LIST_ENTRY", &["Flink"])],
};

const REQUIREMENTS: [Requirement; 5] = [
    Requirement { query: "!verifier", shows: "level, options and counters", parts: &[&SETTINGS] },
    Requirement { query: "!verifier 1", shows: "verified drivers", parts: &[&SETTINGS, &DRIVERS] },
    Requirement {
        query: "!verifier 3",
        shows: "and their outstanding pool allocations",
        parts: &[&SETTINGS, &DRIVERS, &TRACKERS],
    },
    Requirement { query: "!verifier 80", shows: "the log of allocations and frees", parts: &[&POOL_LOG] },
    Requirement { query: "!verifier 400", shows: "cancelled requests that are watched", parts: &[&WATCHED] },
];

/// Which queries a kernel's `symbols` allow, in the order of their flags: every form of `!verifier`.
#[must_use]
pub fn allowed_by(symbols: &dyn Symbols) -> Vec<Allowed> {
    let of_parts = |Requirement { query, shows, parts }: &Requirement| {
        let names = parts.iter().flat_map(|part| part.symbols).copied();
        let fields = parts.iter().flat_map(|part| part.fields).map(|(ty, fields)| (*ty, *fields));
        allowed(symbols, query, shows, names, fields)
    };
    // The smaller logs differ in nothing but names.
    let of_log = |kind: &TraceKind| {
        let name = |name: &'static str| name.strip_prefix("nt!").unwrap_or(name);
        let record: (&str, &[&str]) = (name(kind.record), &["StackTrace"]);
        allowed(symbols, kind.query, kind.called, kind.variables().map(name), [record])
    };
    let mut all: Vec<_> = REQUIREMENTS.iter().map(of_parts).chain(TRACES.iter().map(of_log)).collect();
    let flags = |allowed: &Allowed| allowed.query.split_whitespace().nth(1).and_then(number).unwrap_or(0);
    all.sort_by_key(flags);
    all
}

fn allowed<'a>(
    symbols: &dyn Symbols,
    query: &'static str,
    shows: &'static str,
    names: impl IntoIterator<Item = &'a str>,
    fields: impl IntoIterator<Item = (&'static str, &'static [&'static str])>,
) -> Allowed {
    let (mut missing, mut built_in) = (Vec::new(), Vec::new());
    let lacks = |name: &&str| symbols.address_of(name).is_none();
    missing.extend(names.into_iter().filter(lacks).map(|name| format!("nt!{name}")));
    for (ty, fields) in fields {
        if is_built_in(symbols, ty) {
            built_in.push(ty);
        } else {
            missing.extend(missing_fields(symbols, ty, fields));
        }
    }
    Allowed { query, shows, missing: unique(missing.into_iter()), built_in }
}

/// Each name once: a type that is not there is missed by every part that needs it.
fn unique(names: impl Iterator<Item = String>) -> Vec<String> {
    names.fold(Vec::new(), |mut unique, name| {
        if !unique.contains(&name) {
            unique.push(name);
        }
        unique
    })
}

/// True if a built-in layout stands in for a type that a 64-bit kernel's `symbols` lack.
fn is_built_in(symbols: &dyn Symbols, ty: &str) -> bool {
    symbols.pointer_size() == 8 && symbols.find_type(ty).is_none() && stands_in(ty)
}

/// The type alone if it is not there, else those of its fields that are not.
fn missing_fields(symbols: &dyn Symbols, ty: &str, fields: &[&str]) -> Vec<String> {
    let Some(layout) = symbols.find_type(ty).and_then(|id| symbols.layout(id).ok()) else {
        return vec![ty.to_owned()];
    };
    let has = |path: &str| matches!(symbols.place(&layout, path), Ok(Some(_)));
    let lacks = |field: &&&str| !field.split('|').any(has);
    let first = |field: &str| field.split('|').next().unwrap_or_default().to_owned();
    fields.iter().filter(lacks).map(|field| format!("{ty}.{}", first(field))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbols::table::TableSymbols;
    use crate::symbols::{Guid, PdbIdentity};

    #[test]
    fn what_is_missing_is_named() {
        let symbols = TableSymbols::new(PdbIdentity::new("nt.pdb", Guid::default(), 1))
            .symbol("MmVerifierData", 0x1000)
            .symbol("VfPoolTraces", 0x2000)
            .types("_MM_DRIVER_VERIFIER_DATA 10\n  Level 0 u32\n_VF_POOL_TRACE 10\n  Address 0 ptr\n  Size 8 u64\n");
        let allowed = allowed_by(&symbols);
        assert_eq!((allowed[0].query, allowed[0].missing.len()), ("!verifier", 0));
        assert_eq!(allowed[1].missing[..2], ["nt!ViTargetDriversAvl", "_VF_AVL_TREE"]);
        let data = allowed[2].missing.iter().filter(|name| *name == "_VF_TARGET_VERIFIED_DRIVER_DATA");
        assert_eq!(data.count(), 1, "two parts need it");
        assert_eq!(
            allowed[2].built_in,
            ["_RTL_BALANCED_LINKS", "_VI_POOL_PAGE_HEADER", "_VI_POOL_ENTRY"],
            "what stands in is not missing: {:?}",
            allowed[2].missing
        );
        let of = |query: &str| allowed.iter().find(|allowed| allowed.query == query).unwrap();
        assert_eq!(
            of("!verifier 80").missing,
            [
                "nt!VfPoolTracesIndex",
                "nt!VfPoolTracesLength",
                "_VF_POOL_TRACE.Thread",
                "_VF_POOL_TRACE.StackTrace"
            ]
        );
        assert_eq!(of("!verifier 400").missing, ["nt!VfWdIrpListHead", "_VF_WATCHDOG_IRP"]);
        assert_eq!(of("!verifier 100").missing.last().unwrap(), "_IOV_IRP_TRACE");
        let flags: Vec<_> = allowed.iter().map(|allowed| allowed.query).collect();
        let all = ["", " 1", " 3", " 4", " 8", " 40", " 80", " 100", " 200", " 400"];
        assert_eq!(flags, all.map(|flag| format!("!verifier{flag}")));
    }
}
