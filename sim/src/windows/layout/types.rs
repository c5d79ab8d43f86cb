//! Structures, unions and enumerations of a layout file, and their types' notation.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Deserialize;

use super::error::LayoutError;

/// The structures of one Windows build: its `types.toml` and those it builds upon.
#[derive(Clone, Debug)]
pub struct Types {
    /// What this build's compiler calls an aggregate without a name.
    pub unnamed: String,
    /// Bytes of a pointer: 8 unless a file says 4.
    pub pointer_size: u32,
    /// Enumerations by name.
    pub enumerations: BTreeMap<String, Enumeration>,
    /// Structures and unions by name.
    pub aggregates: BTreeMap<String, Aggregate>,
    /// Where a field is in its aggregate's list, by both names.
    by_name: HashMap<String, HashMap<String, usize>>,
}

/// An enumeration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enumeration {
    /// The integer type it is stored as.
    pub base: BaseType,
    /// Values and their names.
    pub values: Vec<(i64, String)>,
}

/// A structure or union.
#[derive(Clone, Debug)]
pub struct Aggregate {
    /// True for a union.
    pub union: bool,
    /// Bytes.
    pub size: u32,
    /// Fields in the file's order: an unnamed aggregate's members follow it, as `u1.Flags`.
    pub fields: Vec<Field>,
}

/// A field of a structure or union.
#[derive(Clone, Debug)]
pub struct Field {
    /// Bytes from the start of the named structure, also for members of unnamed aggregates inside it.
    pub offset: u32,
    /// Its name; with the names of the unnamed aggregates around it and dots.
    pub name: String,
    /// Its type.
    pub ty: Type,
}

/// The type of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// A type of the C language.
    Base(BaseType),
    /// A structure, union or enumeration of the file; behind a pointer possibly one that it does not list.
    Named {
        /// Its name.
        name: String,
        /// True if written `union NAME`: needed only where the file does not list it.
        union: bool,
    },
    /// A pointer.
    Pointer(Box<Self>),
    /// An array of so many elements.
    Array(Box<Self>, u32),
    /// A bit field: `width` bits, lowest at bit `bit` of a `base`.
    Bits {
        /// The integer it is a part of.
        base: BaseType,
        /// How many bits.
        width: u8,
        /// Its lowest bit.
        bit: u8,
    },
    /// A structure or union without a name, of so many bytes; its members are the fields named `this.member`.
    Unnamed {
        /// True for a union.
        union: bool,
        /// Bytes.
        size: u32,
    },
}

/// A type of the C language, as Microsoft's compiler for x64 has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the C names say it all")]
pub enum BaseType {
    #[serde(rename = "void")]
    Void,
    #[serde(rename = "char")]
    Char,
    #[serde(rename = "unsigned char")]
    UnsignedChar,
    #[serde(rename = "wchar")]
    WideChar,
    #[serde(rename = "short")]
    Short,
    #[serde(rename = "unsigned short")]
    UnsignedShort,
    #[serde(rename = "int")]
    Int,
    #[serde(rename = "unsigned int")]
    UnsignedInt,
    #[serde(rename = "long")]
    Long,
    #[serde(rename = "unsigned long")]
    UnsignedLong,
    #[serde(rename = "long long")]
    LongLong,
    #[serde(rename = "unsigned long long")]
    UnsignedLongLong,
    #[serde(rename = "double")]
    Double,
}

impl Types {
    /// Parses files of structures, the most basic first: a later one's replace those of the same name. Checks that every
    /// field lies inside its structure.
    ///
    /// # Errors
    /// [`LayoutError::Toml`], [`LayoutError::Missing`], [`LayoutError::Type`] or [`LayoutError::Field`].
    pub fn parse(texts: &[&str]) -> Result<Self, LayoutError> {
        let (mut unnamed, mut enumerations, mut aggregates) = (None, BTreeMap::new(), BTreeMap::new());
        let mut pointer_size = 8;
        for text in texts {
            let file: File = toml::from_str(text)?;
            unnamed = file.unnamed.or(unnamed);
            pointer_size = file.pointer_size.unwrap_or(pointer_size);
            enumerations.extend(file.enumerations);
            aggregates.retain(|name, _| !file.without.contains(name));
            for (union, tables) in [(false, file.structures), (true, file.unions)] {
                for (name, table) in tables {
                    let fields = table.fields.into_iter().map(|field| parse_field(&name, field));
                    let aggregate =
                        Aggregate { union, size: table.size, fields: fields.collect::<Result<_, _>>()? };
                    aggregates.insert(name, aggregate);
                }
            }
        }
        let unnamed = unnamed.ok_or(LayoutError::Missing { key: "unnamed" })?;
        let by_name = aggregates.iter().map(|(name, aggregate)| (name.clone(), aggregate.index())).collect();
        let types = Self { unnamed, pointer_size, enumerations, aggregates, by_name };
        types.check()?;
        Ok(types)
    }

    /// The structure or union of this name.
    #[must_use]
    pub fn aggregate(&self, name: &str) -> Option<&Aggregate> {
        self.aggregates.get(name)
    }

    /// A field by the names of its structure and itself, members of unnamed aggregates as `u1.Flags`.
    #[must_use]
    pub fn field(&self, aggregate: &str, field: &str) -> Option<&Field> {
        self.aggregates.get(aggregate)?.fields.get(*self.by_name.get(aggregate)?.get(field)?)
    }

    /// Offset and type of a field that may lie in structures inside the structure: `Prcb.ProcessorState.ContextFrame`.
    #[must_use]
    pub fn locate(&self, aggregate: &str, path: &str) -> Option<(u32, &Type)> {
        if let Some(field) = self.field(aggregate, path) {
            return Some((field.offset, &field.ty));
        }
        // Names of unnamed aggregates' members have dots themselves: the longest name that fits is the field.
        path.rmatch_indices('.').find_map(|(dot, _)| {
            let outer = self.field(aggregate, &path[..dot])?;
            let Type::Named { name, .. } = &outer.ty else { return None };
            let (offset, ty) = self.locate(name, &path[dot + 1..])?;
            Some((outer.offset + offset, ty))
        })
    }

    /// Bytes that a value of this type takes; `None` for a structure that the file does not list.
    #[must_use]
    pub fn size_of(&self, ty: &Type) -> Option<u32> {
        match ty {
            Type::Base(base) | Type::Bits { base, .. } => Some(base.size()),
            Type::Pointer(_) => Some(self.pointer_size),
            Type::Array(element, count) => self.size_of(element)?.checked_mul(*count),
            Type::Unnamed { size, .. } => Some(*size),
            Type::Named { name, .. } => match self.aggregates.get(name) {
                Some(aggregate) => Some(aggregate.size),
                None => self.enumerations.get(name).map(|enumeration| enumeration.base.size()),
            },
        }
    }

    fn check(&self) -> Result<(), LayoutError> {
        for (name, aggregate) in &self.aggregates {
            for field in &aggregate.fields {
                let problem = match self.size_of(&field.ty).map(|size| field.offset + size <= aggregate.size)
                {
                    Some(true) => continue,
                    Some(false) => "ends behind its structure",
                    None => "is a structure that is not listed",
                };
                return Err(LayoutError::Field {
                    aggregate: name.clone(),
                    field: field.name.clone(),
                    problem,
                });
            }
        }
        Ok(())
    }
}

impl Aggregate {
    fn index(&self) -> HashMap<String, usize> {
        self.fields.iter().enumerate().map(|(at, field)| (field.name.clone(), at)).collect()
    }
}

impl Type {
    /// Parses the notation of `types.toml`; `None` if it is not that.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some((base, bits)) = text.split_once(':') {
            let (width, bit) = bits.split_once('@')?;
            return Some(Self::Bits {
                base: BaseType::parse(base)?,
                width: width.parse().ok()?,
                bit: bit.parse().ok()?,
            });
        }
        if let Some(inner) = text.strip_suffix(']') {
            // The last dimension is the innermost: strip it, and give it to what is left of the first bracket.
            let (element, dimensions) = inner.split_once('[')?;
            let dimensions: Option<Vec<u32>> =
                dimensions.split("][").map(|count| count.parse().ok()).collect();
            let array = |element, count: &u32| Self::Array(Box::new(element), *count);
            return Some(dimensions?.iter().rev().fold(Self::parse(element)?, array));
        }
        if let Some(target) = text.strip_suffix('*') {
            return Some(Self::Pointer(Box::new(Self::parse(target)?)));
        }
        if let Some(base) = BaseType::parse(text) {
            return Some(Self::Base(base));
        }
        let (union, name) = match text.split_once(' ') {
            Some(("struct", name)) => (false, name),
            Some(("union", name)) => (true, name),
            Some(_) => return None,
            None => (false, text),
        };
        match name.parse() {
            Ok(size) => Some(Self::Unnamed { union, size }),
            Err(_) => name.starts_with('_').then(|| Self::Named { name: name.to_owned(), union }),
        }
    }
}

impl BaseType {
    /// Bytes; 0 for `void`.
    #[must_use]
    pub const fn size(self) -> u32 {
        match self {
            Self::Void => 0,
            Self::Char | Self::UnsignedChar => 1,
            Self::WideChar | Self::Short | Self::UnsignedShort => 2,
            Self::Int | Self::UnsignedInt | Self::Long | Self::UnsignedLong => 4,
            Self::LongLong | Self::UnsignedLongLong | Self::Double => 8,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        use serde::de::IntoDeserializer;
        use serde::de::value::{Error, StrDeserializer};
        let name: StrDeserializer<'_, Error> = text.into_deserializer();
        Self::deserialize(name).ok()
    }
}

fn parse_field(aggregate: &str, (offset, name, text): (u32, String, String)) -> Result<Field, LayoutError> {
    match Type::parse(&text) {
        Some(ty) => Ok(Field { offset, name, ty }),
        None => Err(LayoutError::Type { aggregate: aggregate.to_owned(), field: name, text }),
    }
}

/// `types.toml` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    unnamed: Option<String>,
    pointer_size: Option<u32>,
    /// Structures of the files before this one that the build does not have.
    #[serde(default)]
    without: HashSet<String>,
    #[serde(default, rename = "enum")]
    enumerations: BTreeMap<String, Enumeration>,
    #[serde(default, rename = "struct")]
    structures: BTreeMap<String, Table>,
    #[serde(default, rename = "union")]
    unions: BTreeMap<String, Table>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    size: u32,
    fields: Vec<(u32, String, String)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_written_as_in_c() {
        let base = |base| Type::Base(base);
        assert_eq!(Type::parse("unsigned long long"), Some(base(BaseType::UnsignedLongLong)));
        assert_eq!(Type::parse("void*"), Some(Type::Pointer(Box::new(base(BaseType::Void)))));
        assert_eq!(Type::parse("union 24"), Some(Type::Unnamed { union: true, size: 24 }));
        let bits = Type::Bits { base: BaseType::UnsignedLong, width: 31, bit: 1 };
        assert_eq!(Type::parse("unsigned long:31@1"), Some(bits));
        let rows = Type::Array(Box::new(Type::Array(Box::new(base(BaseType::Char)), 3)), 2);
        assert_eq!(Type::parse("char[2][3]"), Some(rows), "two rows of three");
        assert_eq!(Type::parse("unsigned banana"), None);
        assert_eq!(Type::parse("void*[x]"), None);
    }

    #[test]
    fn a_field_is_found_through_the_structures_around_it() {
        let file = "unnamed = 'x'\n[struct._A]\nsize = 16\nfields = [[0, 'Next', '_A*'], [8, 'u', 'union 8'], \
                    [8, 'u.Flags', 'unsigned long']]\n\
                    [struct._B]\nsize = 24\nfields = [[8, 'Links', '_A']]\n";
        let types = Types::parse(&[file]).unwrap();
        let flags = Type::Base(BaseType::UnsignedLong);
        assert_eq!(types.locate("_B", "Links.u.Flags"), Some((16, &flags)));
        assert_eq!(types.locate("_A", "u.Flags"), Some((8, &flags)));
        assert_eq!(types.locate("_B", "Links.Next.u"), None, "a pointer is not followed");
        assert_eq!(types.locate("_B", "Flags"), None);
    }

    #[test]
    fn a_later_file_replaces_and_drops_structures() {
        let file = "unnamed = 'x'\n[struct._A]\nsize = 8\nfields = [[0, 'Next', 'void*']]\n\
                    [struct._B]\nsize = 8\nfields = [[0, 'Links', '_A']]\n";
        let later = "without = ['_B']\n[struct._A]\nsize = 16\nfields = [[8, 'Next', 'void*']]\n";
        let types = Types::parse(&[file, later]).unwrap();
        assert_eq!((types.locate("_A", "Next").unwrap().0, types.aggregate("_B").is_none()), (8, true));
    }

    #[test]
    fn a_field_that_sticks_out_of_its_structure_is_refused() {
        let file = "unnamed = 'x'\n[struct._A]\nsize = 8\nfields = [[4, 'Next', '_A*']]\n";
        let error = Types::parse(&[file]).unwrap_err();
        assert_eq!(error.to_string(), "_A.Next: ends behind its structure");
        let error = Types::parse(&[&file.replace("_A*", "_B")]).unwrap_err();
        assert_eq!(error.to_string(), "_A.Next: is a structure that is not listed");
    }
}
