//! Long rows on a narrow terminal: broken between words, which a terminal itself does not heed.

/// Columns to which a tab leads on.
const TAB: usize = 8;
/// How much further to the right a row goes on.
const FURTHER: usize = 4;
/// A terminal that says it is narrower is not believed.
const NARROWEST: usize = 20;

/// A text whose rows have at most `columns` characters, as far as they have blanks to be broken at. A row goes on a little to the right
/// of where it began. JSON stays as it is.
pub fn wrapped(text: &str, columns: usize) -> String {
    let columns = columns.max(NARROWEST);
    let mut out = String::with_capacity(text.len());
    for row in text.split_inclusive('\n') {
        let (row, end) = row.strip_suffix('\n').map_or((row, ""), |row| (row, "\n"));
        if row.starts_with('{') || row.len() <= columns && !row.contains('\t') {
            out.push_str(row);
        } else {
            wrap_row(row, columns, &mut out);
        }
        out.push_str(end);
    }
    out
}

fn wrap_row(row: &str, columns: usize, out: &mut String) {
    let text = row.trim_start_matches([' ', '\t']);
    let lead = &row[..row.len() - text.len()];
    out.push_str(lead);
    let mut at = lead.chars().fold(0, behind);
    let indent = (at + FURTHER).min(columns / 2);
    let mut rest = text;
    while !rest.is_empty() {
        // A word, and the blanks that lead to the next.
        let word = rest.find([' ', '\t']).map_or(rest, |end| &rest[..end]);
        let blanks = rest[word.len()..].len() - rest[word.len()..].trim_start_matches([' ', '\t']).len();
        let blanks = &rest[word.len()..word.len() + blanks];
        out.push_str(word);
        at = word.chars().fold(at, behind);
        rest = &rest[word.len() + blanks.len()..];
        let next = rest.find([' ', '\t']).map_or(rest, |end| &rest[..end]);
        let there = blanks.chars().fold(at, behind);
        if next.chars().fold(there, behind) <= columns || next.is_empty() || at <= indent {
            out.push_str(blanks);
            at = there;
        } else {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent));
            at = indent;
        }
    }
}

/// The column behind a character.
const fn behind(at: usize, character: char) -> usize {
    match character {
        '\t' => (at / TAB + 1) * TAB,
        _ => at + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_broken_between_words() {
        for (text, expected) in [
            ("short\n", "short\n"),
            ("one two three four five six\n", "one two three four\n    five six\n"),
            ("  one two three four five\nsix", "  one two three four\n      five\nsix"),
            ("a_word_that_has_no_blanks_in_it and more\n", "a_word_that_has_no_blanks_in_it\n    and more\n"),
            ("columns  stay   as   they     are\n", "columns  stay   as\n    they     are\n"),
            ("a\tb\tc d\n", "a\tb\tc d\n"),
            (
                "{\"a\": \"json has its blanks for itself\"}\n",
                "{\"a\": \"json has its blanks for itself\"}\n",
            ),
            ("\n\n", "\n\n"),
            ("", ""),
        ] {
            assert_eq!(wrapped(text, 20), expected, "{text:?}");
        }
    }

    #[test]
    fn no_word_is_lost_or_cut_whatever_the_width() {
        let text = "  ** \u{e9}t\u{e9}  fffff880`0447d62e 4c 65\tx ** trailing   \n\tnext row, which is as long as it is\n";
        for columns in 0..90 {
            let shown = wrapped(text, columns);
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(words(&shown), words(text), "{columns}");
            let widest = |text: &str| text.lines().map(|row| row.chars().fold(0, behind)).max();
            assert!(
                columns < 40 || widest(shown.replace("   \n", "\n").as_str()) <= Some(columns),
                "{columns}:\n{shown}"
            );
        }
    }
}
