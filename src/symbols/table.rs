//! Symbols held in memory, without any file: those of tests, the built-in layouts, and an image's exports.
//!
//! Types come from a text, one structure after another, numbers in hexadecimal:
//!
//! ```text
//! _VF_POOL_TRACE 80
//!   Address    0 ptr
//!   Size       8 u64
//!   StackTrace 18 ptr[d]
//! _SLIST_HEADER 10
//!   HeaderX64  0 _SLIST_HEADER::X64
//! _SLIST_HEADER::X64 10
//!   NextEntry  8 u64:4,3c
//! ```
//! A structure is `name size`; its fields follow, indented: `name offset type`. A type is `u8` to `u64`, `i8` to
//! `i64`, `char`, `wchar`, `ptr`, `code` for a pointer to code, `*` and a structure for a pointer to it, `enum=` and a
//! name for an enumeration of 4 bytes, or a structure of the same text; `[n]` after it makes an array,
//! `:position,length` bits.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::error::SymbolError;
use super::identity::PdbIdentity;
use super::layout::{BaseKind, Bits, Field, Type, TypeId, TypeLayout};
use super::symbol::{Constant, Rva, Symbol, SymbolKind, Symbols};

/// Symbols of one module, held in memory.
#[derive(Clone, Debug)]
pub struct TableSymbols {
    identity: PdbIdentity,
    pointer_size: u64,
    by_name: BTreeMap<String, Rva>,
    by_address: BTreeMap<Rva, String>,
    sections: Vec<std::ops::Range<u32>>,
    types: Vec<Arc<TypeLayout>>,
    enumerations: BTreeMap<String, Arc<[Constant]>>,
}

impl TableSymbols {
    /// No symbols yet.
    #[must_use]
    pub const fn new(identity: PdbIdentity) -> Self {
        Self {
            identity,
            pointer_size: 8,
            by_name: BTreeMap::new(),
            by_address: BTreeMap::new(),
            sections: Vec::new(),
            types: Vec::new(),
            enumerations: BTreeMap::new(),
        }
    }

    /// The same for a 32-bit module: pointers of the types that are added next have 4 bytes.
    #[must_use]
    pub const fn with_32_bits(mut self) -> Self {
        self.pointer_size = 4;
        self
    }

    /// Adds a symbol.
    #[must_use]
    pub fn symbol(mut self, name: &str, rva: u32) -> Self {
        self.add_symbol(name, rva);
        self
    }

    pub(super) fn add_symbol(&mut self, name: &str, rva: u32) {
        self.by_name.insert(name.to_owned(), Rva(rva));
        self.by_address.entry(Rva(rva)).or_insert_with(|| name.to_owned());
    }

    /// Adds a section; as long as there is none, the module is one section.
    #[must_use]
    pub fn section(mut self, addresses: std::ops::Range<u32>) -> Self {
        self.sections.push(addresses);
        self
    }

    /// Adds the constants of an enumeration, which a field of type `enum=NAME` has.
    #[must_use]
    pub fn enumeration(mut self, name: &str, constants: &[(&str, u64)]) -> Self {
        let constant = |(name, value): &(&str, u64)| Constant { name: (*name).into(), value: *value };
        self.enumerations.insert(name.to_owned(), constants.iter().map(constant).collect());
        self
    }

    /// Adds structures, written as the module's documentation says.
    ///
    /// # Panics
    /// If the text is not: a mistake in the program that has it.
    #[must_use]
    pub fn types(mut self, text: &str) -> Self {
        let lines = || text.lines().filter(|line| !line.trim().is_empty());
        let heads = lines().filter(|line| !line.starts_with(' '));
        let ids: BTreeMap<&str, (TypeId, u64)> = (self.types.len() as u32..)
            .zip(heads)
            .map(|(id, line)| {
                let (name, size) = line.trim().split_once(' ').expect("a structure is `name size`");
                (name, (TypeId(id), hexadecimal(size)))
            })
            .collect();
        let pointer_size = self.pointer_size;
        for line in lines() {
            if let Some(field) = line.strip_prefix(' ') {
                let owner =
                    self.types.last_mut().and_then(Arc::get_mut).expect("a field follows its structure");
                owner.fields.push(parse_field(field, &ids, pointer_size));
            } else {
                let (name, size) = line.trim().split_once(' ').expect("checked above");
                let layout = TypeLayout { name: name.into(), size: hexadecimal(size), fields: Vec::new() };
                self.types.push(Arc::new(layout));
            }
        }
        self
    }
}

impl Symbols for TableSymbols {
    fn identity(&self) -> &PdbIdentity {
        &self.identity
    }

    fn kind(&self) -> SymbolKind {
        SymbolKind::Table
    }

    fn path(&self) -> Option<&Path> {
        None
    }

    fn pointer_size(&self) -> u64 {
        self.pointer_size
    }

    fn address_of(&self, name: &str) -> Option<Rva> {
        self.by_name.get(name).copied()
    }

    fn nearest(&self, rva: Rva) -> Option<Symbol<'_>> {
        let section = self.sections.iter().find(|section| section.contains(&rva.0));
        let start = match section {
            Some(section) => section.start,
            None if self.sections.is_empty() => 0,
            None => return None,
        };
        let (at, name) = self.by_address.range(Rva(start)..=rva).next_back()?;
        Some(Symbol { name: name.as_str().into(), rva: *at })
    }

    fn symbols(&self) -> Box<dyn Iterator<Item = Symbol<'_>> + '_> {
        let is_other = |name: &str, rva: &Rva| self.by_address.get(rva).is_some_and(|first| first != name);
        let mut all: Vec<_> =
            self.by_name.iter().map(|(name, rva)| (*rva, is_other(name, rva), name.as_str())).collect();
        all.sort_unstable();
        Box::new(all.into_iter().map(|(rva, _, name)| Symbol { name: name.into(), rva }))
    }

    fn types(&self) -> Box<dyn Iterator<Item = Cow<'_, str>> + '_> {
        Box::new(self.types.iter().map(|layout| Cow::from(&*layout.name)))
    }

    fn constants(&self, name: &str) -> Option<Arc<[Constant]>> {
        self.enumerations.get(name).cloned()
    }

    fn find_type(&self, name: &str) -> Option<TypeId> {
        let index = self.types.iter().position(|layout| &*layout.name == name)?;
        u32::try_from(index).ok().map(TypeId)
    }

    fn layout(&self, id: TypeId) -> Result<Arc<TypeLayout>, SymbolError> {
        self.types.get(id.0 as usize).cloned().ok_or_else(|| SymbolError::Damaged {
            file: self.identity.name.clone().into(),
            reading: "type records",
            wrong: format!("there is no type {:#x}", id.0),
        })
    }
}

fn parse_field(text: &str, ids: &BTreeMap<&str, (TypeId, u64)>, pointer_size: u64) -> Field {
    let mut words = text.split_whitespace();
    let mut word = || words.next().expect("a field is `name offset type`");
    let (name, offset, ty) = (word(), word(), word());
    let bits = ty.rsplit_once(':').and_then(|(ty, bits)| Some((ty, bits.split_once(',')?)));
    let (ty, bits) = match bits {
        Some((ty, (position, length))) => {
            let number = |digits| u8::try_from(hexadecimal(digits)).expect("bits fit in a word");
            (ty, Some(Bits { position: number(position), length: number(length) }))
        }
        None => (ty, None),
    };
    Field { name: name.into(), offset: hexadecimal(offset), ty: parse_type(ty, ids, pointer_size), bits }
}

fn parse_type(text: &str, ids: &BTreeMap<&str, (TypeId, u64)>, pointer_size: u64) -> Type {
    if let Some((element, count)) = text.strip_suffix(']').and_then(|text| text.rsplit_once('[')) {
        let (element, count) = (parse_type(element, ids, pointer_size), hexadecimal(count));
        let size = element.size() * count;
        return Type::Array { element: Box::new(element), count, size };
    }
    let base = |kind, size| Type::Base { kind, size };
    match text {
        "ptr" => Type::Pointer { to: Box::new(base(BaseKind::Void, 0)), size: pointer_size },
        "u8" => base(BaseKind::Unsigned, 1),
        "u16" => base(BaseKind::Unsigned, 2),
        "u32" => base(BaseKind::Unsigned, 4),
        "u64" => base(BaseKind::Unsigned, 8),
        "i8" => base(BaseKind::Signed, 1),
        "i16" => base(BaseKind::Signed, 2),
        "i32" => base(BaseKind::Signed, 4),
        "i64" => base(BaseKind::Signed, 8),
        "char" => base(BaseKind::Character, 1),
        "wchar" => base(BaseKind::Character, 2),
        "code" => Type::Pointer { to: Box::new(Type::Function), size: pointer_size },
        record => {
            if let Some(pointee) = record.strip_prefix('*') {
                let to = Box::new(parse_type(pointee, ids, pointer_size));
                return Type::Pointer { to, size: pointer_size };
            }
            if let Some(name) = record.strip_prefix("enum=") {
                return Type::Enum { name: name.into(), size: 4 };
            }
            let (id, size) = ids.get(record).expect("a field's structure is in the same text");
            Type::Record { id: Some(*id), name: record.into(), size: *size }
        }
    }
}

fn hexadecimal(digits: &str) -> u64 {
    u64::from_str_radix(digits.trim(), 16).expect("numbers are hexadecimal")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbols::Guid;

    fn table() -> TableSymbols {
        let types = "\
_SLIST_HEADER 10
  Alignment 0 u64
  HeaderX64 0 _SLIST_HEADER::X64
_SLIST_HEADER::X64 10
  Depth     0 u64:0,10
  NextEntry 8 u64:4,3c
_TRACE 20
  Head  0 _SLIST_HEADER
  Stack 10 ptr[2]
";
        TableSymbols::new(PdbIdentity::new("t.pdb", Guid::default(), 1))
            .symbol("first", 0x1000)
            .symbol("second", 0x2000)
            .section(0x1000..0x1800)
            .section(0x1800..0x3000)
            .types(types)
    }

    #[test]
    fn a_dotted_path_leads_through_nested_structures() {
        let table = table();
        let layout = table.layout(table.find_type("_TRACE").unwrap()).unwrap();
        let place = table.place(&layout, "Head.HeaderX64.NextEntry").unwrap().unwrap();
        assert_eq!((place.offset, place.bits), (8, Some(Bits { position: 4, length: 60 })));
        assert_eq!(table.place(&layout, "Head.Header16.NextEntry").unwrap(), None);
        assert_eq!(table.place(&layout, "Stack.X").unwrap(), None, "an array has no fields");
        assert!(matches!(layout.field("Stack").unwrap().ty, Type::Array { count: 2, size: 16, .. }));
    }

    #[test]
    fn the_nearest_symbol_lies_in_the_same_section() {
        let table = table();
        let nearest = |rva| table.nearest(Rva(rva)).map(|symbol| symbol.name.into_owned());
        assert_eq!(nearest(0x1010).as_deref(), Some("first"));
        assert_eq!(nearest(0x1900), None, "its section begins after `first`");
        assert_eq!(nearest(0x2fff).as_deref(), Some("second"));
        assert_eq!(nearest(0x3000), None);
    }
}
