//! Types as WinDbg writes them.

use serde::Serializer;

use crate::output::TargetText;
use crate::target::{BaseKind, Type};

/// A type on one line, whatever its symbol file calls it.
pub(super) fn shown(ty: &Type) -> TargetText {
    type_name(ty).into()
}

/// Serialises a type as its name.
///
/// # Errors
/// The serializer's.
pub(super) fn name<S: Serializer>(ty: &Type, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&type_name(ty))
}

/// A type as WinDbg writes it: `[28] Ptr64 _KTHREAD`, `Uint4B`.
fn type_name(ty: &Type) -> String {
    match ty {
        Type::Base { kind, size } => match (kind, size) {
            (BaseKind::Void, _) => "Void".into(),
            (BaseKind::Unsigned, 1) => "UChar".into(),
            (BaseKind::Signed | BaseKind::Character, 1) => "Char".into(),
            (BaseKind::Character, 2) => "Wchar".into(),
            (BaseKind::Boolean, 1) => "Bool".into(),
            (BaseKind::Unsigned | BaseKind::Boolean | BaseKind::Character, size) => format!("Uint{size}B"),
            (BaseKind::Signed, size) => format!("Int{size}B"),
            (BaseKind::Float, 8) => "Double".into(),
            (BaseKind::Float, 4) => "Float".into(),
            (BaseKind::Float, size) => format!("Float{size}B"),
            (BaseKind::Other, _) => "Unknown".into(),
        },
        Type::Pointer { to, size } => format!("Ptr{} {}", 8 * size, type_name(to)),
        Type::Array { element, count, .. } => format!("[{count}] {}", type_name(element)),
        Type::Record { name, .. } | Type::Enum { name, .. } => name.to_string(),
        Type::Function => "Function".into(),
        Type::Unknown => "Unknown".into(),
    }
}
