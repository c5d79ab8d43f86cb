//! The words and signs of an expression.

use std::fmt;

use super::tree::{Binary, ExpressionError, Node, Place, Unary};

/// Words and signs before an operand; of several for one operation the first is the one printed.
pub(super) const UNARY: [(&str, Unary); 10] = [
    ("-", Unary::Negate),
    ("~", Unary::Complement),
    ("not", Unary::Not),
    ("hi", Unary::High),
    ("low", Unary::Low),
    ("by", Unary::Byte),
    ("wo", Unary::Word),
    ("dwo", Unary::DoubleWord),
    ("qwo", Unary::QuadWord),
    ("poi", Unary::Pointer),
];

/// Words and signs between operands, a longer sign before those it begins with; of several for one operation the first
/// is the one printed.
pub(super) const BINARY: [(&str, Binary); 22] = [
    (">>>", Binary::ShiftRightSigned),
    ("<<", Binary::ShiftLeft),
    (">>", Binary::ShiftRight),
    ("==", Binary::Equal),
    ("!=", Binary::NotEqual),
    ("<=", Binary::LessOrEqual),
    (">=", Binary::GreaterOrEqual),
    ("=", Binary::Equal),
    ("<", Binary::Less),
    (">", Binary::Greater),
    ("*", Binary::Multiply),
    ("/", Binary::Divide),
    ("%", Binary::Remainder),
    ("+", Binary::Add),
    ("-", Binary::Subtract),
    ("&", Binary::And),
    ("^", Binary::Xor),
    ("|", Binary::Or),
    ("mod", Binary::Remainder),
    ("and", Binary::And),
    ("xor", Binary::Xor),
    ("or", Binary::Or),
];

/// Registers that are meant without `@` too.
const COMMON: [&str; 27] = [
    "eax", "ebx", "ecx", "edx", "esi", "edi", "esp", "ebp", "eip", "rax", "rbx", "rcx", "rdx", "rsi", "rdi",
    "rsp", "rbp", "rip", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "efl",
];

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(value) => write!(f, "{value:#x}"),
            Self::Register(place) => write!(f, "@{}", place.name),
            Self::Pseudo(place) => write!(f, "@${}", place.name),
            Self::Name(place) => write!(f, "@!\"{}\"", place.name),
            Self::Unary(operator, operand, _) => {
                let word = UNARY.iter().find(|(_, known)| known == operator);
                write!(f, "{}({operand})", word.map_or("+", |(word, _)| word))
            }
            Self::Binary(operator, left, right, _) => {
                let sign = BINARY.iter().find(|(_, known)| known == operator);
                write!(f, "({left} {} {right})", sign.map_or("+", |(sign, _)| sign))
            }
        }
    }
}

/// A text and how far it was read.
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub(super) const fn at(&self) -> usize {
        self.at
    }

    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub(super) fn go_back(&mut self, at: usize) {
        self.at = at;
    }

    pub(super) fn skip_spaces(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// Takes `sign` if it comes next.
    pub(super) fn take(&mut self, sign: char) -> bool {
        let found = self.rest().starts_with(sign);
        if found {
            self.at += sign.len_utf8();
        }
        found
    }

    /// The operator before an operand that comes next; `+` does nothing and is passed over.
    pub(super) fn unary(&mut self) -> Option<Unary> {
        self.skip_spaces();
        while self.take('+') {
            self.skip_spaces();
        }
        self.operator(&UNARY)
    }

    /// The operator between operands that comes next.
    pub(super) fn binary(&mut self) -> Option<Binary> {
        self.skip_spaces();
        self.operator(&BINARY)
    }

    fn operator<T: Copy>(&mut self, known: &[(&str, T)]) -> Option<T> {
        let rest = self.rest();
        let comes_next = |(word, _): &&(&str, T)| {
            let found = rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
            let is_word = word.starts_with(|c: char| c.is_ascii_alphabetic());
            found && !(is_word && rest[word.len()..].starts_with(is_name_char))
        };
        let (word, operator) = known.iter().find(comes_next)?;
        self.at += word.len();
        Some(*operator)
    }

    /// A number, a name or a register.
    pub(super) fn operand(&mut self) -> Result<Node, ExpressionError> {
        self.skip_spaces();
        let (start, rest) = (self.at, self.rest());
        if let Some(after) = rest.strip_prefix('@') {
            return self.register(after);
        }
        let is_dot = rest.starts_with('.') && !rest[1..].starts_with(is_name_char);
        if is_dot {
            self.at += 1;
            return Ok(Node::Pseudo(Place { name: "ip".to_owned(), at: start }));
        }
        if let Some(quoted) = rest.strip_prefix('\'') {
            return self.characters(quoted);
        }
        let word = &rest[..word_len(rest)];
        if word.is_empty() {
            return Err(ExpressionError::syntax(rest, "a number, a symbol or a register should stand here"));
        }
        if let Some(name) = word.strip_prefix('$') {
            let node = pseudo_register(rest, name, start)?;
            self.at += word.len();
            return Ok(node);
        }
        self.at += word.len();
        if let Some(number) = number(word) {
            return number.map(Node::Number).map_err(|problem| ExpressionError::syntax(rest, problem));
        }
        if word.starts_with(|c: char| c.is_ascii_digit()) && !word.contains('!') {
            return Err(ExpressionError::syntax(
                rest,
                "digits of a number are hexadecimal; write 0n for decimal",
            ));
        }
        let place = Place { name: word.to_owned(), at: start };
        if COMMON.iter().any(|known| known.eq_ignore_ascii_case(word)) {
            return Ok(Node::Register(Place { name: word.to_ascii_lowercase(), at: start }));
        }
        Ok(Node::Name(place))
    }

    /// The number that characters in single quotes are, of which this follows the first quote.
    fn characters(&mut self, quoted: &str) -> Result<Node, ExpressionError> {
        let inside = quoted.split_once('\'').map(|(inside, _)| inside);
        let inside = inside.filter(|inside| (1..=8).contains(&inside.len()) && inside.is_ascii());
        let Some(inside) = inside else {
            let problem = "1 to 8 characters should stand between single quotes";
            return Err(ExpressionError::syntax(self.rest(), problem));
        };
        self.at += inside.len() + 2;
        Ok(Node::Number(inside.bytes().fold(0, |value, byte| value << 8 | u64::from(byte))))
    }

    /// What follows an `@`.
    fn register(&mut self, after: &'a str) -> Result<Node, ExpressionError> {
        let (start, rest) = (self.at, self.rest());
        if let Some(quoted) = after.strip_prefix("!\"") {
            let Some((name, _)) = quoted.split_once('"').filter(|(name, _)| !name.is_empty()) else {
                return Err(ExpressionError::syntax(rest, "a name in quotes should end with a quote"));
            };
            self.at += "@!\"\"".len() + name.len();
            return Ok(Node::Name(Place { name: name.to_owned(), at: start }));
        }
        if after.starts_with('@') {
            return Err(ExpressionError::syntax(rest, "C++ expressions are not read; MASM expressions are"));
        }
        if let Some(name) = after.strip_prefix('$') {
            let name = &name[..name.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(name.len())];
            let node = pseudo_register(rest, name, start)?;
            self.at += "@$".len() + name.len();
            return Ok(node);
        }
        let name = &after[..after.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(after.len())];
        if name.is_empty() {
            return Err(ExpressionError::syntax(rest, "the name of a register should follow @"));
        }
        self.at += 1 + name.len();
        Ok(Node::Register(Place { name: name.to_ascii_lowercase(), at: start }))
    }
}

/// The debugger's own registers; `t0` to `t19` beside them.
const PSEUDO: [&str; 6] = ["ip", "csp", "retreg", "p", "ptrsize", "pagesize"];

fn pseudo_register(rest: &str, name: &str, at: usize) -> Result<Node, ExpressionError> {
    let lower = name.to_ascii_lowercase();
    let is_user_s =
        lower.strip_prefix('t').and_then(|number| number.parse::<u8>().ok()).is_some_and(|it| it < 20);
    if PSEUDO.contains(&lower.as_str()) || is_user_s {
        return Ok(Node::Pseudo(Place { name: lower, at }));
    }
    let problem = format!(
        "the pseudo-register ${name} is not known here; ${}, $t0 to $t19 are, and registers such as @rip",
        PSEUDO.join(", $")
    );
    Err(ExpressionError::syntax(rest, problem))
}

const fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '`')
}

/// Bytes of the number or name that `text` begins with.
fn word_len(text: &str) -> usize {
    let mut len = 0;
    let mut is_decorated = false;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let next = chars.peek().map(|(_, next)| *next);
        let belongs = match c {
            '!' => len > 0 && next.is_some_and(|next| is_name_char(next) || next == '?'),
            '?' => is_decorated || text[..at].ends_with('!'),
            '@' => is_decorated,
            ':' => len > 0 && (next == Some(':') || text[..at].ends_with(':')),
            '~' => text[..at].ends_with("::"),
            _ => is_name_char(c) || !c.is_ascii() && c.is_alphanumeric(),
        };
        if !belongs {
            break;
        }
        is_decorated |= c == '?';
        len = at + c.len_utf8();
    }
    len
}

/// The number that `word` is; nothing if it is none.
fn number(word: &str) -> Option<Result<u64, &'static str>> {
    let prefix = word.get(..2).map(str::to_ascii_lowercase);
    let (digits, radix) = match prefix.as_deref() {
        Some("0x") => (&word[2..], 16),
        Some("0n") => (&word[2..], 10),
        Some("0t") => (&word[2..], 8),
        Some("0y") => (&word[2..], 2),
        _ => (word.strip_suffix(['h', 'H']).filter(|digits| !digits.is_empty()).unwrap_or(word), 16),
    };
    let is_digit = |c: char| c.is_digit(radix) || c == '`';
    if !digits.starts_with(|c: char| c.is_digit(radix)) || !digits.chars().all(is_digit) {
        return None;
    }
    let whole: String = digits.chars().filter(|c| *c != '`').collect();
    let is_split_right = match digits.split_once('`') {
        Some((_, lower)) => radix == 16 && lower.len() == 8 && !lower.contains('`'),
        None => true,
    };
    if !is_split_right {
        return Some(Err("a backtick stands before the last eight digits of an address only"));
    }
    Some(u64::from_str_radix(&whole, radix).map_err(|_| "a number has at most 64 bits"))
}
