//! The types of an ISF file as layouts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::document::{BaseTypeKind, BaseTypes, Field as RawField, FieldKind, FieldType};
use super::records::Records;
use crate::symbols::layout::{BaseKind, Bits, Field, Type, TypeId, TypeLayout};
use crate::symbols::symbol::Constant;

/// Longest chain of pointers and arrays that is followed for one field's type.
const MAX_DEPTH: u32 = 32;

/// Every structure, union and enumeration of a file, each read when it is asked for.
#[derive(Debug)]
pub(super) struct Types {
    records: Arc<Records>,
    base: BaseTypes,
    layouts: Mutex<HashMap<TypeId, Arc<TypeLayout>>>,
    pointer_size: u64,
}

impl Types {
    pub(super) fn new(records: Arc<Records>, base: BaseTypes) -> Self {
        let pointer_size = base.get("pointer").map_or(8, |pointer| pointer.size);
        Self { records, base, layouts: Mutex::default(), pointer_size }
    }

    pub(super) const fn pointer_size(&self) -> u64 {
        self.pointer_size
    }

    pub(super) fn find(&self, name: &str) -> Option<TypeId> {
        self.records.structure(name).map(|(id, _)| id)
    }

    pub(super) fn layout(&self, id: TypeId) -> Option<Arc<TypeLayout>> {
        let known = || self.layouts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(layout) = known().get(&id) {
            return Some(Arc::clone(layout));
        }
        let (name, ty) = self.records.definition(id)?;
        let mut fields: Vec<_> = ty.fields.iter().map(|(name, field)| self.field(name, field)).collect();
        // JSON objects have no order; a structure's is that of its bytes.
        fields.sort_by_key(|field| (field.offset, field.bits.map_or(0, |bits| bits.position)));
        let layout = Arc::new(TypeLayout { name, size: ty.size, fields });
        known().insert(id, Arc::clone(&layout));
        Some(layout)
    }

    pub(super) fn ids(&self) -> Vec<TypeId> {
        self.records.ids()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        self.ids().into_iter().filter_map(|id| self.records.name(id))
    }

    pub(super) fn constants(&self, name: &str) -> Option<Arc<[Constant]>> {
        // In order of their value, as a header has them; negative ones wrap, as their bytes in memory do.
        let mut constants: Vec<_> = self.records.enumeration(name)?.constants.into_iter().collect();
        constants.sort_by_key(|(_, value)| *value);
        let constant = |(name, value): (Arc<str>, i128)| Constant { name, value: value as u64 };
        Some(constants.into_iter().map(constant).collect())
    }

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
            (FieldKind::Struct, Some(name)) => {
                let (id, size) = self.records.structure(name).unzip();
                Type::Record { id, name: Arc::clone(name), size: size.unwrap_or(0) }
            }
            (FieldKind::Enum, Some(name)) => {
                let size = self.records.enumeration_size(name).unwrap_or(4);
                Type::Enum { name: Arc::clone(name), size }
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
