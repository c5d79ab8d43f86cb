//! Words in a long text, in any case.

/// Letters, digits and `_` that are looked for.
#[derive(Clone, Debug)]
pub(super) struct Word<'a> {
    text: &'a [u8],
    /// Where in it the letter is that names have least often, and that letter in both cases.
    rare: usize,
    letters: [u8; 2],
}

impl<'a> Word<'a> {
    /// From the letters least often met in names of a kernel to those most often.
    const BY_RARITY: &'static [u8] = b"qzj9876543x2kyw0v1hgubf_mpdclsnoarite";

    /// Nothing if there is no letter in `text`.
    pub(super) fn new(text: &'a str) -> Option<Self> {
        let rarity = |byte: &u8| Self::BY_RARITY.iter().position(|other| *other == byte.to_ascii_lowercase());
        let (rare, byte) = text.bytes().enumerate().min_by_key(|(_, byte)| rarity(byte))?;
        let letters = [byte.to_ascii_lowercase(), byte.to_ascii_uppercase()];
        Some(Self { text: text.as_bytes(), rare, letters })
    }

    /// Where it begins in `bytes`, in order.
    pub(super) fn places(&self, bytes: &[u8]) -> impl Iterator<Item = usize> {
        memchr::memchr2_iter(self.letters[0], self.letters[1], bytes).filter_map(|at| {
            let start = at.checked_sub(self.rare)?;
            let found = bytes.get(start..)?.get(..self.text.len())?;
            found.eq_ignore_ascii_case(self.text).then_some(start)
        })
    }

    pub(super) const fn len(&self) -> usize {
        self.text.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_found_wherever_it_begins_in_any_case() {
        let places = |word: &str, text: &str| {
            Word::new(word).map(|word| word.places(text.as_bytes()).collect::<Vec<_>>())
        };
        assert_eq!(places("verif", "VerifyMmVERIFvverif"), Some(vec![0, 8, 14]));
        assert_eq!(places("aa", "AaaA"), Some(vec![0, 1, 2]));
        assert_eq!(places("Verifier", "Verif"), Some(vec![]));
        assert_eq!(places("::", "a::b"), Some(vec![1]));
        assert_eq!(places("", "a"), None);
    }
}
