//! JSON that may hold a secret: read by name, wiped when it is dropped.

use std::borrow::Cow;

use secrecy::zeroize::Zeroize as _;

use crate::event::tree::{self, Entries, Node};

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

    /// `false`, and not left out.
    pub(super) fn is_false(self, name: &str) -> bool {
        matches!(tree::get(self.0, name), Some(Node::Bool(false)))
    }

    pub(super) fn object(self, name: &str) -> Option<Self> {
        Self::of(tree::get(self.0, name)?)
    }

    /// The first object of a list.
    pub(super) fn first_of(self, name: &str) -> Option<Self> {
        match tree::get(self.0, name)? {
            Node::List(items) => Self::of(items.first()?),
            _ => None,
        }
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
