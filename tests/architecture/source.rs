//! Rust sources as tokens, and the paths in them.

use std::path::{Path, PathBuf};

/// A source file as tokens, without comments and texts.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) tokens: Vec<Token>,
}

pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

impl Source {
    pub(crate) fn new(path: String, text: &str) -> Self {
        Self { path, tokens: tokens(text) }
    }

    /// The module path of the file: `src/symbols/pdb/mod.rs` is `symbols`, `pdb`.
    pub(crate) fn modules(&self) -> Vec<&str> {
        let (_, inside) = self.path.split_once("src/").expect("a source file lies in src");
        let mut modules: Vec<&str> = inside.trim_end_matches(".rs").split('/').collect();
        modules.pop_if(|last| ["mod", "lib", "main"].contains(last));
        modules
    }

    /// The top-level module that the file belongs to; the program's own are `main`. None for `lib.rs`.
    pub(crate) fn room(&self) -> Option<&str> {
        match self.modules().first() {
            None if self.path.ends_with("lib.rs") => None,
            None | Some(&"cli") => Some("main"),
            Some(room) => Some(room),
        }
    }

    /// True of files that hold nothing but tests.
    pub(crate) fn is_test(&self) -> bool {
        self.modules().last().is_some_and(|last| *last == "tests" || last.ends_with("_tests"))
    }

    /// The paths inside the crate that the file names outside of its tests, from the crate's root, and where.
    pub(crate) fn paths(&self) -> Vec<(Vec<&str>, usize)> {
        let text = |at: usize| self.tokens.get(at).map_or("", |token| token.text.as_str());
        let children: Vec<&str> = (0..self.tokens.len())
            .filter(|at| text(*at) == "mod" && text(at + 2) == ";")
            .map(|at| text(at + 1))
            .collect();
        let mut paths = Vec::new();
        let mut at = 0;
        while at < self.tokens.len() {
            if text(at) == "mod" && text(at + 1) == "tests" && text(at + 2) == "{" {
                at = self.behind_group(at + 2);
                continue;
            }
            // Not `a::crate`, `value.super` and `pub(in crate::a)`.
            let starts_path = at == 0 || !["::", ".", "in"].contains(&text(at - 1));
            let here = self.modules();
            let is_root = text(at) == "crate" || text(at) == "self" || text(at) == "super";
            if starts_path && text(at + 1) == "::" && (is_root || children.contains(&text(at))) {
                let mut base = if text(at) == "crate" { Vec::new() } else { here };
                while ["crate", "self", "super"].contains(&text(at)) && text(at + 1) == "::" {
                    if text(at) == "super" {
                        base.pop();
                    }
                    at += 2;
                }
                self.tree(at, &base, &mut paths);
            }
            at += 1;
        }
        paths
    }

    /// Adds the paths of the tree that begins at `at`, below `base`.
    fn tree<'a>(&'a self, mut at: usize, base: &[&'a str], paths: &mut Vec<(Vec<&'a str>, usize)>) {
        let mut path = base.to_vec();
        while let Some(token) = self.tokens.get(at) {
            match token.text.as_str() {
                "{" => {
                    let end = self.behind_group(at) - 1;
                    at += 1;
                    while at < end {
                        self.tree(at, &path, paths);
                        // Behind the comma that ends this branch.
                        while at < end && self.tokens[at].text != "," {
                            at = if self.tokens[at].text == "{" { self.behind_group(at) } else { at + 1 };
                        }
                        at += 1;
                    }
                    return;
                }
                "self" => {}
                name => path.push(name),
            }
            let line = token.line;
            if self.tokens.get(at + 1).is_none_or(|next| next.text != "::") {
                paths.push((path, line));
                return;
            }
            at += 2;
        }
    }

    /// Where the group that is opened at `at` has ended.
    fn behind_group(&self, mut at: usize) -> usize {
        let mut depth = 0;
        while let Some(token) = self.tokens.get(at) {
            at += 1;
            match token.text.as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
        at
    }

    /// The rooms that the file names by a path, and where.
    pub(crate) fn imports(&self) -> Vec<(String, usize)> {
        let mut imports = Vec::new();
        let mut depth = self.modules().len();
        // For each open brace, whether a module's, and whether that of tests.
        let mut braces = Vec::new();
        let text = |at: usize| self.tokens.get(at).map_or("", |token| token.text.as_str());
        let mut at = 0;
        while at < self.tokens.len() {
            let starts_path = at == 0 || text(at - 1) != "::";
            match text(at) {
                "{" => {
                    let is_module = at >= 2 && text(at - 2) == "mod";
                    depth += usize::from(is_module);
                    braces.push((is_module, is_module && text(at - 1) == "tests"));
                }
                "}" => depth -= usize::from(braces.pop().is_some_and(|(is_module, _)| is_module)),
                // What is tested on simulated targets is no part of the program.
                "verikd_sim" if self.is_test() || braces.iter().any(|(_, is_tests)| *is_tests) => {}
                "crate" | "verikd" if starts_path && text(at + 1) == "::" => {
                    imports.extend(self.first_names(at + 2).map(|(name, line)| (name.to_owned(), line)));
                }
                "verikd_sim" if starts_path => imports.push(("sim".into(), self.tokens[at].line)),
                "kd_protocol" if starts_path => {
                    imports.extend(self.first_names(at + 2).map(|(name, line)| {
                        let is_module = name.starts_with(|c: char| c.is_ascii_lowercase());
                        let name = if is_module { format!("protocol::{name}") } else { "protocol".into() };
                        (name, line)
                    }));
                }
                "super" if starts_path && text(at + 1) == "::" => {
                    let levels = (0..).take_while(|level| text(at + 2 * level) == "super").count();
                    if levels == depth {
                        let names = self.first_names(at + 2 * levels);
                        imports.extend(names.map(|(name, line)| (name.to_owned(), line)));
                    }
                }
                _ => {}
            }
            at += 1;
        }
        // There, `crate` is the program and not the library.
        let is_program = self.room() == Some("main");
        let mut imports: Vec<_> = imports
            .into_iter()
            .filter(|(name, _)| name.starts_with(|c: char| c.is_ascii_lowercase()))
            .filter(|(name, _)| !(is_program && name == "cli"))
            .collect();
        imports.dedup_by(|(a, _), (b, _)| a == b);
        imports
    }

    /// The names that follow a path's root at `at`: one, or those of a group at its top level.
    fn first_names(&self, at: usize) -> impl Iterator<Item = (&str, usize)> {
        let is_group = self.tokens.get(at).is_some_and(|token| token.text == "{");
        let mut depth = 0;
        let mut names = Vec::new();
        let mut expects_name = true;
        for token in &self.tokens[at.min(self.tokens.len())..] {
            match token.text.as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                "," if depth == 1 => expects_name = true,
                name if expects_name && depth == usize::from(is_group) => {
                    names.push((name, token.line));
                    expects_name = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
        names.into_iter()
    }
}

/// Words, `::` and single signs of `text`, without comments, strings and characters.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let len = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment_len(rest)
        } else if let Some(len) = raw_string_len(rest) {
            len
        } else if first == '"' || rest.starts_with("b\"") || rest.starts_with("c\"") {
            let open = rest.find('"').expect("it is there") + 1;
            open + quoted_len(&rest[open..], '"')
        } else if let Some(len) = character_len(rest) {
            len
        } else {
            let len = match word {
                0 if rest.starts_with("::") => 2,
                0 => first.len_utf8(),
                word => word,
            };
            if !first.is_whitespace() {
                tokens.push(Token { text: rest[..len].into(), line });
            }
            len
        };
        line += rest[..len].matches('\n').count();
        rest = &rest[len..];
    }
    tokens
}

pub(crate) fn block_comment_len(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    loop {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            at += 1;
        }
        if depth == 0 || at >= text.len() {
            return at.min(text.len());
        }
    }
}

pub(crate) fn raw_string_len(text: &str) -> Option<usize> {
    let inside = ["r", "br", "cr"].iter().find_map(|prefix| text.strip_prefix(prefix))?;
    let hashes = inside.len() - inside.trim_start_matches('#').len();
    let content = inside[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let close = content.find(&end).map_or(content.len(), |at| at + end.len());
    Some(text.len() - content.len() + close)
}

/// Bytes up to and with the closing `quote` of what was opened.
pub(crate) fn quoted_len(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices() {
        if is_escaped {
            is_escaped = false;
        } else if c == '\\' {
            is_escaped = true;
        } else if c == quote {
            return at + 1;
        }
    }
    text.len()
}

/// A character or byte, which a lifetime is not.
pub(crate) fn character_len(text: &str) -> Option<usize> {
    let content = text.strip_prefix("b'").or_else(|| text.strip_prefix('\''))?;
    let open = text.len() - content.len();
    let mut chars = content.chars();
    let first = chars.next()?;
    let is_character = first == '\\' || chars.next() == Some('\'');
    is_character.then(|| open + quoted_len(content, '\''))
}

/// Every Rust file below `folder` of this package.
pub(crate) fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of sources can be read") {
            let path = entry.expect("an entry of it too").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("sources are UTF-8");
                let inside = path.strip_prefix(root).expect("it lies in the package");
                let inside: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
                files.push(Source::new(inside.join("/"), &text));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}
