//! A structure's fields with their values, as plain data.

use serde::{Serialize, Serializer};

use super::types;
use crate::commands::pattern::Pattern;
use crate::output::TargetText;
use crate::target::{BaseKind, Bits, Field, Layout, Note, NoteCode, SparseBytes, Target, Type, VirtAddr};

/// Most fields of one answer: a list of lists has no end.
const MAX_FIELDS: usize = 0x4000;
/// Most bytes of one text.
const MAX_TEXT: u64 = 0x1000;

/// One field.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub(super) struct FieldView {
    /// Bytes from the start of its structure.
    pub(super) offset: u64,
    pub(super) name: TargetText,
    /// As WinDbg writes it: `Ptr64 _KTHREAD`.
    #[serde(rename = "type", serialize_with = "types::name")]
    #[schemars(with = "String")]
    pub(super) ty: Type,
    /// Position and length, if it is a bit field.
    #[serde(serialize_with = "position_and_length")]
    #[schemars(with = "Option<[u8; 2]>")]
    pub(super) bits: Option<Bits>,
    /// Nothing without an address, and for structures that have no short form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<Value>,
    /// Its own fields, if they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) fields: Vec<Self>,
}

/// What a field holds.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Value {
    /// Its bytes cannot be read.
    Unreadable { is_pointer: bool },
    /// An unsigned number.
    Unsigned {
        #[serde(serialize_with = "hex")]
        #[schemars(with = "crate::output::Hex")]
        value: u64,
    },
    /// A signed number.
    Signed { value: i64 },
    /// A wide character, or a boolean.
    Character { value: u64 },
    /// A number with a fraction.
    Float { value: f64 },
    /// Some bits of a word.
    Bits {
        #[serde(serialize_with = "hex")]
        #[schemars(with = "crate::output::Hex")]
        value: u64,
        #[serde(skip)]
        length: u8,
    },
    /// A constant of an enumeration; its name if it has one.
    Constant { value: u64, name: Option<TargetText> },
    /// An address, and what lies there if it is code or has a short form.
    Pointer {
        #[serde(serialize_with = "hex")]
        #[schemars(with = "crate::output::Hex")]
        address: u64,
        symbol: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        to: Option<Box<Self>>,
        #[serde(skip)]
        pointee: Option<usize>,
    },
    /// The links of a list.
    List {
        #[serde(serialize_with = "hex")]
        #[schemars(with = "crate::output::Hex")]
        flink: u64,
        #[serde(serialize_with = "hex")]
        #[schemars(with = "crate::output::Hex")]
        blink: u64,
    },
    /// A `_LARGE_INTEGER`.
    Large {
        #[serde(serialize_with = "hex")]
        #[schemars(with = "crate::output::Hex")]
        value: u64,
    },
    /// A text; nothing if it cannot be read.
    Text {
        text: Option<TargetText>,
        #[serde(skip)]
        buffer: u64,
        #[serde(skip)]
        len: u64,
        #[serde(skip)]
        unit: u64,
    },
}

fn hex<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{value:#x}"))
}

fn position_and_length<S: Serializer>(bits: &Option<Bits>, serializer: S) -> Result<S::Ok, S::Error> {
    bits.map(|bits| [bits.position, bits.length]).serialize(serializer)
}

/// Where a structure lies: its address, bytes that hold it, and where in them it begins.
type At<'a> = (VirtAddr, &'a SparseBytes, usize);

/// Builds one answer, within bounds.
pub(super) struct Builder<'a> {
    target: &'a Target<'a>,
    count: usize,
    /// Structures with a short form that pointers lead to: what and where.
    pointees: Vec<(Layout, VirtAddr)>,
}

impl<'a> Builder<'a> {
    pub(super) const fn new(target: &'a Target<'a>) -> Self {
        Self { target, count: 0, pointees: Vec::new() }
    }

    /// The fields of `layout` that `paths` choose, all if there are none.
    pub(super) fn fields(
        &mut self,
        layout: &Layout,
        at: Option<At<'_>>,
        paths: &[Vec<&str>],
        depth: u32,
    ) -> Vec<FieldView> {
        let mut views = Vec::new();
        for field in layout.fields() {
            let chosen = |path: &&Vec<&str>| Pattern::new(path.first().unwrap_or(&"*")).matches(&field.name);
            let mine: Vec<Vec<&str>> = paths.iter().filter(chosen).map(|path| path[1..].to_vec()).collect();
            if mine.is_empty() && !paths.is_empty() {
                continue;
            }
            if self.count == MAX_FIELDS {
                break;
            }
            self.count += 1;
            let inner: Vec<Vec<&str>> = mine.into_iter().filter(|path| !path.is_empty()).collect();
            views.push(self.field(layout, field, at, &inner, depth));
        }
        views
    }

    fn field(
        &mut self,
        layout: &Layout,
        field: &Field,
        at: Option<At<'_>>,
        inner: &[Vec<&str>],
        depth: u32,
    ) -> FieldView {
        let place = at.map(|(address, bytes, start)| {
            (address.offset(field.offset), bytes, start.saturating_add(field.offset as usize))
        });
        let mut value = place.and_then(|place| self.value(layout, field, place));
        self.note_pointee(layout, &field.ty, value.as_mut());
        let mut fields = Vec::new();
        if depth > 0 || !inner.is_empty() {
            // `Pcb.` asks for all fields of Pcb.
            let is_whole = inner.iter().any(|path| path == &[""]);
            let paths = if is_whole { &[] } else { inner };
            let depth = depth.saturating_sub(1);
            fields = self.nested(layout, &field.ty, place, value.as_ref(), paths, depth);
        }
        FieldView {
            offset: field.offset,
            name: (&*field.name).into(),
            ty: field.ty.clone(),
            bits: field.bits,
            value,
            fields,
        }
    }

    /// Remembers to look at what a pointer leads to, if that has a short form.
    fn note_pointee(&mut self, layout: &Layout, ty: &Type, value: Option<&mut Value>) {
        let (Type::Pointer { to, .. }, Some(Value::Pointer { address: address @ 1.., pointee, .. })) =
            (ty, value)
        else {
            return;
        };
        let short = layout.of_type(to).ok().flatten().filter(|inner| SHORT_FORMS.contains(&&**inner.name()));
        if let Some(inner) = short {
            *pointee = Some(self.pointees.len());
            self.pointees.push((inner, VirtAddr(*address)));
        }
    }

    /// The fields of the structure that a field is, or that it points to.
    fn nested(
        &mut self,
        layout: &Layout,
        ty: &Type,
        place: Option<At<'_>>,
        value: Option<&Value>,
        paths: &[Vec<&str>],
        depth: u32,
    ) -> Vec<FieldView> {
        let pointee = match ty {
            Type::Pointer { to, .. } => to,
            ty => {
                let Ok(Some(inner)) = layout.of_type(ty) else { return Vec::new() };
                return self.fields(&inner, place, paths, depth);
            }
        };
        let Ok(Some(inner)) = layout.of_type(pointee) else { return Vec::new() };
        match value {
            None => self.fields(&inner, None, paths, depth),
            Some(Value::Pointer { address: 1.., .. }) if self.count == MAX_FIELDS => Vec::new(),
            Some(Value::Pointer { address: address @ 1.., .. }) => {
                let address = VirtAddr(*address);
                let bytes = self.target.read_sparse(address, inner.size());
                self.fields(&inner, Some((address, &bytes, 0)), paths, depth)
            }
            Some(_) => Vec::new(),
        }
    }

    fn value(&self, layout: &Layout, field: &Field, (address, bytes, start): At<'_>) -> Option<Value> {
        let uint = |size: u64| bytes.uint(start, usize::try_from(size).ok()?);
        if let Some(Bits { position, length }) = field.bits {
            let mask = if length >= 64 { u64::MAX } else { (1 << length) - 1 };
            let Some(word) = uint(field.ty.size()) else {
                return Some(Value::Unreadable { is_pointer: false });
            };
            let value = word.checked_shr(position.into()).unwrap_or(0) & mask;
            return Some(Value::Bits { value, length });
        }
        self.value_of(layout, &field.ty, (address, bytes, start))
    }

    fn value_of(&self, layout: &Layout, ty: &Type, (address, bytes, start): At<'_>) -> Option<Value> {
        let size = ty.size();
        let word = || bytes.uint(start, usize::try_from(size).ok()?);
        let unreadable = Value::Unreadable { is_pointer: matches!(ty, Type::Pointer { .. }) };
        Some(match ty {
            Type::Base { size: 0 | 9.., .. } | Type::Function | Type::Unknown => return None,
            Type::Base { kind, .. } => word().map_or(unreadable, |value| number(*kind, value, size)),
            Type::Enum { name, .. } => word().map_or(unreadable, |value| {
                let mask = if size >= 8 { u64::MAX } else { (1 << (8 * size)) - 1 };
                let constants = layout.constants(name);
                let named =
                    constants.iter().flat_map(|all| all.iter()).find(|known| known.value & mask == value);
                Value::Constant { value, name: named.map(|known| (&*known.name).into()) }
            }),
            Type::Pointer { to, .. } => word().map_or(unreadable, |value| {
                let symbol =
                    (**to == Type::Function && value != 0).then(|| self.code_at(VirtAddr(value))).flatten();
                Value::Pointer { address: value, symbol, to: None, pointee: None }
            }),
            Type::Array { element, count, .. } => {
                return self.array(layout, element, *count, (address, bytes, start));
            }
            Type::Record { .. } => return short_form(&layout.of_type(ty).ok()??, bytes, start),
        })
    }

    /// The text in an array of characters, or the first element of another.
    fn array(&self, layout: &Layout, element: &Type, count: u64, at: At<'_>) -> Option<Value> {
        let unit = match element {
            Type::Base { kind: BaseKind::Character, size } => *size,
            Type::Base { kind: BaseKind::Unsigned | BaseKind::Signed, size: 1 } => 1,
            Type::Record { .. } => return None,
            element => return if count == 0 { None } else { self.value_of(layout, element, at) },
        };
        let len = count.saturating_mul(unit).min(MAX_TEXT);
        let (_, bytes, start) = at;
        let text = bytes
            .get(start..start.saturating_add(len as usize))
            .map(|bytes| decode(bytes, unit, true).into());
        Some(Value::Text { text, buffer: 0, len: 0, unit })
    }

    /// `myfault!Dispatch+0`, as WinDbg writes what a pointer to code points to.
    fn code_at(&self, address: VirtAddr) -> Option<String> {
        let at = self.target.symbol_at(address);
        let Some(module) = at.module.clone() else {
            return at.is_named().then(|| at.to_string());
        };
        let name = at.symbol.map_or_else(
            || module.to_string(),
            |symbol| format!("{module}!{}", crate::output::Escaped(&symbol)),
        );
        Some(format!("{name}+{:x}", at.displacement))
    }

    /// Reads what the fields point to and show, neighbours together, and says what was left out.
    pub(super) fn finish(&self, summary: &mut Option<Value>, fields: &mut [FieldView]) {
        let places: Vec<_> = self.pointees.iter().map(|(layout, at)| (*at, layout.size())).collect();
        let read = self.target.read_ranges(&places);
        let short = |((layout, _), bytes): (&(Layout, VirtAddr), _)| {
            let bytes: Vec<u8> = Result::ok(bytes)?;
            short_form(layout, &SparseBytes::from(bytes), 0)
        };
        let pointees: Vec<Option<Value>> = self.pointees.iter().zip(read).map(short).collect();
        visit(fields, &mut |value| {
            if let Value::Pointer { to, pointee: Some(index), .. } = value {
                *to = pointees.get(*index).cloned().flatten().map(Box::new);
            }
        });
        let mut ranges = Vec::new();
        let mut note = |value: &mut Value| {
            if let Value::Text { buffer: buffer @ 1.., len, .. } = value {
                ranges.push((VirtAddr(*buffer), *len as usize));
            }
        };
        summary.iter_mut().for_each(&mut note);
        visit(fields, &mut note);
        let mut answers = self.target.read_ranges(&ranges).into_iter();
        let mut fill = |value: &mut Value| {
            if let Value::Text { text, buffer: 1.., unit, .. } = value {
                let bytes = answers.next().and_then(Result::ok);
                *text = bytes.map(|bytes| decode(&bytes, *unit, false).into());
            }
        };
        summary.iter_mut().for_each(&mut fill);
        visit(fields, &mut fill);
        if self.count == MAX_FIELDS {
            let text = format!("Only the first {MAX_FIELDS:#x} fields are shown");
            self.target.note(Note::partial(NoteCode::Limit, text));
        }
    }
}

fn visit(fields: &mut [FieldView], see: &mut dyn FnMut(&mut Value)) {
    for field in fields {
        if let Some(value) = &mut field.value {
            see(value);
            if let Value::Pointer { to: Some(to), .. } = value {
                see(to);
            }
        }
        visit(&mut field.fields, see);
    }
}

fn number(kind: BaseKind, value: u64, size: u64) -> Value {
    let unused = 64 - 8 * size as u32;
    match kind {
        BaseKind::Signed => Value::Signed { value: (value << unused) as i64 >> unused },
        BaseKind::Character if size == 1 => Value::Signed { value: (value << unused) as i64 >> unused },
        BaseKind::Character => Value::Character { value },
        BaseKind::Float if size == 4 => Value::Float { value: f32::from_bits(value as u32).into() },
        BaseKind::Float if size == 8 => Value::Float { value: f64::from_bits(value) },
        _ => Value::Unsigned { value },
    }
}

/// The structures that WinDbg shows in short.
const SHORT_FORMS: [&str; 5] =
    ["_LIST_ENTRY", "_LARGE_INTEGER", "_ULARGE_INTEGER", "_UNICODE_STRING", "_STRING"];

/// The short form of the structure that begins at `start` of `bytes`, if it has one and can be read.
pub(super) fn short_form(layout: &Layout, bytes: &SparseBytes, start: usize) -> Option<Value> {
    let name = &**layout.name();
    let field = |path: &str| {
        let place = layout.place(path).ok()?;
        bytes.uint(start.saturating_add(place.offset as usize), usize::try_from(place.ty.size()).ok()?)
    };
    match name {
        "_LIST_ENTRY" => Some(Value::List { flink: field("Flink")?, blink: field("Blink")? }),
        "_LARGE_INTEGER" | "_ULARGE_INTEGER" => Some(Value::Large { value: field("QuadPart")? }),
        "_UNICODE_STRING" | "_STRING" => {
            let unit = if name == "_STRING" { 1 } else { 2 };
            let (len, buffer) = (field("Length")?.min(MAX_TEXT), field("Buffer")?);
            let text = (len == 0).then(TargetText::default);
            let buffer = if len == 0 { 0 } else { buffer };
            Some(Value::Text { text, buffer, len, unit })
        }
        _ => None,
    }
}

/// Characters of `unit` bytes; up to the first 0 if one ends the text.
fn decode(bytes: &[u8], unit: u64, ends_at_zero: bool) -> String {
    let units: Vec<u16> = if unit == 2 {
        bytes.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect()
    } else {
        bytes.iter().map(|byte| u16::from(*byte)).collect()
    };
    let end = units.iter().position(|unit| *unit == 0).filter(|_| ends_at_zero).unwrap_or(units.len());
    let decoded = char::decode_utf16(units[..end].iter().copied());
    decoded.map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

/// True if every field begins where the others do: no symbol file says so otherwise.
pub(super) fn is_union(layout: &Layout) -> bool {
    let fields = layout.fields();
    let is_whole = |field: &Field| field.offset == 0 && field.bits.is_none();
    fields.len() > 1 && fields.iter().all(|field| field.offset == 0) && fields.iter().any(is_whole)
}
