//! `verikd symbols`: what is in a symbol file, without a target.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::json;
use verikd::commands::verifier::requirements::{Allowed, allowed_by};
use verikd::symbols::check::{Census, census};

use super::exit::{GAPS, fail};

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Read all of a PDB or ISF file: whose it is, what it has, and which queries it allows
    Check {
        /// The file
        file: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// 1 if the file is damaged, 3 if it is a kernel's and some query lacks something.
pub(super) fn run(options: &Options) -> u8 {
    let Command::Check { file, json } = &options.command;
    let (census, symbols) = match census(file) {
        Ok(checked) => checked,
        Err(error) => return fail(&error),
    };
    let allowed = allowed_by(&*symbols);
    // A driver's own symbols have none of the kernel's variables.
    let is_kernel = allowed.iter().any(|query| query.missing.is_empty())
        || ["MmVerifierData", "PsLoadedModuleList"].iter().any(|name| symbols.address_of(name).is_some());
    let text = match json {
        true => {
            let queries = is_kernel.then_some(&allowed);
            format!("{}\n", json!({ "file": file, "symbols": census, "queries": queries }))
        }
        false => text(&census, is_kernel, &allowed),
    };
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => fail(&error),
        _ if is_kernel && allowed.iter().any(|query| !query.missing.is_empty()) => GAPS,
        _ => 0,
    }
}

fn text(census: &Census, is_kernel: bool, allowed: &[Allowed]) -> String {
    let Census { pdb, kind, symbols, types, fields } = census;
    let mut text = format!(
        "{} (identity {pdb}): {kind} symbols, whole\n{symbols} symbols, {types} structures with {fields} fields\n",
        pdb.name.escape_debug()
    );
    if !is_kernel {
        text.push_str("Not a kernel's: no Driver Verifier query reads it but for names of code\n");
        return text;
    }
    for Allowed { query, shows, missing, built_in } in allowed {
        let verdict = match missing.as_slice() {
            [] if built_in.is_empty() => "yes".to_owned(),
            [] => format!("yes, with built-in layouts of {}", built_in.join(", ")),
            missing => format!("no, it lacks {}", missing.join(", ")),
        };
        writeln!(text, "{query:<13} {shows:<40} {verdict}").expect("a String takes any text");
    }
    text
}
