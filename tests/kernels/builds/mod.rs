//! The simulated machine as every Windows build and in every scenario: the queries with nothing in hand but its memory and
//! its committed PDBs, and its structures read by hand at the places where facts about real kernels have them.

mod by_hand;
mod leaks;
mod logs;
mod matrix;
mod pool;
mod scenarios;
mod short_stops;
use std::path::{Path, PathBuf};

use crate::support::machine::{Still, version_of};
use crate::support::text::WithNotes as _;
use crate::support::text::{assert_same_text, notes, run, text, text_in};
use verikd::commands::{NoteKind, VerifierFormat};
use verikd::symbols::store::SymbolPath;
use verikd::target::{Kernel, Target};
use verikd_sim::windows::{BUILDS, Build, Machine};

#[test]
fn the_published_leak_prints_as_published_on_every_build() {
    for build in BUILDS {
        let (machine, kernel) = stopped(build, Machine::new(build));
        let target = Target::new(&machine, &kernel);
        let line = "!verifier 3 myfault.sys";
        assert_same_text(
            &text_in(VerifierFormat::Old, &target, line),
            include_str!("../../golden/verifier-3-myfault.txt"),
        );
        assert_eq!(notes(&target, line), [], "{}", build.name);
        let line = "!verifier 80 fffffa8005400000";
        assert_same_text(
            &text_in(VerifierFormat::Old, &target, line),
            include_str!("../../golden/verifier-80.txt"),
        );
        let noted = notes(&target, line);
        assert!(noted.iter().all(|note| note.kind == NoteKind::Remark), "{}: {noted:?}", build.name);
    }
}

#[test]
fn every_build_says_what_it_is() {
    let mut titles = Vec::new();
    for build in BUILDS {
        let (machine, kernel) = stopped(build, Machine::new(build));
        let target = Target::new(&machine, &kernel);
        let listed = text(&target, "lm");
        let names: Vec<_> =
            listed.lines().skip(1).filter_map(|line| line.split_whitespace().nth(2)).collect();
        assert_eq!(names, ["nt", "hal", "ndis", "myfault"], "{}", build.name);
        let data = target.debugger_data().unwrap();
        assert_eq!(data.ps_loaded_module_list(), Some(machine.version().ps_loaded_module_list));
        assert!(data.mm_verifier_data().is_some(), "{}", build.name);
        let log = run(&target, "!verifier 80 1").unwrap().with_notes();
        let release = build.release().unwrap();
        assert_eq!(log["length"], release.pool_log_length, "{}", build.name);
        assert_eq!((machine.title(), machine.version().minor), (&*release.title, release.number));
        titles.push(release.title);
    }
    assert_eq!(titles.len(), 11);
    titles.dedup();
    assert_eq!(titles.len(), 11, "{titles:?}");
}

/// The machine at its first stop, and its kernel as a debugger knows it after GetVersion.
fn stopped(build: &Build, mut machine: Machine) -> (Still, Kernel) {
    machine.break_in();
    let kernel = Kernel::new(version_of(&machine), SymbolPath::parse(&store(build).display().to_string()));
    (Still(machine), kernel)
}

/// A folder with the PDBs of every image that the build may load.
fn store(build: &Build) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("builds").join(build.name);
    std::fs::create_dir_all(&folder).unwrap();
    for image in build.all_images() {
        let path = folder.join(image.pdb_file);
        if std::fs::read(&path).ok().as_deref() != Some(image.pdb) {
            // Tests run side by side: whoever opens the file must find it whole.
            let whole = tempfile::NamedTempFile::new_in(&folder).unwrap();
            std::fs::write(whole.path(), image.pdb).unwrap();
            whole.persist(path).unwrap();
        }
    }
    folder
}
