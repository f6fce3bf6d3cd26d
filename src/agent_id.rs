//! The id of an agent: stable for one data directory, made by whoever comes first.

use std::io::{self, Write};
use std::path::Path;

/// Longer is no id of ours, in bytes.
const ID_BYTES_MAX: usize = 64;

/// Reads `DATA/agent/id`, or makes it. Any number of processes may do so at
/// once: all get the same id.
pub fn read_or_create(data_dir: &Path) -> io::Result<String> {
    let dir = data_dir.join("agent");
    let path = dir.join("id");
    if let Some(id) = read(&path)? {
        return Ok(id);
    }
    std::fs::create_dir_all(&dir)?;
    let id = uuid::Uuid::now_v7().to_string();
    // Written whole beside it and linked into place: nobody reads half an id,
    // and of two that come at once the link lets only one win.
    let mut draft = tempfile::NamedTempFile::new_in(&dir)?;
    writeln!(draft, "{id}")?;
    draft.as_file().sync_all()?;
    match draft.persist_noclobber(&path) {
        Ok(_) => Ok(id),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => read(&path)?
            .ok_or_else(|| io::Error::other(format!("{} was taken away", path.display()))),
        Err(error) => Err(error.error),
    }
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let id = text.trim();
            let fits = !id.is_empty()
                && id.len() <= ID_BYTES_MAX
                && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            if fits {
                Ok(Some(id.to_owned()))
            } else {
                Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!(
                        "{} holds no agent id: delete it to get a new one",
                        path.display()
                    ),
                ))
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_who_come_at_once_get_the_same_id() {
        let dir = tempfile::tempdir().expect("a directory");
        let ids: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| read_or_create(dir.path()).expect("an id")))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        let files = std::fs::read_dir(dir.path().join("agent"))
            .expect("there")
            .count();
        assert_eq!(files, 1, "no draft is left behind");
    }

    #[test]
    fn a_file_that_holds_something_else_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("agent")).expect("made");
        std::fs::write(dir.path().join("agent/id"), "two words\n").expect("written");
        let error = read_or_create(dir.path()).expect_err("no id");
        assert!(error.to_string().contains("agent/id"), "{error}");
    }
}
