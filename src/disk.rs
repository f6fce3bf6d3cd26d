//! How full a disk is.
//!
//! Owns the look. What is too little, and what follows from it, is the asker's.

use std::path::Path;

/// Free bytes where `dir` is, or will be, as an ordinary user may use them.
/// Blocks; nothing where the file system cannot be asked.
pub fn free_bytes(dir: &Path) -> Option<u64> {
    let existing = dir.ancestors().find(|path| path.exists())?;
    let stat = nix::sys::statvfs::statvfs(existing).ok()?;
    Some(stat.blocks_available() * stat.fragment_size())
}
