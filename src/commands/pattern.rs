//! String wildcards as WinDbg has them.
//!
//! ```text
//!  *   any text          ?   any character      [a-z]  one of these
//!  #   the character before, any number of times, or none      +  at least once
//! ```

/// A pattern for names, in any case.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    elements: Vec<Element>,
    short: Option<Short>,
    /// Letters that follow each other in every name that fits, in lower case; the longest such.
    word: Box<str>,
}

/// A pattern of up to 127 elements as bits, one for each element: a kernel has forty thousand names.
#[derive(Clone, Debug)]
struct Short {
    /// The elements that take each ASCII character.
    takes: Box<[u128; 0x80]>,
    optional: u128,
    /// Those that may be taken any number of times, or none; and at least once.
    any: u128,
    some: u128,
    /// Behind the last element.
    end: u128,
    /// The only name that fits, where there are no wildcards.
    plain: Option<Box<str>>,
}

impl Short {
    fn of(elements: &[Element]) -> Option<Self> {
        let end = 1_u128.checked_shl(u32::try_from(elements.len()).ok()?)?;
        let bits = |is: &dyn Fn(&Element) -> bool| {
            elements.iter().enumerate().map(|(index, element)| u128::from(is(element)) << index).sum()
        };
        let one = |element: &Element| match element.what {
            What::One(c) if element.is_once() => Some(c),
            _ => None,
        };
        let mut takes = Box::new([0; 0x80]);
        for (c, takes) in (0_u8..).zip(takes.iter_mut()) {
            let c = char::from(c).to_ascii_lowercase();
            *takes = bits(&|element| element.what.takes(c));
        }
        Some(Self {
            takes,
            optional: bits(&|element| element.optional),
            any: bits(&|element| element.optional && element.repeated),
            some: bits(&|element| !element.optional && element.repeated),
            end,
            plain: elements.iter().map(one).collect::<Option<String>>().map(Into::into),
        })
    }

    /// Nothing if the name is not ASCII.
    fn matches(&self, name: &str) -> Option<bool> {
        if !name.is_ascii() {
            return None;
        }
        if let Some(plain) = &self.plain {
            return Some(plain.eq_ignore_ascii_case(name));
        }
        let mut here = self.pass_optional(1);
        for byte in name.bytes() {
            let takes = self.takes[usize::from(byte)];
            let taken = here & takes;
            // It goes on behind what took the character, and stays where that may take another.
            here = self.pass_optional(taken << 1 | taken & self.any | (here >> 1 & takes & self.some) << 1);
            if here == 0 {
                return Some(false);
            }
        }
        Some(here & self.end != 0)
    }

    const fn pass_optional(&self, mut here: u128) -> u128 {
        loop {
            let next = here | (here & self.optional) << 1;
            if next == here {
                return here;
            }
            here = next;
        }
    }
}

#[derive(Clone, Debug)]
struct Element {
    what: What,
    /// Zero times is enough.
    optional: bool,
    /// Any number of times.
    repeated: bool,
}

impl Element {
    const fn is_once(&self) -> bool {
        !self.optional && !self.repeated
    }
}

#[derive(Clone, Debug)]
enum What {
    Any,
    One(char),
    Set(Vec<(char, char)>),
}

impl What {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Any => true,
            Self::One(wanted) => *wanted == c,
            Self::Set(ranges) => ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)),
        }
    }
}

impl Pattern {
    /// Any text is a pattern.
    pub(super) fn new(text: &str) -> Self {
        let mut elements: Vec<Element> = Vec::new();
        let lower = text.to_lowercase();
        let mut chars = lower.chars();
        while let Some(c) = chars.next() {
            let what = match c {
                '*' => {
                    elements.push(Element { what: What::Any, optional: true, repeated: true });
                    continue;
                }
                '#' | '+' if !elements.is_empty() => {
                    if let Some(last) = elements.last_mut() {
                        (last.optional, last.repeated) = (last.optional || c == '#', true);
                    }
                    continue;
                }
                '?' => What::Any,
                '[' if chars.as_str().contains(']') => {
                    let set: Vec<char> = chars.by_ref().take_while(|c| *c != ']').collect();
                    What::Set(ranges(&set))
                }
                other => What::One(other),
            };
            elements.push(Element { what, optional: false, repeated: false });
        }
        Self { short: Short::of(&elements), word: word(&elements), elements }
    }

    /// True if `text` has no wildcard: it means one name.
    pub(super) fn is_plain(text: &str) -> bool {
        !text.contains(['*', '?', '#', '+', '['])
    }

    /// Letters, digits and `_` that follow each other in every name that fits; none where no name has to have any.
    pub(super) fn word(&self) -> Option<&str> {
        Some(&*self.word).filter(|word| !word.is_empty())
    }

    /// True if the whole of `name` fits. Takes time in proportion to both lengths, whatever they are.
    pub(super) fn matches(&self, name: &str) -> bool {
        let short = self.short.as_ref().and_then(|short| short.matches(name));
        short.unwrap_or_else(|| self.matches_slowly(name))
    }

    fn matches_slowly(&self, name: &str) -> bool {
        let len = self.elements.len();
        let mut here = vec![false; len + 1];
        here[0] = true;
        self.pass_optional(&mut here);
        for c in name.chars().flat_map(char::to_lowercase) {
            let mut next = vec![false; len + 1];
            for (index, element) in self.elements.iter().enumerate() {
                if here[index] && element.what.takes(c) {
                    next[index + 1] = true;
                    // It stays where it is, for another one, and has been taken once.
                    next[index] |= element.repeated && element.optional;
                }
                if element.repeated && !element.optional && here[index + 1] && element.what.takes(c) {
                    next[index + 1] = true;
                }
            }
            self.pass_optional(&mut next);
            here = next;
        }
        here[len]
    }

    fn pass_optional(&self, here: &mut [bool]) {
        for (index, element) in self.elements.iter().enumerate() {
            here[index + 1] |= here[index] && element.optional;
        }
    }
}

fn word(elements: &[Element]) -> Box<str> {
    let letter = |element: &Element| match element.what {
        What::One(c) if element.is_once() && (c.is_ascii_alphanumeric() || c == '_') => Some(c),
        _ => None,
    };
    let words = elements.split(|element| letter(element).is_none());
    let longest = words.max_by_key(|word| word.len()).unwrap_or_default();
    longest.iter().filter_map(letter).collect()
}

fn ranges(set: &[char]) -> Vec<(char, char)> {
    let mut ranges = Vec::new();
    let mut rest = set;
    loop {
        match rest {
            [from, '-', to, after @ ..] => {
                ranges.push((*from, *to));
                rest = after;
            }
            [one, after @ ..] => {
                ranges.push((*one, *one));
                rest = after;
            }
            [] => return ranges,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_as_windbgs_does() {
        for (pattern, name) in [
            ("my*", "MyFault"),
            ("*", ""),
            ("m?fault", "myfault"),
            ("*f*t", "myfault"),
            ("NT", "nt"),
            ("Lo#ng", "lng"),
            ("Lo#ng", "looong"),
            ("lo+ng", "loong"),
            ("ke[a-c]ug", "KeBug"),
            ("a**b", "ab"),
            ("[", "["),
            ("#a", "#a"),
            ("_VF_POOL_TRACE", "_vf_pool_trace"),
        ] {
            assert!(Pattern::new(pattern).matches(name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("my", "myfault"),
            ("?", ""),
            ("*x", "myfault"),
            ("", "nt"),
            ("lo+ng", "lng"),
            ("ke[a-c]ug", "kedug"),
        ] {
            assert!(!Pattern::new(pattern).matches(name), "{pattern} {name}");
        }
    }

    #[test]
    fn bits_say_what_the_elements_say() {
        let alphabet = ["a", "B", "b", "*", "?", "#", "+", "[a-b]", "[", "_", "é"];
        let mut random = 12_345_usize;
        let mut next = |below: usize| {
            random = random.wrapping_mul(1_103_515_245).wrapping_add(12_345) & 0x7fff_ffff;
            random / 0x1_0000 % below
        };
        for _ in 0..20_000 {
            let pattern: String = (0..next(8)).map(|_| alphabet[next(alphabet.len())]).collect();
            let name: String = (0..next(8)).map(|_| ["a", "A", "b", "c", "_", "É"][next(6)]).collect();
            let fits = Pattern::new(&pattern);
            assert_eq!(fits.matches(&name), fits.matches_slowly(&name), "{pattern} {name}");
            let has_word = name.to_lowercase().contains(fits.word().unwrap_or_default());
            assert!(has_word || !fits.matches_slowly(&name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_says_what_every_name_that_fits_has() {
        for (pattern, word) in [
            ("*Pool?Verif#x_*", Some("veri")),
            ("*Verif*", Some("verif")),
            ("_x9", Some("_x9")),
            ("*?[a-b]", None),
            ("a#b+", None),
            ("Device::Dis*", Some("device")),
        ] {
            assert_eq!(Pattern::new(pattern).word(), word, "{pattern}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_longer() {
        let pattern = Pattern::new(&"*a#?*".repeat(100));
        assert!(!pattern.matches(&"b".repeat(50)) || pattern.matches(&"a".repeat(500)));
    }
}
