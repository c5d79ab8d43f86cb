//! Texts that a person has reviewed, in `tests/snapshots`. `INSTA_UPDATE=always cargo test ..` writes them anew; without it a text that
//! differs fails its test, and is left beside the reviewed one as `.snap.new`, but for runs of CI.

use std::path::Path;

/// Fails unless `text` is the reviewed one of this folder and name; differences in white space at the end don't count.
pub(crate) fn assert_reviewed(folder: &str, name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(folder);
    let text = without_identities(text);
    insta::with_settings!({ snapshot_path => path, prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, text);
    });
}

/// A made PDB's identity is a hash of all that is in it: it says nothing that a person could review.
fn without_identities(text: &str) -> String {
    let mut pieces = text.split("(identity ");
    let mut kept = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        kept.push_str("(identity ..");
        kept.push_str(piece.trim_start_matches(|digit: char| digit.is_ascii_hexdigit()));
    }
    kept
}
