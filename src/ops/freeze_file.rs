//! A freeze as a file beside the journal: it holds though the process hangs or the journal cannot be written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::guard::Freeze;

/// What stands in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// How far it reaches.
    pub how: Freeze,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at_ms: i64,
}

/// Where it is: `<journal>.freeze`.
pub fn path_of(journal: &Path) -> PathBuf {
    let mut name = journal.as_os_str().to_owned();
    name.push(".freeze");
    name.into()
}

/// The freeze of the file, if there is one. One failed system call where there is none.
///
/// A file that cannot be read or understood is a hard freeze: somebody wanted everything to stop.
pub fn read(path: &Path) -> Option<Note> {
    let unclear = |reason: String| Note { how: Freeze::Hard, by: "unknown".to_owned(), reason, at_ms: 0 };
    match fs::read(path) {
        Ok(bytes) => Some(match serde_json::from_slice(&bytes) {
            Ok(note) => note,
            Err(_) => match bytes.trim_ascii() {
                b"soft" => Note { how: Freeze::Soft, ..unclear(String::new()) },
                _ => unclear("the freeze file cannot be understood".to_owned()),
            },
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => Some(unclear(format!("the freeze file cannot be read: {}", error.kind()))),
    }
}

/// Writes it, durably: when this returns, no guard lets a new effect go.
///
/// # Errors
/// The folder cannot be written.
pub fn write(path: &Path, note: &Note) -> io::Result<()> {
    let temporary = path.with_extension(format!("freeze.{}", std::process::id()));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(&serde_json::to_vec(note)?)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_folder(path)
}

/// Removes it. None there is as good.
///
/// # Errors
/// The folder cannot be written.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_folder(path),
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_is_written_is_read_until_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = path_of(&folder.path().join("curfew.db"));
        assert_eq!(path.file_name().unwrap(), "curfew.db.freeze");
        assert_eq!(read(&path), None);
        let note = Note { how: Freeze::Soft, by: "ana".into(), reason: "why".into(), at_ms: 5 };
        write(&path, &note).unwrap();
        assert_eq!(read(&path), Some(note.clone()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        write(&path, &Note { how: Freeze::Hard, ..note }).unwrap();
        assert_eq!(crate::ops::in_force(Some(Freeze::Soft), &path), Some(Freeze::Hard));
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(crate::ops::in_force(Some(Freeze::Soft), &path), Some(Freeze::Soft));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_be_understood_stops_everything() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.freeze");
        for (bytes, how) in [("", Freeze::Hard), ("{", Freeze::Hard), ("soft\n", Freeze::Soft), ("stop", Freeze::Hard)]
        {
            fs::write(&path, bytes).unwrap();
            assert_eq!(read(&path).unwrap().how, how, "{bytes}");
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(read(&path).unwrap().how, Freeze::Hard);
    }
}
