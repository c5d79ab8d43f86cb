//! The structures of a text in the language of `symbols::table`, as a volatility3 ISF file of a 32-bit kernel.

use std::path::Path;

use serde_json::{Map, Value, json};
use verikd::symbols::isf::IsfSymbols;

/// Opens such a file, which has these symbols too.
pub(super) fn symbols(name: &str, types: &str, symbols: &[(String, u32)]) -> IsfSymbols {
    let mut user_types: Map<String, Value> = Map::new();
    let mut last = String::new();
    for line in types.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        if line.starts_with(' ') {
            let [field, offset, ty] = words[..] else { panic!("{line}") };
            let place = json!({ "offset": number(offset), "type": field_type(ty) });
            user_types[&last]["fields"][field] = place;
        } else {
            let [ty, size] = words[..] else { panic!("{line}") };
            last = ty.to_owned();
            user_types.insert(last.clone(), json!({ "kind": "struct", "size": number(size), "fields": {} }));
        }
    }
    let address = |(name, rva): &(String, u32)| (name.clone(), json!({ "address": rva }));
    let document = json!({
        "metadata": {
            "format": "6.1.0",
            "producer": { "name": "verikd", "version": "0" },
            "windows": { "pdb": {
                "database": "ntkrpamp.pdb", "GUID": "06060606060606060606060606060606", "age": 1, "machine_type": 0x14c,
            } },
        },
        "base_types": base_types(),
        "enums": {},
        "user_types": user_types,
        "symbols": symbols.iter().map(address).collect::<Map<_, _>>(),
    });
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("published");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{name}.json"));
    std::fs::write(&path, document.to_string()).unwrap();
    IsfSymbols::open(&path).unwrap()
}

fn field_type(text: &str) -> Value {
    if let Some((element, count)) = text.strip_suffix(']').and_then(|text| text.split_once('[')) {
        return json!({ "kind": "array", "count": number(count), "subtype": field_type(element) });
    }
    match text {
        "ptr" => json!({ "kind": "pointer", "subtype": { "kind": "base", "name": "void" } }),
        _ if text.starts_with('_') => json!({ "kind": "struct", "name": text }),
        base => json!({ "kind": "base", "name": base }),
    }
}

fn base_types() -> Value {
    let integer = |size: u32, signed: bool| json!({ "kind": "int", "size": size, "signed": signed, "endian": "little" });
    json!({
        "void": { "kind": "void", "size": 0, "signed": false, "endian": "little" },
        "pointer": integer(4, false),
        "u8": integer(1, false), "u16": integer(2, false), "u32": integer(4, false), "u64": integer(8, false),
        "i8": integer(1, true),
    })
}

fn number(digits: &str) -> u64 {
    u64::from_str_radix(digits, 16).unwrap()
}
