//! A report cut into its findings: a JSON array, alone or in an object, or one JSON object a line. One finding at a time is
//! in memory, in a buffer that never moves and is wiped after use, as is what was read ahead.

mod inside;

use std::io::{ErrorKind, Read};

use secrecy::zeroize::{Zeroize as _, Zeroizing};

use super::{BadItem, MAX_ITEM_BYTES, Why};

const CHUNK_BYTES: usize = 64 * 1024;

/// A finding in the buffer.
pub(super) struct Piece {
    /// On which it begins.
    pub(super) line: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// Nothing was read yet.
    Unknown,
    Lines,
    /// `true`: an item was read, so that a comma or the end must follow.
    Array(bool),
    /// No more.
    Over,
}

pub(super) struct Items<R> {
    report: R,
    chunk: Zeroizing<Vec<u8>>,
    at: usize,
    item: Zeroizing<Vec<u8>>,
    too_large: bool,
    line: u64,
    framing: Framing,
    /// The name of the list in the report's one object; `None`: the report is the list.
    list: Option<&'static str>,
}

impl<R: Read> Items<R> {
    pub(super) fn new(report: R) -> Self {
        Self {
            report,
            chunk: Zeroizing::new(Vec::with_capacity(CHUNK_BYTES)),
            at: 0,
            item: Zeroizing::new(Vec::with_capacity(MAX_ITEM_BYTES)),
            too_large: false,
            line: 1,
            framing: Framing::Unknown,
            list: None,
        }
    }

    /// The finding that [`Self::next`] found.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.item
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.item.capacity()
    }

    /// Finds the next one. What is wrong with the frame around the findings ends the report.
    pub(super) fn next(&mut self) -> Option<Result<Piece, BadItem>> {
        self.forget();
        match self.step() {
            Ok(None) => {
                self.framing = Framing::Over;
                None
            }
            Ok(Some(line)) if self.too_large => Some(Err(BadItem { line, why: Why::TooLarge })),
            Ok(Some(line)) => Some(Ok(Piece { line })),
            Err(why) => {
                self.framing = Framing::Over;
                Some(Err(BadItem { line: self.line, why }))
            }
        }
    }

    fn forget(&mut self) {
        self.item.as_mut_slice().zeroize();
        self.item.clear();
        self.too_large = false;
    }

    /// The line of the next finding.
    fn step(&mut self) -> Result<Option<u64>, Why> {
        if self.framing == Framing::Over {
            return Ok(None);
        }
        if self.framing == Framing::Unknown
            && let Some(name) = self.list
        {
            self.enter(name)?;
        }
        let Some(mut first) = self.skip_space()? else {
            return if matches!(self.framing, Framing::Array(_)) { Err(Why::Cut) } else { Ok(None) };
        };
        if self.framing == Framing::Unknown {
            self.framing = match first {
                b'[' => Framing::Array(false),
                b'{' => Framing::Lines,
                _ => return Err(Why::NoReport),
            };
            if first == b'[' {
                self.take()?;
                first = self.skip_space()?.ok_or(Why::Cut)?;
            }
        }
        let Framing::Array(between) = self.framing else {
            return self.line().map(Some);
        };
        if first == b']' {
            self.take()?;
            if let Some(name) = self.list {
                self.leave(name)?;
            }
            return if self.skip_space()?.is_none() { Ok(None) } else { Err(Why::NoReport) };
        }
        if between {
            if first != b',' {
                return Err(Why::NoReport);
            }
            self.take()?;
            self.skip_space()?.ok_or(Why::Cut)?;
        }
        self.framing = Framing::Array(true);
        self.value(b']').map(Some)
    }

    /// To the end of the line.
    fn line(&mut self) -> Result<u64, Why> {
        let line = self.line;
        while let Some(byte) = self.take()? {
            if byte == b'\n' {
                break;
            }
            self.keep(byte);
        }
        Ok(line)
    }

    /// To the end of the object or list; of anything else, to the comma after it or to what ends what it stands in.
    fn value(&mut self, end: u8) -> Result<u64, Why> {
        let line = self.line;
        let (mut depth, mut in_text, mut escaped) = (0_u64, false, false);
        loop {
            let byte = self.peek()?.ok_or(Why::Cut)?;
            if depth == 0 && !in_text && (byte == b',' || byte == end) {
                return Ok(line);
            }
            self.take()?;
            self.keep(byte);
            if in_text {
                (in_text, escaped) = (escaped || byte != b'"', !escaped && byte == b'\\');
                continue;
            }
            match byte {
                b'"' => in_text = true,
                b'{' | b'[' => depth += 1,
                b'}' | b']' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        return Ok(line);
                    }
                }
                _ => {}
            }
        }
    }

    fn keep(&mut self, byte: u8) {
        // Never beyond its capacity: it would move, and leave a copy behind.
        if self.item.len() < MAX_ITEM_BYTES {
            self.item.push(byte);
        } else {
            self.too_large = true;
        }
    }

    /// The next byte that is no white space, which stays.
    fn skip_space(&mut self) -> Result<Option<u8>, Why> {
        while let Some(byte) = self.peek()? {
            if !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                return Ok(Some(byte));
            }
            self.take()?;
        }
        Ok(None)
    }

    fn take(&mut self) -> Result<Option<u8>, Why> {
        let byte = self.peek()?;
        if let Some(byte) = byte {
            self.at += 1;
            self.line += u64::from(byte == b'\n');
        }
        Ok(byte)
    }

    fn peek(&mut self) -> Result<Option<u8>, Why> {
        if self.at == self.chunk.len() {
            // As large as it may be, within its capacity; what stands in it is overwritten.
            self.chunk.resize(CHUNK_BYTES, 0);
            let read = loop {
                match self.report.read(&mut self.chunk) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    read => break read,
                }
            };
            let read = read.unwrap_or(usize::MAX);
            self.at = 0;
            self.chunk.truncate(if read == usize::MAX { 0 } else { read });
            if read == usize::MAX {
                return Err(Why::Read);
            }
        }
        Ok(self.chunk.get(self.at).copied())
    }
}
