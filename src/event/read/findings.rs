//! What findings and inventories say of secrets, without the secrets.

use super::{Fault, Fields, MAX_EXACT};
use crate::event::{FindingObserved, Identifier, Location, PartFingerprint, Scanner};
use crate::fingerprint::{ALGORITHM, Fingerprint};

/// Fingerprints and identifiers in one event.
const MAX_PARTS: usize = 16;
const VALIDITIES: [&str; 3] = ["active", "inactive", "unknown"];
const SEVERITIES: [&str; 6] = ["critical", "high", "medium", "low", "info", "unknown"];

impl Fields<'_> {
    pub(super) fn finding(&self) -> Result<FindingObserved, Fault> {
        let validity = self.object("validity", "/data/validity")?;
        let (mut state, mut checked_ms, mut checked_by) = (None, None, None);
        if let Some(validity) = validity {
            state = validity.word("state", &VALIDITIES)?;
            checked_ms = validity.time("checked_at")?;
            checked_by = validity.text("by")?;
        }
        Ok(FindingObserved {
            finding_key: self.required("finding_key")?,
            credential: self.credential()?,
            detector: self.required("detector")?,
            validity: state.unwrap_or_else(|| "unknown".into()),
            checked_ms,
            checked_by,
            public: match self.object("exposure", "/data/exposure")? {
                Some(exposure) => exposure.flag("public", false)?,
                None => false,
            },
            honeytoken: self.flag("honeytoken", false)?,
            reopened: self.flag("reopened", false)?,
            fingerprints: self.fingerprints()?,
            identifiers: self.list("identifiers", "/data/identifiers", MAX_PARTS, |one| {
                Ok(Identifier { kind: one.required("kind")?, value: one.required("value")? })
            })?,
            location: self.location()?,
            severity: self.word("severity", &SEVERITIES)?,
            owner_hint: self.text("owner_hint")?,
            source: self.scanner()?,
            provider: self.text("provider")?,
            detected_ms: self.time("detected_at")?,
            // Reach alone says what of an identity is too much.
            excess: Vec::new(),
            // And who leaves.
            leaves: None,
            // And whom to move.
            moves: Vec::new(),
        })
    }

    pub(super) fn fingerprints(&self) -> Result<Vec<PartFingerprint>, Fault> {
        self.list("fingerprints", "/data/fingerprints", MAX_PARTS, |one| {
            if one.required("alg")? != ALGORITHM {
                return Err(one.wrong("alg"));
            }
            let kid = one.required("kid")?;
            if !crate::fingerprint::is_kid(&kid) {
                return Err(one.wrong("kid"));
            }
            let fingerprint = Fingerprint::of_parts(&kid, &one.required("value")?).map_err(|_| one.wrong("value"))?;
            Ok(PartFingerprint { fingerprint, part: one.text("part")? })
        })
    }

    fn location(&self) -> Result<Option<Location>, Fault> {
        let Some(at) = self.object("location", "/data/location")? else { return Ok(None) };
        Ok(Some(Location {
            kind: at.text("kind")?,
            repo: at.text("repo")?,
            path: at.text("path")?,
            commit: at.text("commit")?,
            line: at.integer("line", 0, MAX_EXACT)?,
            url: at.text("url")?,
        }))
    }

    fn scanner(&self) -> Result<Option<Scanner>, Fault> {
        let Some(by) = self.object("source", "/data/source")? else { return Ok(None) };
        Ok(Some(Scanner {
            tool: by.text("tool")?,
            version: by.text("version")?,
            native_id: by.text("native_id")?,
            url: by.text("url")?,
        }))
    }
}
