//! The types of an ISF file as layouts.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::document::{
    BaseType, BaseTypeKind, Enumeration, Field as RawField, FieldKind, FieldType, UserType,
};
use crate::symbols::layout::{BaseKind, Bits, Field, Type, TypeId, TypeLayout};
use crate::symbols::symbol::Constant;

/// Longest chain of pointers and arrays that is followed for one field's type.
const MAX_DEPTH: u32 = 32;

/// Every structure, union and enumeration of a file.
#[derive(Debug)]
pub(super) struct Types {
    layouts: Vec<Arc<TypeLayout>>,
    ids: HashMap<Arc<str>, TypeId>,
    enumerations: HashMap<Arc<str>, Arc<[Constant]>>,
    pointer_size: u64,
}

impl Types {
    pub(super) fn new(
        base: BTreeMap<Box<str>, BaseType>,
        enums: BTreeMap<Arc<str>, Enumeration>,
        user: BTreeMap<Arc<str>, UserType>,
    ) -> Self {
        let pointer_size = base.get("pointer").map_or(8, |pointer| pointer.size);
        let ids = user.keys().cloned().zip((0..).map(TypeId)).collect();
        let names = Names { base: &base, enums: &enums, user: &user, ids: &ids, pointer_size };
        let layout = |(name, ty): (&Arc<str>, &UserType)| {
            let mut fields: Vec<_> = ty.fields.iter().map(|(name, field)| names.field(name, field)).collect();
            // JSON objects have no order; a structure's is that of its bytes.
            fields.sort_by_key(|field| (field.offset, field.bits.map_or(0, |bits| bits.position)));
            Arc::new(TypeLayout { name: Arc::clone(name), size: ty.size, fields })
        };
        let layouts = user.iter().map(layout).collect();
        let enumerations = enums.into_iter().map(|(name, enumeration)| {
            // In order of their value, as a header has them; negative ones wrap, as their bytes in memory do.
            let mut constants: Vec<_> = enumeration.constants.into_iter().collect();
            constants.sort_by_key(|(_, value)| *value);
            let constant = |(name, value): (Arc<str>, i128)| Constant { name, value: value as u64 };
            (name, constants.into_iter().map(constant).collect())
        });
        let enumerations = enumerations.collect();
        Self { layouts, ids, enumerations, pointer_size }
    }

    pub(super) const fn pointer_size(&self) -> u64 {
        self.pointer_size
    }

    pub(super) fn find(&self, name: &str) -> Option<TypeId> {
        self.ids.get(name).copied()
    }

    pub(super) fn layout(&self, id: TypeId) -> Option<Arc<TypeLayout>> {
        self.layouts.get(id.0 as usize).cloned()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = TypeId> {
        (0..self.layouts.len()).filter_map(|index| u32::try_from(index).ok().map(TypeId))
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.layouts.iter().map(|layout| &*layout.name)
    }

    pub(super) fn constants(&self, name: &str) -> Option<Arc<[Constant]>> {
        self.enumerations.get(name).cloned()
    }
}

/// What the types of fields refer to by name.
struct Names<'a> {
    base: &'a BTreeMap<Box<str>, BaseType>,
    enums: &'a BTreeMap<Arc<str>, Enumeration>,
    user: &'a BTreeMap<Arc<str>, UserType>,
    ids: &'a HashMap<Arc<str>, TypeId>,
    pointer_size: u64,
}

impl Names<'_> {
    fn field(&self, name: &Arc<str>, field: &RawField) -> Field {
        let (ty, bits) = match (&field.ty.kind, &field.ty.ty) {
            (FieldKind::Bitfield, Some(word)) => {
                let bits = field.ty.bit_position.zip(field.ty.bit_length);
                (&**word, bits.map(|(position, length)| Bits { position, length }))
            }
            _ => (&field.ty, None),
        };
        Field { name: Arc::clone(name), offset: field.offset, ty: self.ty(ty, MAX_DEPTH), bits }
    }

    fn ty(&self, ty: &FieldType, depth: u32) -> Type {
        let Some(depth) = depth.checked_sub(1) else { return Type::Unknown };
        let inner = || ty.subtype.as_ref().map_or(Type::Unknown, |inner| self.ty(inner, depth));
        match (ty.kind, &ty.name) {
            (FieldKind::Base, Some(name)) => self.base(name),
            (FieldKind::Pointer, _) => Type::Pointer { to: Box::new(inner()), size: self.pointer_size },
            (FieldKind::Array, _) => {
                let (element, count) = (inner(), ty.count.unwrap_or(0));
                let size = element.size().saturating_mul(count);
                Type::Array { element: Box::new(element), count, size }
            }
            (FieldKind::Struct, Some(name)) => Type::Record {
                id: self.ids.get(name).copied(),
                name: Arc::clone(name),
                size: self.user.get(name).map_or(0, |found| found.size),
            },
            (FieldKind::Enum, Some(name)) => {
                Type::Enum { name: Arc::clone(name), size: self.enums.get(name).map_or(4, |it| it.size) }
            }
            (FieldKind::Function, _) => Type::Function,
            _ => Type::Unknown,
        }
    }

    fn base(&self, name: &str) -> Type {
        let Some(base) = self.base.get(name) else { return Type::Unknown };
        let kind = match (base.kind, base.signed) {
            // A PDB knows it as a character, ISF as a number.
            (BaseTypeKind::Int, _) if name == "wchar" => BaseKind::Character,
            (BaseTypeKind::Char, true) => BaseKind::Character,
            (BaseTypeKind::Int, true) => BaseKind::Signed,
            (BaseTypeKind::Int | BaseTypeKind::Char, false) => BaseKind::Unsigned,
            (BaseTypeKind::Void, _) => BaseKind::Void,
            (BaseTypeKind::Bool, _) => BaseKind::Boolean,
            (BaseTypeKind::Float, _) => BaseKind::Float,
            (BaseTypeKind::Other, _) => BaseKind::Other,
        };
        Type::Base { kind, size: base.size }
    }
}
