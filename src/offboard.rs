//! Who is to be retired with all that it holds, as plain facts. PURE.
//!
//! An offboarding is a state, and no shot: as long as it stands, what reach shows of such an identity is a finding
//! ([`crate::reach::notice`]), also what is minted afterwards. The word of each topic counts for itself, with its own authority.

use serde::{Deserialize, Serialize};

use crate::credential::CredentialId;
use crate::reach::{Node, NodeKind};
use crate::task::Tenant;

/// So many are read. More make the reading of the journal a part, from which nothing is concluded.
pub const MOST: u32 = 10_000;
/// How long a fence stands where nobody says.
pub const FENCE_MS: i64 = 30 * 86_400_000;
/// How long a fence stands at the most: what a case had found there is kept longer than that.
pub const LONGEST_FENCE_MS: i64 = 366 * 86_400_000;

/// One word on one of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offboarding {
    /// Whose.
    pub tenant: Tenant,
    /// Who leaves: an identity, an agent, an owner, or one credential.
    pub node: Node,
    /// The topic that says so: its authority bounds what follows.
    pub topic: String,
    /// Since when.
    pub since_ms: i64,
    /// When the fences end that are set because of it (our clock).
    pub until_ms: i64,
    /// The operator who said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why.
    pub reason: String,
}

/// Who can be offboarded.
const LEAVERS: [NodeKind; 4] = [NodeKind::Identity, NodeKind::Agent, NodeKind::Owner, NodeKind::Credential];

/// Whether a node can be offboarded.
pub fn can_leave(node: &Node) -> bool {
    LEAVERS.contains(&node.kind)
}

/// Reads who is meant: `identity:…`, `agent:…`, `owner:…`, or a credential, in its one spelling. `None`: nobody that could leave.
pub fn leaver(text: &str) -> Option<Node> {
    let node = Node::parse(text).ok().filter(can_leave)?;
    if node.kind != NodeKind::Credential {
        return Some(node);
    }
    Node::new(NodeKind::Credential, CredentialId::parse(&node.name).ok()?.as_str()).ok()
}

/// When a fence ends that is said at `now_ms` to stand until `wish_ms`: where nothing is said, after `usual_ms`.
pub fn until_ms(now_ms: i64, wish_ms: Option<i64>, usual_ms: i64) -> i64 {
    wish_ms.unwrap_or_else(|| now_ms.saturating_add(usual_ms)).min(now_ms.saturating_add(LONGEST_FENCE_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_can_leave_is_offboarded_and_under_one_name() {
        for text in ["identity:prod/approle/etl", "agent:triage", "owner:bob"] {
            assert_eq!(leaver(text).unwrap().to_string(), text);
        }
        let one = leaver("urn:curfew:cred:vault-secret-id:prod:approle%2Fetl/a").unwrap();
        assert_eq!(&*one.name, "urn:curfew:cred:vault-secret-id:prod:approle/etl/a");
        for text in ["", "etl", "policy:prod/etl", "target:appdb", "zone:pci", "task:/ci:1", "urn:x", "credential:x"] {
            assert_eq!(leaver(text), None, "{text}");
        }
    }

    #[test]
    fn a_fence_ends_and_no_wish_makes_it_stand_for_ever() {
        assert_eq!(until_ms(1_000, None, 500), 1_500);
        assert_eq!(until_ms(1_000, Some(7), 500), 7, "over before it began: nothing is fenced");
        assert_eq!(until_ms(1_000, Some(i64::MAX), 500), 1_000 + LONGEST_FENCE_MS);
    }
}
