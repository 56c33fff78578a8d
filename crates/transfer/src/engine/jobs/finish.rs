//! The end of a receiver's object: its commit, and the command that runs after it.

use super::{ReceiverFiles, Refusal, hash, lock};
use crate::command::Facts;
use crate::layout::Layout;
use crate::protocol::job::{InPlace, ReceiverDone};
use crate::storage::safe_name;
use crate::units::Digest;
use crate::wire::AbortCode;

pub(super) fn commit(files: &ReceiverFiles, layout: &Layout, root: Digest) -> Result<ReceiverDone, Refusal> {
    let open = files.part()?;
    open.part.seal(layout.object_size())?;
    if files.verifies && hash(layout, |offset, buf| open.part.read_back(offset, buf))? != root {
        let text = "what the disk returns is not what was written to it; replace the disk".to_owned();
        return Err(Refusal(AbortCode::Disk, text));
    }
    let path = open.part.commit()?;
    *lock(&files.open) = None;
    Ok(ReceiverDone::Committed(path))
}

/// Runs the hook. A file that was saved under a name that the user chose may have any name at the sender: a hook that
/// uses it in a path must not be led elsewhere.
pub(super) fn run_hook(files: &ReceiverFiles, object: &InPlace) -> Result<i32, String> {
    let hook = files.hook.as_ref().ok_or("no hook is known; please report this")?;
    let name = safe_name(&object.name).map_err(|e| format!("the --then command did not run: {e}"))?;
    let InPlace { path, root, size, sender, key, .. } = object;
    hook.run(&Facts { path, name, root: *root, size: *size, sender: *sender, key: *key })
}
