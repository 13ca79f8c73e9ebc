//! Follows the file of an audit device: by whole lines, over restarts and rotations.
//!
//! Rotated by renaming (Vault opens a new file at SIGHUP): what is left of the old file is read to its end, and then the new one.
//! Where the old file is not found any more, or another one came between, or the file was cut short (`copytruncate` loses what
//! is written between its copy and its cut), something may have been missed: that is a gap. What is read stays in memory no
//! longer than its line is looked at.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::Position;
use super::line::MAX_LINE;
use crate::event::digest16;

/// So much is read before it becomes durable, in bytes.
const MOST_BYTES: u64 = 16 << 20;
/// So much before a position is what it is known by, in bytes.
const TAIL: u64 = 512;
/// So many files beside the log are looked at.
const MOST_FILES: usize = 4_096;

/// What one turn has read.
#[derive(Debug)]
pub struct Turn {
    /// Where it ended.
    pub position: Position,
    /// Something may have been missed before what was read.
    pub gap: bool,
    /// Nothing more stands there now.
    pub caught_up: bool,
    /// Lines that are too long, or were cut at the end of a file.
    pub broken: u64,
}

/// Where reading goes on.
struct Start {
    file: File,
    offset: u64,
    gap: bool,
    /// It was renamed, and this is its successor.
    next: Option<File>,
}

fn is(meta: &Metadata, position: &Position) -> bool {
    (meta.dev(), meta.ino()) == (position.device, position.inode)
}

/// The digest of what stands before `offset`.
fn tail(file: &File, offset: u64) -> io::Result<String> {
    let long = offset.min(TAIL);
    let mut bytes = vec![0; usize::try_from(long).unwrap_or(0)];
    file.read_exact_at(&mut bytes, offset - long)?;
    Ok(hex::encode(digest16(&[&bytes])))
}

/// Whether the file still has before the position what it had.
fn goes_on(file: &File, meta: &Metadata, position: &Position) -> io::Result<bool> {
    Ok(meta.len() >= position.offset && tail(file, position.offset)? == position.tail)
}

/// Files called as the log is, and more: where rotated ones go.
fn beside(path: &Path) -> io::Result<Vec<PathBuf>> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_owned();
    // `audit.log` becomes `audit.log.1`, `audit.log-20261127` or `audit-2026-11-27.log`.
    let stem = path.file_stem().unwrap_or_default().as_encoded_bytes().to_owned();
    let fits = |other: &OsStr| *other != *name && other.as_encoded_bytes().starts_with(&stem);
    let entries = std::fs::read_dir(folder)?.take(MOST_FILES).filter_map(Result::ok);
    Ok(entries.filter(|entry| fits(&entry.file_name())).map(|entry| entry.path()).collect())
}

fn start(path: &Path, position: Option<&Position>) -> io::Result<Start> {
    let current = File::open(path).and_then(|file| file.metadata().map(|meta| (file, meta)));
    let Some(position) = position else {
        let (file, _) = current?;
        return Ok(Start { file, offset: 0, gap: true, next: None });
    };
    if let Ok((file, meta)) = &current
        && is(meta, position)
    {
        let goes_on = goes_on(file, meta, position)?;
        let offset = if goes_on { position.offset } else { 0 };
        return Ok(Start { file: file.try_clone()?, offset, gap: !goes_on, next: None });
    }
    // It was renamed, and is read to its end first.
    let mut others = Vec::new();
    for other in beside(path)? {
        // Opened, a pipe would keep us.
        if std::fs::metadata(&other).is_ok_and(|meta| meta.is_file())
            && let Ok(file) = File::open(&other)
            && let Ok(meta) = file.metadata()
            && meta.is_file()
        {
            others.push((file, meta));
        }
    }
    let at = others.iter().position(|(_, meta)| is(meta, position));
    let old = at.map(|at| others.swap_remove(at));
    if let Some((file, meta)) = old
        && goes_on(&file, &meta, position)?
    {
        // Vault writes into the old one until it opens the new one.
        let next = current.ok().filter(|(_, new)| new.len() > 0).map(|(next, _)| next);
        let between =
            |(_, other): &(File, Metadata)| (other.mtime(), other.mtime_nsec()) > (meta.mtime(), meta.mtime_nsec());
        let gap = next.is_some() && others.iter().any(between);
        return Ok(Start { file, offset: position.offset, gap, next });
    }
    let (file, _) = current?;
    Ok(Start { file, offset: 0, gap: true, next: None })
}

/// Reads on from `position` (`None`: from the beginning of the file), and shows each whole line without its end.
///
/// # Errors
/// The file cannot be read: nothing is known, and nothing is lost.
pub fn turn(path: &Path, position: Option<&Position>, mut show: impl FnMut(&[u8])) -> io::Result<Turn> {
    let Start { file, mut offset, gap, next } = start(path, position)?;
    let (mut left, mut broken) = (MOST_BYTES, 0);
    let ended = lines(&file, &mut offset, &mut left, &mut broken, &mut show)?;
    let Some(next) = next.filter(|_| ended) else {
        let meta = file.metadata()?;
        let position = Position { device: meta.dev(), inode: meta.ino(), offset, tail: tail(&file, offset)? };
        return Ok(Turn { position, gap, caught_up: ended, broken });
    };
    // What stands behind its last whole line will never be one.
    broken += u64::from(file.metadata()?.len() > offset);
    let meta = next.metadata()?;
    let position = Position { device: meta.dev(), inode: meta.ino(), offset: 0, tail: tail(&next, 0)? };
    Ok(Turn { position, gap, caught_up: false, broken })
}

/// Whole lines from `offset` on. Whether the end was reached.
fn lines(
    file: &File,
    offset: &mut u64,
    left: &mut u64,
    broken: &mut u64,
    show: &mut impl FnMut(&[u8]),
) -> io::Result<bool> {
    let mut reader = BufReader::with_capacity(1 << 16, file.try_clone()?);
    reader.seek(SeekFrom::Start(*offset))?;
    let limit = u64::try_from(MAX_LINE).unwrap_or(u64::MAX) + 1;
    let mut line = Vec::new();
    while *left > 0 {
        line.clear();
        let mut size = reader.by_ref().take(limit).read_until(b'\n', &mut line)? as u64;
        let is_too_long = size == limit && line.last() != Some(&b'\n');
        while is_too_long && line.last() != Some(&b'\n') {
            line.clear();
            let more = reader.by_ref().take(limit).read_until(b'\n', &mut line)? as u64;
            if more == 0 {
                break;
            }
            size += more;
        }
        // The rest of it is still to come.
        if line.last() != Some(&b'\n') {
            return Ok(true);
        }
        if is_too_long {
            *broken += 1;
        } else if line.len() > 1 {
            show(&line[..line.len() - 1]);
        }
        *offset += size;
        *left = left.saturating_sub(size);
    }
    Ok(false)
}
