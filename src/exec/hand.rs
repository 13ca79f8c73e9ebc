//! How the task gets its credentials: in its environment, or in files that are nowhere on a disk.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;

/// What our folders begin with.
const PREFIX: &str = "curfew-exec-";
/// Locked while the folder is in use.
const LOCK: &str = ".in-use";

/// Variables for the task. Secrets in it are zeroed when it goes; what the task itself gets is the task's.
#[derive(Default)]
pub struct Variables(pub BTreeMap<String, SecretString>);

impl Variables {
    /// Adds one.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.0.insert(name.to_owned(), SecretString::from(value.into()));
    }

    /// Their names.
    pub fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    /// As a process takes them: without a `NUL`, which none can hold.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, OsString)> {
        self.0.iter().map(|(name, value)| (name.as_str(), OsString::from(value.expose_secret())))
    }

    /// A variable whose value no environment can hold.
    pub fn unfit(&self) -> Option<&str> {
        self.0.iter().find(|(_, value)| value.expose_secret().contains('\0')).map(|(name, _)| name.as_str())
    }
}

/// A folder in memory that only we can open; gone when the value goes.
pub struct Folder {
    path: PathBuf,
    // Locked. The lock ends with the process, however that ends.
    _lock: File,
}

impl Folder {
    /// A new one below `base`, which is a tmpfs. What killed processes left there is swept first.
    ///
    /// # Errors
    /// `base` cannot be used.
    pub fn new(base: &Path) -> io::Result<Self> {
        if !is_in_memory(base)? {
            return Err(io::Error::other("it is on a disk, where what was deleted can be read again: name a tmpfs"));
        }
        sweep(base);
        let path = base.join(format!("{PREFIX}{}", Uuid::new_v4().simple()));
        DirBuilder::new().mode(0o700).create(&path)?;
        let lock = private(&path.join(LOCK))?;
        lock.lock()?;
        Ok(Self { path, _lock: lock })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A new file that only its owner can read.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn put(&self, name: &str, value: &SecretString) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        private(&path)?.write_all(value.expose_secret().as_bytes())?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.path).ok();
    }
}

/// The first tmpfs that is there: `/dev/shm`, the user's runtime folder.
pub fn usual_base(runtime_dir: Option<PathBuf>) -> Option<PathBuf> {
    let candidates = [Some(PathBuf::from("/dev/shm")), runtime_dir];
    candidates.into_iter().flatten().find(|base| is_in_memory(base).unwrap_or(false))
}

fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Removes what processes left that were killed: folders whose lock nobody holds.
fn sweep(base: &Path) {
    let Ok(entries) = std::fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        // One without a lock file is just being made, or its maker was killed in that moment: it holds nothing.
        if ours
            && let Ok(lock) = OpenOptions::new().write(true).open(entry.path().join(LOCK))
            && lock.try_lock().is_ok()
        {
            std::fs::remove_dir_all(entry.path()).ok();
        }
    }
}

#[cfg(target_os = "linux")]
fn is_in_memory(path: &Path) -> io::Result<bool> {
    // TMPFS_MAGIC, RAMFS_MAGIC
    let kind = rustix::fs::statfs(path)?.f_type;
    Ok(path.is_dir() && (kind == 0x0102_1994 || kind == 0x8584_58f6))
}

#[cfg(not(target_os = "linux"))]
fn is_in_memory(path: &Path) -> io::Result<bool> {
    // There is no tmpfs: who names a folder has to know.
    Ok(path.is_dir())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn files_are_private_and_go_with_the_folder_and_killed_ones_are_swept() {
        let base = Path::new("/dev/shm").join(format!("curfew-test-{}", Uuid::new_v4().simple()));
        std::fs::create_dir(&base).unwrap();
        let live = Folder::new(&base).unwrap();
        let file = live.put("DB_PASSWORD", &SecretString::from("hunter2")).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(live.path()), mode(&file)), (0o700, 0o600));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "hunter2");
        // As a process leaves it that was killed: its lock ended with it.
        let killed = base.join(format!("{PREFIX}dead"));
        std::fs::create_dir(&killed).unwrap();
        std::fs::write(killed.join(LOCK), "").unwrap();
        let second = Folder::new(&base).unwrap();
        assert!(!killed.exists());
        assert!(file.exists() && second.path().exists(), "what is in use stays");
        drop((live, second));
        assert_eq!(std::fs::read_dir(&base).unwrap().count(), 0);
        std::fs::remove_dir(&base).unwrap();
        assert!(Folder::new(Path::new("/proc")).is_err(), "no tmpfs");
    }
}
