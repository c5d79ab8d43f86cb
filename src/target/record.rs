//! One structure of the target, read once; its fields come out of its bytes.

use std::borrow::Cow;
use std::sync::Arc;

use super::error::TargetError;
use crate::memory::{Address, ReadCause, ReadError, VirtAddr};
use crate::output::Escaped;
use crate::symbols::{Constant, Field, Place, Symbols, Type, TypeLayout};

/// What a structure looks like in this target's build.
#[derive(Clone, Debug)]
pub struct Layout {
    symbols: Arc<dyn Symbols>,
    layout: Arc<TypeLayout>,
}

impl Layout {
    pub(super) const fn new(symbols: Arc<dyn Symbols>, layout: Arc<TypeLayout>) -> Self {
        Self { symbols, layout }
    }

    /// Name as in the symbol file.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.layout.name
    }

    /// `sizeof`.
    #[must_use]
    pub fn size(&self) -> usize {
        usize::try_from(self.layout.size).unwrap_or(usize::MAX)
    }

    /// Bytes of a pointer: 8 or 4.
    #[must_use]
    pub fn pointer_size(&self) -> usize {
        self.symbols.pointer_size() as usize
    }

    /// Its fields, in the order of the symbol file.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.layout.fields
    }

    /// What a structure or union of the same symbol file looks like; nothing for other types.
    ///
    /// # Errors
    /// [`TargetError::Symbols`].
    pub fn of_type(&self, ty: &Type) -> Result<Option<Self>, TargetError> {
        let Type::Record { id: Some(id), .. } = ty else { return Ok(None) };
        Ok(Some(Self::new(Arc::clone(&self.symbols), self.symbols.layout(*id)?)))
    }

    /// The constants of an enumeration of the same symbol file.
    #[must_use]
    pub fn constants(&self, enumeration: &str) -> Option<Arc<[Constant]>> {
        self.symbols.constants(enumeration)
    }

    /// True if the build's structure has the field: what decides between layouts.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        matches!(self.symbols.place(&self.layout, path), Ok(Some(_)))
    }

    /// Where a field such as `Header16.NextEntry` lies.
    ///
    /// # Errors
    /// [`TargetError::NoField`], [`TargetError::Symbols`].
    pub fn place(&self, path: &str) -> Result<Place, TargetError> {
        self.symbols.place(&self.layout, path)?.ok_or_else(|| TargetError::NoField {
            ty: Arc::clone(&self.layout.name),
            field: path.to_owned(),
            pdb: describe(&*self.symbols),
        })
    }

    /// A field's offset in bytes.
    ///
    /// # Errors
    /// [`TargetError::NoField`], [`TargetError::Symbols`].
    pub fn offset(&self, path: &str) -> Result<u64, TargetError> {
        self.place(path).map(|place| place.offset)
    }

    /// The layout of a field that is itself a structure.
    ///
    /// # Errors
    /// [`TargetError::NoField`] if it is none, [`TargetError::Symbols`].
    pub fn of_field(&self, path: &str) -> Result<Self, TargetError> {
        match self.place(path)?.ty {
            Type::Record { id: Some(id), .. } => {
                Ok(Self::new(Arc::clone(&self.symbols), self.symbols.layout(id)?))
            }
            _ => Err(TargetError::NoField {
                ty: Arc::clone(&self.layout.name),
                field: format!("{path}.*"),
                pdb: describe(&*self.symbols),
            }),
        }
    }
}

/// A structure's bytes, of which the last may be missing.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    layout: Layout,
    address: VirtAddr,
    bytes: Cow<'a, [u8]>,
    missing: Option<ReadCause>,
}

impl<'a> Record<'a> {
    /// A record of bytes read at `address`; `missing` says why there are fewer than the structure has.
    #[must_use]
    pub fn new(layout: Layout, address: VirtAddr, bytes: Cow<'a, [u8]>, missing: Option<ReadCause>) -> Self {
        Self { layout, address, bytes, missing }
    }

    /// Where it is.
    #[must_use]
    pub const fn address(&self) -> VirtAddr {
        self.address
    }

    /// What it looks like.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The bytes that were read.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// True if the build's structure has the field.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        self.layout.has(path)
    }

    /// A number or bit field of at most 8 bytes.
    ///
    /// # Errors
    /// [`TargetError::Read`] if that part was not read; [`TargetError::NoField`].
    pub fn uint(&self, path: &str) -> Result<u64, TargetError> {
        let place = self.layout.place(path)?;
        if let Some(value) = place.uint(&self.bytes) {
            return Ok(value);
        }
        let (end, size) = (place.offset.saturating_add(place.ty.size()), place.ty.size());
        if !(1..=8).contains(&size) || end <= self.bytes.len() as u64 {
            return Err(TargetError::NoNumber { ty: Arc::clone(self.layout.name()), field: path.to_owned() });
        }
        let source = ReadError {
            address: Address::of_target(self.address.offset(place.offset), self.layout.pointer_size()),
            wanted: size as usize,
            got: self.bytes.len().saturating_sub(place.offset as usize),
            cause: self.missing.clone().unwrap_or(ReadCause::NotMapped),
        };
        Err(TargetError::read(format!("{}.{path}", self.layout.name()), source))
    }

    /// A number of at most 4 bytes.
    ///
    /// # Errors
    /// As [`uint`](Self::uint).
    pub fn u32(&self, path: &str) -> Result<u32, TargetError> {
        self.uint(path).map(|value| value as u32)
    }

    /// A pointer.
    ///
    /// # Errors
    /// As [`uint`](Self::uint).
    pub fn pointer(&self, path: &str) -> Result<VirtAddr, TargetError> {
        self.uint(path).map(VirtAddr)
    }

    /// Where a field is in the target.
    ///
    /// # Errors
    /// [`TargetError::NoField`], [`TargetError::Symbols`].
    pub fn address_of(&self, path: &str) -> Result<VirtAddr, TargetError> {
        Ok(self.address.offset(self.layout.offset(path)?))
    }
}

/// Structures of one kind in a row, from one ranged read.
#[derive(Clone, Debug)]
pub struct Records {
    pub(super) layout: Layout,
    pub(super) address: VirtAddr,
    pub(super) count: usize,
    pub(super) bytes: Vec<u8>,
    pub(super) missing: Option<ReadCause>,
}

impl Records {
    /// How many were asked for.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// True if none were asked for.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Why the last ones are missing, if they are.
    #[must_use]
    pub const fn missing(&self) -> Option<&ReadCause> {
        self.missing.as_ref()
    }

    /// Each in order of address; those past the end of what was read have no readable field.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        let size = self.layout.size();
        (0..self.count).map(move |index| {
            let rest = self.bytes.get(index * size..).unwrap_or_default();
            let bytes = &rest[..rest.len().min(size)];
            let address = self.address.offset((index * size) as u64);
            Record::new(self.layout.clone(), address, Cow::Borrowed(bytes), self.missing.clone())
        })
    }
}

/// A symbol file as errors name it: ``ntkrnlmp.pdb (identity 339E...31)``.
pub(super) fn describe(symbols: &dyn Symbols) -> String {
    let identity = symbols.identity();
    match symbols.damage() {
        Some(damage) => format!("{} (identity {identity}, {damage})", Escaped(&identity.name)),
        None => format!("{} (identity {identity})", Escaped(&identity.name)),
    }
}
