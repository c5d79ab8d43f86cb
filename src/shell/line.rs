//! The line grammar: commands separated by `;`, unless quotes protect it.

/// The commands of one line or script file line, trimmed, empty ones left out.
///
/// `*` begins a comment that reaches to the end of the line, as in WinDbg; so does `$$` up to the next `;`.
#[must_use]
pub(super) fn split(text: &str) -> Vec<&str> {
    let mut commands = Vec::new();
    for line in text.lines() {
        let mut start = 0;
        let mut is_quoted = false;
        let mut pieces = Vec::new();
        for (at, character) in line.char_indices() {
            match character {
                '"' => is_quoted = !is_quoted,
                ';' if !is_quoted && !takes_whole_line(&line[start..at]) => {
                    pieces.push(&line[start..at]);
                    start = at + 1;
                }
                _ => {}
            }
        }
        pieces.push(&line[start..]);
        for piece in pieces.into_iter().map(str::trim) {
            if piece.starts_with('*') {
                break;
            }
            if !piece.is_empty() && !piece.starts_with("$$") {
                commands.push(piece);
            }
        }
    }
    commands
}

/// True for commands whose argument has semicolons of its own: a symbol path.
fn takes_whole_line(command: &str) -> bool {
    let name = command.split_whitespace().next().unwrap_or_default();
    WHOLE_LINE.iter().any(|whole| name.eq_ignore_ascii_case(whole))
}

const WHOLE_LINE: [&str; 2] = [".sympath", ".sympath+"];

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn semicolons_separate_unless_quoted() {
        assert_eq!(split("!verifier 3 myfault.sys; g"), ["!verifier 3 myfault.sys", "g"]);
        assert_eq!(split(r#".echo "a; b" ;; q"#), [r#".echo "a; b""#, "q"]);
        assert_eq!(split("lm\n\n  g  \n"), ["lm", "g"]);
        assert_eq!(split("!verifier 3 myfault.sys;"), ["!verifier 3 myfault.sys"]);
        assert_eq!(split(r#";!verifier 3 "my fault.sys"; ;"#), [r#"!verifier 3 "my fault.sys""#]);
    }

    #[test]
    fn a_symbol_path_reaches_to_the_end_of_its_line() {
        assert_eq!(split("lm; .sympath+ /a;srv*/b ; q\ng"), ["lm", ".sympath+ /a;srv*/b ; q", "g"]);
    }

    #[test]
    fn comments_are_left_out() {
        assert_eq!(split("* all of this; g\nlm; $$ why; q"), ["lm", "q"]);
    }
}
