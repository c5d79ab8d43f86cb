//! The value of an expression in a target.

use super::tree::{Binary, ExpressionCause, ExpressionError, Node, Place, Unary};
use crate::target::{Target, TargetError, VirtAddr, pseudo_register};

pub(super) fn value(node: &Node, text: &str, target: &Target<'_>) -> Result<u64, ExpressionError> {
    match node {
        Node::Number(value) => Ok(*value),
        Node::Register(place) => register(place, text, target),
        Node::Pseudo(place) => pseudo(place, text, target),
        Node::Name(place) => {
            let address = target.resolve(&place.name);
            address.map(|address| address.0).map_err(|error| failed(text, place.at, error))
        }
        Node::Unary(operator, operand, at) => {
            let operand = value(operand, text, target)?;
            let value = unary(*operator, operand, target).map_err(|error| failed(text, *at, error))?;
            Ok(if is_narrow(operand, target) && *operator != Unary::QuadWord { low(value) } else { value })
        }
        Node::Binary(operator, left, right, at) => {
            let (left, right) = (value(left, text, target)?, value(right, text, target)?);
            let divided = || ExpressionError::new(rest(text, *at), ExpressionCause::DivisionByZero);
            let is_narrow = is_narrow(left, target) && is_narrow(right, target);
            let left = if is_narrow && *operator == Binary::ShiftRightSigned { signed(left) } else { left };
            let value = binary(*operator, left, right).ok_or_else(divided)?;
            Ok(if is_narrow { low(value) } else { value })
        }
    }
}

fn register(place: &Place, text: &str, target: &Target<'_>) -> Result<u64, ExpressionError> {
    let registers = target.registers().map_err(|error| failed(text, place.at, error))?;
    let found = registers.get(&place.name).map(|register| register.value);
    found.ok_or_else(|| ExpressionError::syntax(rest(text, place.at), "no register has this name"))
}

/// The value of a register of the debugger's own.
fn pseudo(place: &Place, text: &str, target: &Target<'_>) -> Result<u64, ExpressionError> {
    if let Some(real) = pseudo_register(target.kernel().version().machine, &place.name) {
        return register(&Place { name: real.to_owned(), at: place.at }, text, target);
    }
    match place.name.as_str() {
        "ptrsize" => Ok(target.pointer_size() as u64),
        "pagesize" => Ok(0x1000),
        "p" => {
            let shown = target.kernel().display_position().and_then(|position| position.value);
            let missing =
                || ExpressionError::syntax(rest(text, place.at), "no d command has shown a value yet");
            shown.ok_or_else(missing)
        }
        // Nothing here sets them, and unset ones are 0.
        _ => Ok(0),
    }
}

/// True for a value that has 32 bits on a 32-bit target.
const fn is_narrow(value: u64, target: &Target<'_>) -> bool {
    target.pointer_size() == 4 && value >> 32 == 0
}

const fn low(value: u64) -> u64 {
    value & 0xffff_ffff
}

/// A value of 32 bits as one of 64 with the same sign.
const fn signed(value: u64) -> u64 {
    value as u32 as i32 as i64 as u64
}

fn unary(operator: Unary, operand: u64, target: &Target<'_>) -> Result<u64, TargetError> {
    let size = match operator {
        Unary::Negate => return Ok(operand.wrapping_neg()),
        Unary::Complement => return Ok(!operand),
        Unary::Not => return Ok(u64::from(operand == 0)),
        Unary::High => return Ok(operand >> 16 & 0xffff),
        Unary::Low => return Ok(operand & 0xffff),
        Unary::Byte => 1,
        Unary::Word => 2,
        Unary::DoubleWord => 4,
        Unary::QuadWord => 8,
        Unary::Pointer => target.pointer_size(),
    };
    let mut word = [0; 8];
    let read = target.memory().read_virtual(VirtAddr(operand), &mut word[..size]);
    read.map_err(|error| TargetError::read("the value at an address", error))?;
    Ok(u64::from_le_bytes(word))
}

/// Nothing if it divides by zero.
fn binary(operator: Binary, left: u64, right: u64) -> Option<u64> {
    let shift = u32::try_from(right).unwrap_or(u32::MAX);
    Some(match operator {
        Binary::Multiply => left.wrapping_mul(right),
        Binary::Divide => return left.checked_div(right),
        Binary::Remainder => return left.checked_rem(right),
        Binary::Add => left.wrapping_add(right),
        Binary::Subtract => left.wrapping_sub(right),
        Binary::ShiftLeft => left.checked_shl(shift).unwrap_or(0),
        Binary::ShiftRight => left.checked_shr(shift).unwrap_or(0),
        Binary::ShiftRightSigned => (left as i64 >> shift.min(63)) as u64,
        Binary::Equal => u64::from(left == right),
        Binary::NotEqual => u64::from(left != right),
        Binary::Less => u64::from(left < right),
        Binary::Greater => u64::from(left > right),
        Binary::LessOrEqual => u64::from(left <= right),
        Binary::GreaterOrEqual => u64::from(left >= right),
        Binary::And => left & right,
        Binary::Xor => left ^ right,
        Binary::Or => left | right,
    })
}

fn failed(text: &str, at: usize, error: TargetError) -> ExpressionError {
    ExpressionError::new(rest(text, at), ExpressionCause::Target(error))
}

fn rest(text: &str, at: usize) -> &str {
    text.get(at..).unwrap_or_default()
}
