//! The symbol path as WinDbg writes it.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::symbols::default_store::default_store;

/// Microsoft's public symbol server: what `.symfix` and a bare `srv*` mean.
pub const MICROSOFT_SERVER: &str = "https://msdl.microsoft.com/download/symbols";

/// A parsed symbol path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SymbolPath {
    text: String,
    parts: Vec<Part>,
    /// Folders of another system, which the platform's cache folder stands for.
    foreign: Vec<String>,
}

/// One part of a symbol path, between two `;`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A folder with symbol files in it, in the store layout, or of ISF files.
    Folder(PathBuf),
    /// `srv*`: stores in the order in which they are asked.
    Chain(Vec<Store>),
    /// `cache*`: a store that keeps what servers in later parts give.
    Cache(PathBuf),
}

/// One link of an `srv*` chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// A folder in the store layout; keeps what a server after it gives.
    Folder(PathBuf),
    /// A symbol server's address.
    Server(String),
}

impl SymbolPath {
    /// Reads a path such as `srv*~/symbols*https://msdl.microsoft.com/download/symbols;./build`.
    ///
    /// Anything can be a folder name, so nothing is refused here.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let text = text.trim().trim_matches('"').trim();
        let parts = text.split(';').map(str::trim).filter(|part| !part.is_empty());
        let kept_in =
            parts.clone().filter(|part| part.contains('*')).flat_map(|part| part.split('*').skip(1));
        let foreign = kept_in.map(str::trim).filter(|word| is_foreign(word)).map(str::to_owned).collect();
        Self { text: text.to_owned(), parts: parts.map(Part::parse).collect(), foreign }
    }

    /// The path that the environment gives: `_NT_ALT_SYMBOL_PATH`, then `_NT_SYMBOL_PATH`, as debuggers of Windows look.
    #[must_use]
    pub fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let both = ["_NT_ALT_SYMBOL_PATH", "_NT_SYMBOL_PATH"].map(|name| variable(name).unwrap_or_default());
        Self::parse(&both.join(";")).without_gaps()
    }

    /// The same text without empty elements at its ends.
    fn without_gaps(self) -> Self {
        Self { text: self.text.trim_matches(';').to_owned(), ..self }
    }

    /// Folders that the path would keep files in and that only Windows has; the platform's cache folder stands for them.
    #[must_use]
    pub fn foreign(&self) -> &[String] {
        &self.foreign
    }

    /// Microsoft's public server, with what it gives kept in `folder`, or else in the platform's cache folder.
    #[must_use]
    pub fn microsoft(folder: Option<&str>) -> Self {
        let folder = folder
            .map_or_else(|| default_store().display().to_string(), |it| it.trim_matches('"').to_owned());
        Self::parse(&format!("srv*{folder}*{MICROSOFT_SERVER}"))
    }

    /// This path and then `more`.
    #[must_use]
    pub fn followed_by(&self, more: &str) -> Self {
        Self::parse(format!("{};{more}", self.text.trim_end_matches(';')).trim_matches(';'))
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The parts, in the order in which they are tried.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }
}

/// The path with everything that its text leaves to a default.
impl fmt::Display for SymbolPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.parts.iter().enumerate() {
            write!(f, "{}{part}", if index > 0 { ";" } else { "" })?;
        }
        Ok(())
    }
}

impl Part {
    fn parse(text: &str) -> Self {
        let words: Vec<&str> = text.split('*').map(str::trim).collect();
        match words[0].to_ascii_lowercase().as_str() {
            "srv" if words.len() > 1 => Self::chain(&words[1..]),
            // The second word names the library that serves, which is this program.
            "symsrv" if words.len() > 2 => Self::chain(&words[2..]),
            "cache" if words.len() > 1 => Self::Cache(folder_or_default(words[1])),
            _ if is_url(text) => Self::Chain(vec![Store::Server(text.to_owned())]),
            _ => Self::Folder(expand_home(text)),
        }
    }

    fn chain(words: &[&str]) -> Self {
        if words == [""] {
            return Self::Chain(vec![
                Store::Folder(default_store()),
                Store::Server(MICROSOFT_SERVER.to_owned()),
            ]);
        }
        let store = |word: &&str| match *word {
            url if is_url(url) => Store::Server(url.trim_end_matches('/').to_owned()),
            folder => Store::Folder(folder_or_default(folder)),
        };
        let mut stores: Vec<_> = words.iter().map(store).collect();
        // Several folders that one stands for are one.
        stores.dedup();
        Self::Chain(stores)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "{}", folder.display()),
            Self::Cache(folder) => write!(f, "cache*{}", folder.display()),
            Self::Chain(stores) => {
                f.write_str("srv")?;
                stores.iter().try_for_each(|store| match store {
                    Store::Folder(folder) => write!(f, "*{}", folder.display()),
                    Store::Server(url) => write!(f, "*{url}"),
                })
            }
        }
    }
}

fn folder_or_default(word: &str) -> PathBuf {
    if word.is_empty() || is_foreign(word) { default_store() } else { expand_home(word) }
}

/// True for a folder that only Windows has, on another system: what would be kept in it would be kept in a folder that is
/// literally called `C:\symbols`, wherever this program runs.
fn is_foreign(word: &str) -> bool {
    let has_drive =
        word.as_bytes().first().is_some_and(u8::is_ascii_alphabetic) && word.get(1..3) == Some(":\\");
    !cfg!(windows) && (has_drive || word.starts_with("\\\\"))
}

/// `~/symbols`: inside a path no shell does this.
fn expand_home(word: &str) -> PathBuf {
    let inside = word.strip_prefix("~/").or_else(|| word.strip_prefix(r"~\"));
    match (inside, directories::BaseDirs::new()) {
        (Some(inside), Some(dirs)) => dirs.home_dir().join(inside),
        _ => Path::new(word).to_owned(),
    }
}

fn is_url(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    lower.starts_with("http://") || lower.starts_with("https://")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(path: &str) -> Store {
        Store::Folder(path.into())
    }

    #[test]
    fn a_path_is_read_as_windbg_reads_it() {
        let path =
            r"srv*C:\symbols*\\share\sym*https://symbols.example/x/; /build ;;cache*/c;symsrv*symsrv.dll*/s";
        let server = Store::Server("https://symbols.example/x".into());
        assert_eq!(
            SymbolPath::parse(path).parts(),
            [
                Part::Chain(if cfg!(windows) {
                    vec![folder(r"C:\symbols"), folder(r"\\share\sym"), server]
                } else {
                    vec![Store::Folder(default_store()), server]
                }),
                Part::Folder("/build".into()),
                Part::Cache("/c".into()),
                Part::Chain(vec![folder("/s")]),
            ]
        );
        assert_eq!(SymbolPath::parse("  ").parts(), []);
        assert_eq!(SymbolPath::parse("srv").parts(), [Part::Folder("srv".into())], "a folder's name");
        assert_eq!(SymbolPath::parse(r#""/with space""#).parts(), [Part::Folder("/with space".into())]);
    }

    #[test]
    fn what_is_left_out_is_the_default_store_and_microsofts_server() {
        let default = || Store::Folder(default_store());
        let microsoft = || Store::Server(MICROSOFT_SERVER.into());
        assert_eq!(SymbolPath::parse("srv*").parts(), [Part::Chain(vec![default(), microsoft()])]);
        let path = SymbolPath::parse(&format!("SRV**{MICROSOFT_SERVER}"));
        assert_eq!(path.parts(), [Part::Chain(vec![default(), microsoft()])]);
        assert_eq!(SymbolPath::parse("cache*").parts(), [Part::Cache(default_store())]);
        assert_eq!(SymbolPath::microsoft(None).parts(), SymbolPath::parse("srv*").parts());
        assert_eq!(
            SymbolPath::microsoft(Some("/s")).text(),
            "srv*/s*https://msdl.microsoft.com/download/symbols"
        );
    }

    #[test]
    #[cfg(not(windows))]
    fn no_folder_is_called_as_a_drive_of_windows() {
        let path = SymbolPath::parse(r"SRV*C:\symsrv*https://symbols.example;cache*D:\c;C:\build");
        let server = Store::Server("https://symbols.example".into());
        let chain = Part::Chain(vec![Store::Folder(default_store()), server]);
        let parts = [chain, Part::Cache(default_store()), Part::Folder(r"C:\build".into())];
        assert_eq!(path.parts(), parts, "a folder that is only looked into is not made");
        assert_eq!(path.foreign(), [r"C:\symsrv", r"D:\c"]);
        assert!(SymbolPath::parse("srv*/s*https://x").foreign().is_empty());
    }

    #[test]
    fn the_environment_s_other_path_comes_first() {
        let both = |name: &str| Some(if name == "_NT_SYMBOL_PATH" { "/b" } else { "/a" }.to_owned());
        assert_eq!(SymbolPath::of_environment(both).text(), "/a;/b");
        let one = |name: &str| both(name).filter(|_| name == "_NT_SYMBOL_PATH");
        assert_eq!(SymbolPath::of_environment(one).text(), "/b");
        assert_eq!(SymbolPath::of_environment(|_| None), SymbolPath::default());
    }

    #[test]
    fn a_path_grows_at_its_end() {
        assert_eq!(SymbolPath::default().followed_by("/a").text(), "/a");
        assert_eq!(SymbolPath::parse("/a;").followed_by("/b;/c").text(), "/a;/b;/c");
    }

    #[test]
    fn the_expanded_path_reads_as_the_same_path() {
        for text in ["srv*", "cache*;srv*https://symbols.example/x", "/a;srv*/b*/c"] {
            let path = SymbolPath::parse(text);
            assert_eq!(SymbolPath::parse(&path.to_string()).parts(), path.parts());
        }
    }
}
