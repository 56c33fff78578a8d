//! Bodies of the fuzz targets that need no more than what the library shows: names, state files, keys,
//! arguments, manifests, trees. The tests replay the committed corpora with them (tests/corpus.rs).

mod arguments;
mod edits;
mod keys;
mod manifest;
mod names;
mod scratch;
mod state;
mod tree;

pub use arguments::fuzz_arguments;
pub use keys::fuzz_keys;
pub use manifest::fuzz_manifest;
pub use names::fuzz_names;
pub use state::fuzz_state;
pub use tree::fuzz_tree;
