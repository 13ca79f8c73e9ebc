//! JSON as a tree that borrows from the record's bytes: one pass for syntax, depth and doubled names.
//!
//! Objects with a name twice are refused. Parsers differ in which of the two they believe (RFC 8259 §4), so a producer's
//! gate and Curfew could read two different events in the same bytes; I-JSON (RFC 7493) forbids them for this reason.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::RejectReason;

/// `serde_json` stops at the 128th level by itself, before asking us; below that the limit is ours, and told apart from
/// bad syntax.
const DEEPEST: usize = 126;

/// A JSON value.
#[derive(Debug)]
pub(super) enum Node<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// Only what does not fit an `i64`.
    Uint(u64),
    Float(f64),
    Text(Cow<'a, str>),
    List(Vec<Node<'a>>),
    /// Sorted by name, each name once.
    Object(Entries<'a>),
}

/// The entries of an object.
pub(super) type Entries<'a> = Vec<(Cow<'a, str>, Node<'a>)>;

/// The names that are read of an object, or of each object in a list. `None`: all that stands there.
pub(super) struct Names(pub(super) &'static [(&'static str, Option<&'static Self>)]);

impl Names {
    /// Whether `name` is read, and what within it.
    fn within(&self, name: &str) -> Option<Option<&'static Self>> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, within)| *within)
    }
}

/// Reads exactly one JSON value.
pub(super) fn parse(text: &str, max_depth: usize) -> Result<Node<'_>, RejectReason> {
    parse_as(text, max_depth, None)
}

/// Reads of exactly one JSON value what `names` say. All else is passed over: it is checked to be JSON, and no more than
/// that; nothing of it is kept, and it may be as deep as it likes.
pub(super) fn parse_only<'a>(text: &'a str, max_depth: usize, names: &'static Names) -> Result<Node<'a>, RejectReason> {
    parse_as(text, max_depth, Some(names))
}

fn parse_as<'a>(text: &'a str, max_depth: usize, only: Option<&'static Names>) -> Result<Node<'a>, RejectReason> {
    let too_deep = Cell::new(false);
    let mut json = serde_json::Deserializer::from_str(text);
    let seed = Seed { room: max_depth.min(DEEPEST), too_deep: &too_deep, only };
    // The parser's words are dropped: they can quote the bytes.
    seed.deserialize(&mut json)
        .and_then(|node| json.end().map(|()| node))
        .map_err(|_| if too_deep.get() { RejectReason::TooDeep } else { RejectReason::BadJson })
}

/// The value of `name`; an explicit null counts as left out.
pub(super) fn get<'t, 'a>(entries: &'t [(Cow<'a, str>, Node<'a>)], name: &str) -> Option<&'t Node<'a>> {
    let place = entries.binary_search_by(|(known, _)| known.as_ref().cmp(name)).ok()?;
    Some(&entries[place].1).filter(|node| !matches!(node, Node::Null))
}

impl Node<'_> {
    /// The one spelling of this value: no spaces, names sorted, a number that is whole written as such.
    pub(super) fn canonical(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(true) => out.extend_from_slice(b"true"),
            Self::Bool(false) => out.extend_from_slice(b"false"),
            Self::Int(n) => write(out, n),
            Self::Uint(n) => write(out, n),
            // 2^53: up to here every whole float is exactly one integer.
            #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
            Self::Float(n) if n.fract() == 0.0 && n.abs() < 9_007_199_254_740_992.0 => write(out, &(*n as i64)),
            Self::Float(n) => write(out, n),
            Self::Text(text) => write(out, text),
            Self::List(items) => {
                out.push(b'[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    item.canonical(out);
                }
                out.push(b']');
            }
            Self::Object(entries) => {
                out.push(b'{');
                for (i, (name, value)) in entries.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    write(out, name);
                    out.push(b':');
                    value.canonical(out);
                }
                out.push(b'}');
            }
        }
    }
}

fn write<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, scalar: &T) {
    serde_json::to_writer(out, scalar).expect("a scalar is always written to memory");
}

/// Reads one value from any parser.
#[derive(Clone, Copy)]
pub(super) struct Seed<'c> {
    /// How many more arrays and objects may open.
    pub(super) room: usize,
    pub(super) too_deep: &'c Cell<bool>,
    /// What of an object is read; `None`: all.
    pub(super) only: Option<&'static Names>,
}

impl Seed<'_> {
    fn inner<E: Error>(self) -> Result<Self, E> {
        let Some(room) = self.room.checked_sub(1) else {
            self.too_deep.set(true);
            return Err(E::custom("too deep"));
        };
        Ok(Self { room, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Node<'de>;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Node<'de>, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Node<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E: Error>(self) -> Result<Node<'de>, E> {
        Ok(Node::Null)
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<Node<'de>, E> {
        Ok(Node::Bool(value))
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<Node<'de>, E> {
        Ok(Node::Int(value))
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<Node<'de>, E> {
        Ok(i64::try_from(value).map_or(Node::Uint(value), Node::Int))
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Node<'de>, E> {
        Ok(Node::Float(value))
    }
    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Node<'de>, E> {
        Ok(Node::Text(Cow::Borrowed(value)))
    }
    fn visit_str<E: Error>(self, value: &str) -> Result<Node<'de>, E> {
        Ok(Node::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node<'de>, A::Error> {
        let inner = self.inner()?;
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node<'de>, A::Error> {
        let inner = self.inner()?;
        let mut entries = Vec::with_capacity(8);
        while let Some(name) = map.next_key_seed(Name)? {
            let only = match inner.only.map(|names| names.within(&name)) {
                None => None,
                Some(Some(within)) => within,
                Some(None) => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            entries.push((name, map.next_value_seed(Seed { only, ..inner })?));
        }
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        if entries.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(A::Error::custom("a name stands twice"));
        }
        Ok(Node::Object(entries))
    }
}

struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Cow<'de, str>, D::Error> {
        json.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }
    fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(name))
    }
    fn visit_str<E: Error>(self, name: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}
