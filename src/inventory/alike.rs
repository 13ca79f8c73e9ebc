//! Which places hold the same value: a rotation that knows one of them breaks who reads the others. PURE.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Learned;
use crate::fingerprint::Fingerprint;

/// Places that are remembered.
const PLACES: usize = 100_000;

/// What was read of current values, by one process. Nothing but keyed fingerprints.
#[derive(Debug, Default)]
pub struct Alike {
    /// Places of rotations, and of their copies: to the rotation's name.
    declared: BTreeMap<String, String>,
    values: BTreeMap<String, Fingerprint>,
    places: HashMap<Fingerprint, BTreeSet<String>>,
}

impl Alike {
    /// Knows where rotations write: place (as in [`Learned::place`]) → the rotation's name.
    pub fn new(declared: BTreeMap<String, String>) -> Self {
        Self { declared, ..Self::default() }
    }

    /// A secret (`<realm>/<mount>/<path>`) was read anew: what it held before counts no more.
    pub fn forget(&mut self, secret: &str) {
        let start = format!("{secret}#");
        let held = self.values.range(start.clone()..).take_while(|(place, _)| place.starts_with(&start));
        let held: Vec<String> = held.map(|(place, _)| place.clone()).collect();
        held.iter().for_each(|place| self.remove(place));
    }

    fn remove(&mut self, place: &str) {
        let before = self.values.remove(place);
        if let Some(before) = before
            && let Some(places) = self.places.get_mut(&before)
        {
            places.remove(place);
            if places.is_empty() {
                self.places.remove(&before);
            }
        }
    }

    /// A value was read. Values before the current one are left out: they are dead, or will be.
    pub fn note(&mut self, learned: &Learned) {
        if !learned.current {
            return;
        }
        self.remove(&learned.place);
        let Some(newest) = learned.fingerprints.first().filter(|_| self.values.len() < PLACES) else { return };
        self.values.insert(learned.place.clone(), newest.clone());
        self.places.entry(newest.clone()).or_default().insert(learned.place.clone());
    }

    /// Places that hold what a rotation rotates, and that it does not name: (rotation, place).
    pub fn undeclared(&self) -> BTreeSet<(String, String)> {
        let mut found = BTreeSet::new();
        for (place, rotation) in &self.declared {
            let alike = self.values.get(place).and_then(|value| self.places.get(value));
            let others = alike.into_iter().flatten().filter(|other| !self.declared.contains_key(*other));
            found.extend(others.map(|other| (rotation.clone(), other.clone())));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(place: &str, value: u8, current: bool) -> Learned {
        let fingerprint = Fingerprint::of_parts("k1", &hex::encode([value; 32])).unwrap();
        Learned {
            place: place.to_owned(),
            version: 1,
            current,
            issued_ms: None,
            user: None,
            fingerprints: vec![fingerprint],
        }
    }

    #[test]
    fn who_reads_the_same_value_elsewhere_is_found_until_it_does_not() {
        let declared = [("prod/kv/billing#password", "billing"), ("prod/kv/copy#password", "billing")];
        let declared = declared.map(|(place, name)| (place.to_owned(), name.to_owned())).into();
        let mut alike = Alike::new(declared);
        alike.note(&learned("prod/kv/other#password", 7, true));
        assert!(alike.undeclared().is_empty());
        alike.note(&learned("prod/kv/billing#password", 7, true));
        // What is declared is written along, and what was replaced is read by nobody.
        alike.note(&learned("prod/kv/copy#password", 7, true));
        alike.note(&learned("prod/kv/old#password", 7, false));
        let other = ("billing".to_owned(), "prod/kv/other#password".to_owned());
        assert_eq!(alike.undeclared(), [other.clone()].into());
        alike.note(&learned("prod/kv/billing#password", 8, true));
        assert!(!alike.undeclared().contains(&("billing".to_owned(), "prod/kv/old#password".to_owned())));
        // The copy lags behind: the other place still holds what it holds.
        assert_eq!(alike.undeclared(), [other].into());
        alike.note(&learned("prod/kv/other#password", 9, true));
        assert!(alike.undeclared().is_empty());
        alike.note(&learned("prod/kv/other#password", 8, true));
        assert_eq!(alike.undeclared().len(), 1);
        alike.forget("prod/kv/othe");
        assert_eq!(alike.undeclared().len(), 1, "a secret is named whole");
        alike.forget("prod/kv/other");
        assert!(alike.undeclared().is_empty(), "it was deleted, or has another field");
    }
}
