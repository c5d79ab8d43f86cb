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
}

#[derive(Clone, Debug)]
struct Element {
    what: What,
    /// Zero times is enough.
    optional: bool,
    /// Any number of times.
    repeated: bool,
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
        Self { elements }
    }

    /// True if `text` has no wildcard: it means one name.
    pub(super) fn is_plain(text: &str) -> bool {
        !text.contains(['*', '?', '#', '+', '['])
    }

    /// True if the whole of `name` fits. Takes time in proportion to both lengths, whatever they are.
    pub(super) fn matches(&self, name: &str) -> bool {
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
    fn a_hostile_pattern_takes_no_longer() {
        let pattern = Pattern::new(&"*a#?*".repeat(100));
        assert!(!pattern.matches(&"b".repeat(50)) || pattern.matches(&"a".repeat(500)));
    }
}
