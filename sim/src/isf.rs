//! A simulated image's symbols as volatility3's ISF, from the layout files that its PDB is made of.
//!
//! ```text
//!  types.toml  'u1' 'union 8', 'u1.Flags' 'unsigned long'  -->  user_types: _X { u1: __unnamed_1 }, __unnamed_1 { Flags }
//!  nt.toml     0x23a0e0 MmVerifierData                     -->  symbols: MmVerifierData { address: 0x23a0e0 }
//! ```
//! Source of the form: volatility3's `schema-6.2.0.json`.

use serde_json::{Map, Value, json};

use super::windows::layout::{Aggregate, BaseType, Field, ImageLayout, Type, Types};

/// The file for an image whose PDB has this GUID and age.
pub(super) fn document(image: &ImageLayout, types: Option<&Types>, guid: &str, age: u32) -> Value {
    let symbols: Map<String, Value> = image
        .symbols()
        .into_iter()
        .map(|(name, address)| (name.to_string(), json!({ "address": address })))
        .collect();
    let mut user_types = UserTypes { types, found: Map::new(), unnamed: 0 };
    let mut enums = Map::new();
    if let Some(types) = types {
        for (name, aggregate) in &types.aggregates {
            user_types.define(name, aggregate, None);
        }
        for (name, enumeration) in &types.enumerations {
            let constants: Map<String, Value> =
                enumeration.values.iter().map(|(value, name)| (name.clone(), json!(value))).collect();
            let (base, size) = (name_of(enumeration.base), enumeration.base.size());
            enums.insert(name.clone(), json!({ "base": base, "size": size, "constants": constants }));
        }
    }
    json!({
        "metadata": {
            "format": "6.1.0",
            "producer": { "name": "verikd", "version": env!("CARGO_PKG_VERSION") },
            "windows": { "pdb": { "database": image.pdb, "GUID": guid, "age": age, "machine_type": 0x8664 } },
        },
        "base_types": base_types(),
        "enums": enums,
        "user_types": user_types.found,
        "symbols": symbols,
    })
}

struct UserTypes<'a> {
    types: Option<&'a Types>,
    found: Map<String, Value>,
    /// Names given so far to what has none.
    unnamed: u32,
}

impl UserTypes<'_> {
    /// Defines an aggregate, or the unnamed one that is its field `unnamed`.
    fn define(&mut self, name: &str, aggregate: &Aggregate, unnamed: Option<&Field>) {
        // Names and offsets in the file count from the named structure; in a type, from the unnamed one.
        let (prefix, start) = unnamed.map_or(("", 0), |field| (field.name.as_str(), field.offset));
        let (union, size) = match unnamed.map(|field| &field.ty) {
            Some(Type::Unnamed { union, size }) => (*union, *size),
            _ => (aggregate.union, aggregate.size),
        };
        let mut fields = Map::new();
        for field in aggregate.fields.iter().filter(|field| outer(field) == prefix) {
            let ty = match &field.ty {
                Type::Unnamed { union, .. } => {
                    self.unnamed += 1;
                    let inner = format!("__unnamed_{:x}", self.unnamed);
                    self.define(&inner, aggregate, Some(field));
                    json!({ "kind": kind(*union), "name": inner })
                }
                ty => self.field_type(ty),
            };
            let own_name = field.name.rsplit('.').next().unwrap_or(&field.name);
            fields.insert(own_name.to_owned(), json!({ "offset": field.offset - start, "type": ty }));
        }
        let ty = json!({ "kind": kind(union), "size": size, "fields": fields });
        self.found.insert(name.to_owned(), ty);
    }

    fn field_type(&self, ty: &Type) -> Value {
        match ty {
            Type::Base(base) => json!({ "kind": "base", "name": name_of(*base) }),
            Type::Pointer(to) => json!({ "kind": "pointer", "subtype": self.field_type(to) }),
            Type::Array(element, count) => {
                json!({ "kind": "array", "count": count, "subtype": self.field_type(element) })
            }
            Type::Bits { base, width, bit } => json!({
                "kind": "bitfield", "bit_position": bit, "bit_length": width,
                "type": { "kind": "base", "name": name_of(*base) },
            }),
            Type::Named { name, union } => {
                let is_enumeration = |types: &Types| types.enumerations.contains_key(name);
                let listed = self.types.and_then(|types| types.aggregate(name));
                let kind = match listed {
                    None if self.types.is_some_and(is_enumeration) => "enum",
                    Some(aggregate) => kind(aggregate.union),
                    None => kind(*union),
                };
                json!({ "kind": kind, "name": name })
            }
            Type::Unnamed { .. } => unreachable!("`define` defines unnamed fields in place"),
        }
    }
}

fn kind(union: bool) -> &'static str {
    if union { "union" } else { "struct" }
}

/// The unnamed aggregate that a field is a member of; empty for the structure itself.
fn outer(field: &Field) -> &str {
    field.name.rsplit_once('.').map_or("", |(outer, _)| outer)
}

fn base_types() -> Value {
    use BaseType as B;
    let integers =
        [B::Short, B::UnsignedShort, B::Int, B::UnsignedInt, B::Long, B::UnsignedLong, B::LongLong];
    let mut types = Map::new();
    let mut add = |name: &str, kind: &str, size: u32, signed: bool| {
        let ty = json!({ "kind": kind, "size": size, "signed": signed, "endian": "little" });
        types.insert(name.to_owned(), ty);
    };
    for base in integers.into_iter().chain([B::UnsignedLongLong, B::WideChar]) {
        add(name_of(base), "int", base.size(), !name_of(base).starts_with("unsigned"));
    }
    add(name_of(B::Char), "char", 1, true);
    add(name_of(B::UnsignedChar), "char", 1, false);
    add(name_of(B::Double), "float", 8, true);
    add(name_of(B::Void), "void", 0, true);
    add("pointer", "int", 8, false);
    Value::Object(types)
}

const fn name_of(base: BaseType) -> &'static str {
    match base {
        BaseType::Void => "void",
        BaseType::Char => "char",
        BaseType::UnsignedChar => "unsigned char",
        BaseType::WideChar => "wchar",
        BaseType::Short => "short",
        BaseType::UnsignedShort => "unsigned short",
        BaseType::Int => "int",
        BaseType::UnsignedInt => "unsigned int",
        BaseType::Long => "long",
        BaseType::UnsignedLong => "unsigned long",
        BaseType::LongLong => "long long",
        BaseType::UnsignedLongLong => "unsigned long long",
        BaseType::Double => "double",
    }
}
