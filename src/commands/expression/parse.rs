//! Reading an expression: operators by how much they bind, bounded in depth and length.

use super::scan::Scanner;
use super::tree::{Binary, ExpressionError, Node};

/// Deepest nesting of parentheses and operators before an operand.
const MAX_DEPTH: usize = 64;
/// Most operators between operands.
const MAX_OPERATORS: usize = 256;

/// The expression that `text` begins with, and what follows it.
pub(super) fn prefix(text: &str) -> Result<(Node, &str), ExpressionError> {
    let mut parser = Parser { scanner: Scanner::new(text), operators: 0 };
    let node = parser.expression(LOOSEST, 0)?;
    let rest = parser.scanner.rest();
    Ok((node, rest))
}

struct Parser<'a> {
    scanner: Scanner<'a>,
    operators: usize,
}

const LOOSEST: u8 = 0;

/// How much an operator binds.
const fn strength(operator: Binary) -> u8 {
    match operator {
        Binary::Multiply | Binary::Divide | Binary::Remainder => 7,
        Binary::Add | Binary::Subtract => 6,
        Binary::ShiftLeft | Binary::ShiftRight | Binary::ShiftRightSigned => 5,
        Binary::Equal
        | Binary::NotEqual
        | Binary::Less
        | Binary::Greater
        | Binary::LessOrEqual
        | Binary::GreaterOrEqual => 4,
        Binary::And => 3,
        Binary::Xor => 2,
        Binary::Or => 1,
    }
}

impl Parser<'_> {
    /// Operands joined by operators that bind more than `outer` does.
    fn expression(&mut self, outer: u8, depth: usize) -> Result<Node, ExpressionError> {
        let mut left = self.operand(depth)?;
        loop {
            let before = self.scanner.at();
            let Some(operator) = self.scanner.binary().filter(|operator| strength(*operator) > outer) else {
                self.scanner.go_back(before);
                return Ok(left);
            };
            self.operators += 1;
            if self.operators > MAX_OPERATORS {
                return Err(ExpressionError::syntax(self.scanner.rest(), "the expression is too long"));
            }
            let at = self.scanner.at();
            let right = self.expression(strength(operator), depth)?;
            left = Node::Binary(operator, Box::new(left), Box::new(right), at);
        }
    }

    fn operand(&mut self, depth: usize) -> Result<Node, ExpressionError> {
        if depth == MAX_DEPTH {
            return Err(ExpressionError::syntax(self.scanner.rest(), "the expression is nested too deeply"));
        }
        if let Some(operator) = self.scanner.unary() {
            let at = self.scanner.at();
            return Ok(Node::Unary(operator, Box::new(self.operand(depth + 1)?), at));
        }
        if !self.scanner.take('(') {
            return self.scanner.operand();
        }
        let inside = self.expression(LOOSEST, depth + 1)?;
        self.scanner.skip_spaces();
        if self.scanner.take(')') {
            return Ok(inside);
        }
        Err(ExpressionError::syntax(self.scanner.rest(), "a closing parenthesis should stand here"))
    }
}
