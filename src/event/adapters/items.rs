//! A report cut into its findings: a JSON array, or one JSON object a line. One finding at a time is in memory, in a
//! buffer that never moves and is wiped after use, as is what was read ahead.

use std::borrow::Cow;
use std::io::{ErrorKind, Read};

use secrecy::zeroize::{Zeroize as _, Zeroizing};

use super::{BadItem, MAX_ITEM_BYTES, Why};
use crate::event::tree::{self, Entries, Node};

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
        self.item.as_mut_slice().zeroize();
        self.item.clear();
        self.too_large = false;
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

    /// The line of the next finding.
    fn step(&mut self) -> Result<Option<u64>, Why> {
        if self.framing == Framing::Over {
            return Ok(None);
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
        self.value().map(Some)
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

    /// To the end of the object; of anything else, to what ends it.
    fn value(&mut self) -> Result<u64, Why> {
        let line = self.line;
        let (mut depth, mut in_text, mut escaped) = (0_u64, false, false);
        loop {
            let byte = self.peek()?.ok_or(Why::Cut)?;
            if depth == 0 && !in_text && matches!(byte, b',' | b']') {
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

/// JSON whose own copies of texts are wiped when it is dropped. What it borrows, its owner wipes.
pub(super) struct Wiped<'a>(pub(super) Node<'a>);

impl Drop for Wiped<'_> {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

fn wipe(node: &mut Node<'_>) {
    match node {
        Node::Text(text) => wipe_text(text),
        Node::List(items) => items.iter_mut().for_each(wipe),
        Node::Object(entries) => entries.iter_mut().for_each(|(name, node)| {
            wipe_text(name);
            wipe(node);
        }),
        Node::Null | Node::Bool(_) | Node::Int(_) | Node::Uint(_) | Node::Float(_) => {}
    }
}

fn wipe_text(text: &mut Cow<'_, str>) {
    if let Cow::Owned(text) = text {
        text.zeroize();
    }
}

/// An object, read by name; what has another type than asked for is not there.
#[derive(Clone, Copy)]
pub(super) struct Object<'t, 'a>(&'t Entries<'a>);

impl<'t, 'a> Object<'t, 'a> {
    pub(super) fn of(node: &'t Node<'a>) -> Option<Self> {
        if let Node::Object(entries) = node { Some(Self(entries)) } else { None }
    }

    /// A text that is not empty.
    pub(super) fn text(self, name: &str) -> Option<&'t str> {
        match tree::get(self.0, name)? {
            Node::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    pub(super) fn integer(self, name: &str) -> Option<i64> {
        match tree::get(self.0, name)? {
            Node::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// `true`, or the word: Go's maps of texts have it so.
    pub(super) fn is_true(self, name: &str) -> bool {
        match tree::get(self.0, name) {
            Some(Node::Bool(flag)) => *flag,
            Some(Node::Text(text)) => text.eq_ignore_ascii_case("true"),
            _ => false,
        }
    }

    pub(super) fn object(self, name: &str) -> Option<Self> {
        Self::of(tree::get(self.0, name)?)
    }

    /// The first object in it, with its name.
    pub(super) fn first_object(self) -> Option<(&'t str, Self)> {
        self.0.iter().find_map(|(name, node)| Some((name.as_ref(), Self::of(node)?)))
    }

    /// Its texts that are not empty, with their names.
    pub(super) fn texts(self) -> impl Iterator<Item = (&'t str, &'t str)> {
        self.0.iter().filter_map(|(name, node)| match node {
            Node::Text(text) if !text.is_empty() => Some((name.as_ref(), text.as_ref())),
            _ => None,
        })
    }
}
