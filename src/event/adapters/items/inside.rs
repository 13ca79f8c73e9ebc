//! A list of findings in the report's one object. What stands beside it is passed over, and wiped.

use std::io::Read;

use super::{Items, Why};

impl<R: Read> Items<R> {
    /// The findings are the list that the report's one object holds under `name`.
    pub(in super::super) fn within(report: R, name: &'static str) -> Self {
        Self { list: Some(name), ..Self::new(report) }
    }

    /// To the list. Without one it is another report.
    pub(super) fn enter(&mut self, name: &str) -> Result<(), Why> {
        if self.skip_space()? != Some(b'{') {
            return Err(Why::NoReport);
        }
        self.take()?;
        let mut is_first = true;
        while self.member(is_first)? {
            if self.is_named(name)? {
                return if self.skip_space()? == Some(b'[') { Ok(()) } else { Err(Why::NoReport) };
            }
            self.pass()?;
            is_first = false;
        }
        Err(Why::NoReport)
    }

    /// From behind the list to the end of the object. A second list of this name would be another one for another reader.
    pub(super) fn leave(&mut self, name: &str) -> Result<(), Why> {
        while self.member(false)? {
            if self.is_named(name)? {
                return Err(Why::NoReport);
            }
            self.pass()?;
        }
        Ok(())
    }

    /// To the name of the next member, or behind the object.
    fn member(&mut self, is_first: bool) -> Result<bool, Why> {
        let mut next = self.skip_space()?.ok_or(Why::Cut)?;
        if next == b'}' {
            self.take()?;
            return Ok(false);
        }
        if !is_first {
            if next != b',' {
                return Err(Why::NoReport);
            }
            self.take()?;
            next = self.skip_space()?.ok_or(Why::Cut)?;
        }
        if next == b'"' { Ok(true) } else { Err(Why::NoReport) }
    }

    /// Reads a member's name, to its value. One that is spelt with escapes is another name.
    fn is_named(&mut self, wanted: &str) -> Result<bool, Why> {
        self.take()?;
        let mut rest = wanted.as_bytes().iter();
        let mut is_same = true;
        loop {
            match self.take()?.ok_or(Why::Cut)? {
                b'"' => break,
                b'\\' => {
                    is_same = false;
                    self.take()?.ok_or(Why::Cut)?;
                }
                byte => is_same &= rest.next() == Some(&byte),
            }
        }
        if self.skip_space()?.ok_or(Why::Cut)? != b':' {
            return Err(Why::NoReport);
        }
        self.take()?;
        self.skip_space()?.ok_or(Why::Cut)?;
        Ok(is_same && rest.next().is_none())
    }

    fn pass(&mut self) -> Result<(), Why> {
        self.value(b'}')?;
        self.forget();
        Ok(())
    }
}
