//! Where tests put handlers.

/// A new directory that a handler can be run from: nobody but root can write to a directory above it.
pub fn of_root() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("mcp-test-").tempdir_in("/var/lib").expect("a directory below /var/lib")
}
