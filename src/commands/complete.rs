//! What Tab makes of a line, and what is hinted at behind it.
//!
//! ```text
//!  lm; !ver            the name of a command          !verifier
//!  .help .sy           the name of a command          .sympath .sympath+ .symfix ..
//!  x /                 a word of its usage or forms   /0 /1 /2 /n /a       capitals are for the user to fill in
//!  dps nt!VfP          a symbol of a module           nt!VfPoolTraces ..   the target is asked
//!  dt nt!_VF           a type                         nt!_VF_POOL_TRACE ..
//!  dt nt!_UNICODE_STRING 0 Le   a field               Length
//!  !verifier 3 my      a verified driver              myfault.sys
//!  !poolused 0 Le      a pool tag                     Leak
//!  .logopen /tm        a file                         /tmp/
//! ```
//! Symbols are listed as far as they are loaded: no file is fetched for a key.

use std::path::{MAIN_SEPARATOR, Path};

use super::arguments::number;
use super::pool::used::known_tags;
use super::registry::{COMMANDS, find};
use super::spec::{CommandSpec, Takes};
use super::verifier::verified_images;
use crate::target::Target;

/// More would fill the screen.
const MOST: usize = 500;

/// What the word that ends a line may become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completions {
    /// Where the word begins.
    pub start: usize,
    /// What it may become, in the order in which `.help` lists it; names of the target's in order.
    pub words: Vec<String>,
    /// The target may know more: [`completions_of_target`].
    pub needs_target: bool,
}

/// What an argument is the name of.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Named {
    /// Only words of the command's own.
    Nothing,
    /// Another command.
    Command,
    /// Something on this machine.
    File,
    /// Something with an address.
    Symbol,
    /// A structure; behind it, fields of it.
    Type,
    FieldOf(String),
    /// A module by its name; by its file's.
    Module,
    Driver,
    /// A pool tag that the kernel counts.
    Tag,
}

impl Completions {
    /// None of a line.
    #[must_use]
    pub fn none(line: &str) -> Self {
        Self { start: line.len(), words: Vec::new(), needs_target: false }
    }

    /// Where the word begins, and what it may become.
    #[must_use]
    pub fn into_parts(self) -> (usize, Vec<String>) {
        (self.start, self.words)
    }

    fn of(line: &str, start: usize, words: impl IntoIterator<Item = String>) -> Self {
        let words = words.into_iter().filter(|word| begins(word, &line[start..])).take(MOST).collect();
        Self { start, words, needs_target: false }
    }
}

/// What is known without a target of the word that ends `line`.
#[must_use]
pub fn completions(line: &str) -> Completions {
    let Some(place) = Place::of(line) else { return Completions::none(line) };
    match place.named {
        Named::Command => Completions::of(line, place.start, names().into_iter().map(Into::into)),
        Named::File => files(line, place.start),
        Named::Nothing => Completions::of(line, place.word, place.own_words()),
        _ => Completions { needs_target: true, ..Completions::of(line, place.word, place.own_words()) },
    }
}

/// The same with what a stopped target knows.
#[must_use]
pub fn completions_of_target(line: &str, target: &Target<'_>) -> Completions {
    let Some(place) = Place::of(line) else { return Completions::none(line) };
    let own = Completions::of(line, place.word, place.own_words());
    let text = &line[place.start..];
    let mut words = match &place.named {
        Named::Symbol => symbols(text, target),
        Named::Type => types(text, target),
        Named::FieldOf(ty) => fields(ty, target),
        Named::Module => modules(target, |module| module.name.to_string()),
        Named::Driver => {
            let verified = verified_images(target);
            let is_verified = |base| verified.contains(&base);
            let mut files: Vec<_> = loaded(target).filter(|it| is_verified(it.base)).collect();
            files.sort_by(|one, other| one.image_name.cmp(&other.image_name));
            files.into_iter().map(|it| it.image_name.to_string()).collect()
        }
        Named::Tag => known_tags(target),
        Named::Nothing | Named::Command | Named::File => return completions(line),
    };
    words.dedup();
    let found = Completions::of(line, place.start, words);
    if found.words.is_empty() { own } else { found }
}

/// What is hinted at behind a line, and whether it is to be typed as it stands: the rest of the only command that begins so,
/// or what a command takes.
#[must_use]
pub fn hint(line: &str) -> Option<(String, bool)> {
    let begin = command_start(line);
    let command = &line[begin..];
    if command.is_empty() || command.contains('"') {
        return None;
    }
    if command.strip_suffix(' ').is_some_and(|name| !name.contains(' ')) {
        let (spec, _) = find_begun(command)?;
        let usage = spec.usage.split_once(' ').map(|(_, arguments)| arguments)?;
        return Some((usage.to_owned(), false));
    }
    if command.len() < 3 {
        return None;
    }
    let mut fitting = names().into_iter().filter(|name| name.starts_with(command));
    let only = fitting.next().filter(|_| fitting.next().is_none())?;
    let rest = &only[command.len()..];
    (!rest.is_empty()).then(|| (rest.to_owned(), true))
}

/// Where the word is that is to be completed.
struct Place {
    /// Where a name begins, which may follow a sign: `poi(nt!Vf`.
    start: usize,
    /// Where the word begins, up to a space.
    word: usize,
    spec: Option<&'static CommandSpec>,
    named: Named,
}

impl Place {
    /// Nothing in quotes: there stands what only the user knows.
    fn of(line: &str) -> Option<Self> {
        if line.matches('"').count() % 2 == 1 {
            return None;
        }
        let command = command_start(line);
        let word = line.rfind([' ', '\t']).map_or(0, |at| at + 1).max(command);
        if let Some(at) = line[command..].strip_prefix('$').and_then(|it| it.find('<')) {
            let start = word.max(command + 1 + at + 1);
            return Some(Self { start, word, spec: None, named: Named::File });
        }
        if word == command {
            return Some(Self { start: word, word, spec: None, named: Named::Command });
        }
        let typed = &line[command..word];
        let (spec, arguments) = find_begun(typed)?;
        let named = what_is_named(spec, typed, arguments);
        let is_of_name = |c: char| c.is_alphanumeric() || "_!?@$.:~".contains(c);
        let signs =
            !matches!(named, Named::File | Named::Command | Named::Driver | Named::Module | Named::Tag);
        let glued = line[word..].rfind(|c| signs && !is_of_name(c)).map_or(word, |at| {
            let sign = line[word + at..].chars().next().map_or(1, char::len_utf8);
            word + at + sign
        });
        Some(Self { start: glued, word, spec: Some(spec), named })
    }

    fn own_words(&self) -> Vec<String> {
        self.spec.map(words_of).unwrap_or_default().into_iter().map(Into::into).collect()
    }
}

/// What an argument behind `arguments` names.
fn what_is_named(spec: &'static CommandSpec, typed: &str, arguments: &str) -> Named {
    let last = typed.split_whitespace().next_back().unwrap_or_default();
    let words: Vec<&str> = arguments.split_whitespace().filter(|it| !it.starts_with('-')).collect();
    match spec.names[0] {
        _ if spec.takes == Takes::Command => Named::Command,
        _ if matches!(last, "-save" | "-folded" | "-svg" | "-html") => Named::File,
        ".dump" | ".writemem" | ".logopen" | ".logappend" | ".sympath" | ".sympath+" => Named::File,
        "dt" => match words.first() {
            None => Named::Type,
            Some(ty) => Named::FieldOf((*ty).to_owned()),
        },
        "!verifier" if words.first() == Some(&"3") || last == "-d" => Named::Driver,
        "!verifier" if words.is_empty() => Named::Nothing,
        "!poolfind" if last == "-tag" || words.is_empty() => Named::Tag,
        "!pooltag" if last == "-t" => Named::File,
        "!pooltag" if words.len() == usize::from(arguments.contains("-t ")) => Named::Tag,
        "!poolused" if last == "-d" => Named::File,
        "!poolused" if is_behind_flags(&words) => Named::Tag,
        "!poolused" | "!poolfind" | "!pooltag" => Named::Nothing,
        "!leaks" if last == "-tag" => Named::Tag,
        "!leaks" if matches!(last, "-by" | "-min" | "-top" | "-depth") => Named::Nothing,
        "!leaks" => Named::Driver,
        "lm" | ".reload" => Named::Module,
        "r" | ".echo" | "!sym" | ".verifierformat" | ".symfix" => Named::Nothing,
        _ if matches!(spec.takes, Takes::Arguments(_)) => Named::Symbol,
        _ => Named::Nothing,
    }
}

/// True if `!poolused` takes a tag behind these words: its flags, and perhaps `/t N` or files before them.
fn is_behind_flags(words: &[&str]) -> bool {
    let rows = words.iter().position(|word| *word == "/t").map(|at| at + 1);
    let is_flags = |(at, word): (usize, &&str)| Some(at) != rows && word.len() <= 2 && number(word).is_some();
    words.last().is_some_and(|last| is_flags((words.len() - 1, last)))
}

/// The command that `typed` begins, with a space behind it, and its arguments so far: `?` is not its help yet.
fn find_begun(typed: &str) -> Option<(&'static CommandSpec, &str)> {
    find(if typed.trim() == "?" { "? 0" } else { typed }).ok()
}

/// Where the last command of a line begins.
fn command_start(line: &str) -> usize {
    let command = line.rfind([';', '\n']).map_or(0, |at| at + 1);
    line.len() - line[command..].trim_start().len()
}

fn names() -> Vec<&'static str> {
    COMMANDS.iter().flat_map(|spec| spec.names).copied().collect()
}

fn begins(word: &str, text: &str) -> bool {
    word.get(..text.len()).is_some_and(|start| start.eq_ignore_ascii_case(text))
}

/// The words of a command's usage and forms that are typed as they stand, each once.
fn words_of(spec: &'static CommandSpec) -> Vec<&'static str> {
    let mut words = Vec::new();
    let forms = spec.details.iter().map(|(form, _)| *form);
    for word in [spec.usage].into_iter().chain(forms).flat_map(literals) {
        // A single letter is typed sooner than it is completed.
        if word.len() > 1 && !words.contains(&word) && !spec.names.contains(&word) {
            words.push(word);
        }
    }
    words
}

/// The words of a form that are no names of what the user fills in: those are in capitals.
fn literals(form: &'static str) -> impl Iterator<Item = &'static str> {
    form.split(|c: char| c.is_whitespace() || "[]|,".contains(c)).filter(|word| {
        word.chars().any(char::is_alphanumeric)
            && !word.contains(|c: char| c.is_uppercase() || "*!.".contains(c))
    })
}

/// Files whose names go on from what stands behind `start`; folders end with a separator.
fn files(line: &str, start: usize) -> Completions {
    let text = &line[start..];
    let (folder, _) = text.rfind(['/', MAIN_SEPARATOR]).map_or(("", text), |at| text.split_at(at + 1));
    let place = if folder.is_empty() { Path::new(".") } else { Path::new(folder) };
    let entries = std::fs::read_dir(place).into_iter().flatten().filter_map(Result::ok);
    let mut words: Vec<String> = entries
        .filter_map(|entry| {
            let end = if entry.path().is_dir() { "/" } else { "" };
            Some(format!("{folder}{}{end}", entry.file_name().to_str()?))
        })
        .collect();
    words.sort();
    Completions::of(line, start, words)
}

fn loaded(target: &Target<'_>) -> impl Iterator<Item = crate::target::Module> {
    let list = target.modules();
    list.map(|list| list.modules().to_vec()).unwrap_or_default().into_iter()
}

fn modules(target: &Target<'_>, name: impl Fn(&crate::target::Module) -> String) -> Vec<String> {
    let mut names: Vec<_> = loaded(target).map(|module| name(&module)).collect();
    names.sort();
    names
}

/// Modules, with the `!` that separates their symbols; behind it, those.
fn symbols(text: &str, target: &Target<'_>) -> Vec<String> {
    let Some((module, name)) = text.split_once('!') else {
        return modules(target, |module| format!("{}!", module.name));
    };
    let of_module = |_: ()| {
        let module = loaded(target).find(|it| it.is_called(module))?;
        let known = target.known_names(&module);
        let local = !target.kernel().symbol_source().asks_servers();
        known.or_else(|| local.then(|| target.names(&module)))?.ok()
    };
    let Some(symbols) = of_module(()) else { return Vec::new() };
    let found = if name.is_empty() { symbols.symbols().collect() } else { symbols.with_word(name) };
    let mut names: Vec<_> =
        found.into_iter().map(|symbol| symbol.name.into_owned()).filter(|it| begins(it, name)).collect();
    names.sort();
    names.into_iter().map(|name| format!("{module}!{name}")).collect()
}

fn types(text: &str, target: &Target<'_>) -> Vec<String> {
    let (prefix, module) = match text.split_once('!') {
        Some((module, _)) => (format!("{module}!"), module),
        None => (String::new(), "nt"),
    };
    let Ok((_, symbols)) = target.module_symbols(module) else { return Vec::new() };
    let mut names: Vec<_> = symbols.types().map(|name| format!("{prefix}{name}")).collect();
    names.retain(|name| begins(name, text));
    names.sort();
    if prefix.is_empty() && names.is_empty() {
        return modules(target, |module| format!("{}!", module.name));
    }
    names
}

fn fields(ty: &str, target: &Target<'_>) -> Vec<String> {
    let Ok(named) = target.named_type(ty) else { return Vec::new() };
    let mut names: Vec<_> = named.layout.fields().iter().map(|field| field.name.to_string()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &str) -> (usize, Vec<String>) {
        completions(line).into_parts()
    }

    #[test]
    fn names_are_completed_where_a_command_begins() {
        for (line, at, names) in [
            ("!ver", 0, vec!["!verifier"]),
            ("!VER", 0, vec!["!verifier"]),
            ("lm; .sympath", 4, vec![".sympath", ".sympath+"]),
            ("  .rebo", 2, vec![".reboot"]),
            ("nothing", 0, vec![]),
            (".echo \"a; .rebo", 15, vec![]),
            (".help .sympath", 6, vec![".sympath", ".sympath+"]),
        ] {
            assert_eq!(found(line), (at, names.into_iter().map(String::from).collect()), "{line}");
        }
        assert_eq!(found("").1, names());
    }

    #[test]
    fn arguments_are_completed_from_the_spec() {
        for (line, at, words) in [
            ("!sym ", 5, vec!["noisy", "quiet"]),
            ("!sym q", 5, vec!["quiet"]),
            ("lm; x /", 6, vec!["/0", "/1", "/2", "/n", "/a"]),
            (".reload /", 8, vec!["/f", "/u"]),
            (".verifierformat o", 16, vec!["old"]),
            ("g ", 2, vec![]),
            ("nothing /", 9, vec![]),
        ] {
            assert_eq!(found(line), (at, words.into_iter().map(String::from).collect()), "{line}");
        }
        assert!(!found("!verifier ").1.is_empty());
    }

    #[test]
    fn what_the_target_knows_is_told_apart() {
        for (line, start, named) in [
            ("dps nt!Vf", 4, Named::Symbol),
            ("? poi(nt!Vf", 6, Named::Symbol),
            ("dt nt!_VF", 3, Named::Type),
            ("dt -r nt!_VF", 6, Named::Type),
            ("dt nt!_LIST_ENTRY Fl", 18, Named::FieldOf("nt!_LIST_ENTRY".into())),
            ("!verifier 3 my", 12, Named::Driver),
            ("!leaks my", 7, Named::Driver),
            ("!leaks -tag Le", 12, Named::Tag),
            ("!poolused 0 Le", 12, Named::Tag),
            ("!poolused /t 5 2 Le", 17, Named::Tag),
            ("!poolused -d x.json 2 ", 22, Named::Tag),
            ("!poolused Le", 10, Named::Nothing),
            ("!poolused /t 5", 13, Named::Nothing),
            ("!poolused -d /tm", 13, Named::File),
            ("!poolfind Le", 10, Named::Tag),
            ("!poolfind -small -tag Le", 22, Named::Tag),
            ("!poolfind Leak 0", 15, Named::Nothing),
            ("!pooltag -q Le", 12, Named::Tag),
            ("!pooltag -t /tm", 12, Named::File),
            ("!pooltag -t /tmp/x Le", 19, Named::Tag),
            ("lm m my", 5, Named::Module),
            (".dump /used /tm", 12, Named::File),
            ("$</tm", 2, Named::File),
            ("$$>< /tm", 5, Named::File),
        ] {
            let place = Place::of(line).unwrap();
            assert_eq!((place.start, place.named), (start, named), "{line}");
        }
    }

    #[test]
    fn files_are_completed_folder_by_folder() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        std::fs::write(folder.path().join("such.txt"), "").unwrap();
        let line = format!(".dump /used {}/su", folder.path().display());
        let words = found(&line).1;
        let begin = format!("{}/", folder.path().display());
        assert_eq!(words, [format!("{begin}sub/"), format!("{begin}such.txt")]);
    }

    #[test]
    fn a_hint_is_the_rest_of_a_name_or_what_a_command_takes() {
        assert_eq!(hint("!verif"), Some(("ier".into(), true)));
        assert_eq!(hint("lm; ln "), Some(("ADDRESS".into(), false)));
        for nothing in ["", "q", "q ", "ln 1", ".symp", "nosuch "] {
            assert_eq!(hint(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn whatever_stands_before_the_cursor_gets_an_answer_within_it() {
        for line in [
            "é",
            ".echo é",
            "lm;é \u{2013}",
            "\"",
            ";;;",
            "!é\n",
            "dt nt!_VF\u{301} ",
            "? é(",
            "$é<é",
            "db é+é",
        ] {
            let (at, _) = found(line);
            assert!(at <= line.len() && line.is_char_boundary(at), "{line:?}");
            let _ = hint(line);
        }
    }
}
