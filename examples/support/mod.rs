//! What the examples share: a temporary directory, children that end with the example, and the built program.

use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A result with any error.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A child that does not outlive this program.
pub struct Guard(pub Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A temporary directory, removed at the end.
pub struct Scratch {
    /// Its path.
    pub path: PathBuf,
    keep: bool,
}

impl Scratch {
    /// Makes one for this example. `keep` leaves it there at the end.
    pub fn new(example: &str, keep: bool) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("mcp-{example}-{}", std::process::id()));
        fs::create_dir(&path).map_err(|e| format!("make the directory {}: {e}", path.display()))?;
        Ok(Self { path, keep })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// The `mcp` binary that was given, or one that is built in the profile of the example: `cargo run --example` builds
/// only the example.
pub fn mcp(given: Option<&Path>) -> Result<PathBuf> {
    given.map_or_else(build_mcp, |path| Ok(path.to_owned()))
}

fn build_mcp() -> Result<PathBuf> {
    let example = std::env::current_exe()?;
    let profile_dir = example.parent().and_then(Path::parent);
    let profile = match profile_dir.and_then(Path::file_name).and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| env!("CARGO").into());
    let mut build = Command::new(&cargo);
    // What `cargo run` has set for the example. Some build scripts look at it, and would run again.
    for (name, _) in std::env::vars_os() {
        let own = name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"));
        if own {
            build.env_remove(name);
        }
    }
    let output = build
        .args(["build", "--bin", "mcp", "--profile", profile])
        .args(["--message-format", "json-render-diagnostics", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("run {cargo}: {e}"))?;
    if !output.status.success() {
        return Err(format!("cargo build --bin mcp failed: {}", output.status).into());
    }
    String::from_utf8(output.stdout)?
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "mcp")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .ok_or_else(|| "cargo build did not say where the mcp binary is".into())
}

/// Writes a file of pseudo-random bytes.
pub fn make_file(path: &Path, size: u64) -> Result<()> {
    let mut file = File::create(path)?;
    let mut rng = fastrand::Rng::with_seed(7417);
    let mut chunk = vec![0; 1 << 20];
    let mut left = size;
    while left > 0 {
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        rng.fill(&mut chunk[..n]);
        file.write_all(&chunk[..n]).map_err(|e| format!("write {}: {e}", path.display()))?;
        left -= n as u64;
    }
    Ok(())
}

/// The BLAKE3 hash of a file.
pub fn hash_file(path: &Path) -> Result<blake3::Hash> {
    let file = File::open(path).map_err(|e| format!("open {}: {e}", path.display()))?;
    Ok(blake3::Hasher::new().update_reader(file)?.finalize())
}

/// A command as typed in a shell.
pub fn line(command: &Command) -> String {
    let words = command.get_args().map(|arg| arg.to_string_lossy());
    std::iter::once("mcp".into()).chain(words).collect::<Vec<_>>().join(" ")
}
