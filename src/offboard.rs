//! Who is to be retired with all that it holds, as plain facts. PURE.
//!
//! An offboarding is a state, and no shot: as long as it stands, what reach shows of such an identity is a finding
//! ([`crate::reach::notice`]), also what is minted afterwards. The word of each topic counts for itself, with its own authority.
//!
//! It ends with a word of an operator, or by itself: where reach has known nothing else of whoever leaves for as long as closed cases
//! are kept, there is nothing left that it could be about ([`minded`]).

use petgraph::Direction::{Incoming, Outgoing};
use serde::{Deserialize, Serialize};

use crate::credential::CredentialId;
use crate::reach::graph::Graph;
use crate::reach::{About, Node, NodeKind};
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
    /// Since when reach has known nothing else of who leaves. `None`: it knows something, or has not been asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_since_ms: Option<i64>,
}

impl Offboarding {
    /// When it ends by itself, where nothing of who leaves turns up again until then.
    pub fn ends_ms(&self, keep_ms: i64) -> Option<i64> {
        Some(self.idle_since_ms?.max(self.until_ms).saturating_add(keep_ms))
    }
}

/// What becomes of a word: as it stands, and as it is to stand. `None`: it ends.
pub type Minded = (Offboarding, Option<Offboarding>);

/// What is to be written of the words, where reach is whole: `is_known` says whether it knows anything else of who leaves.
pub fn minded(words: &[Offboarding], is_known: impl Fn(&Node) -> bool, now_ms: i64, keep_ms: i64) -> Vec<Minded> {
    let of = |one: &Offboarding| {
        let since = |idle_since_ms| Some((one.clone(), Some(Offboarding { idle_since_ms, ..one.clone() })));
        match (is_known(&one.node), one.idle_since_ms) {
            (true, Some(_)) => since(None),
            (false, None) => since(Some(now_ms)),
            (false, Some(_)) if one.ends_ms(keep_ms).is_some_and(|ends_ms| ends_ms <= now_ms) => {
                Some((one.clone(), None))
            }
            _ => None,
        }
    };
    words.iter().filter_map(of).collect()
}

/// Whether anything of a node is known beside that somebody named it: what it opens, what lets in as it, who answers for it.
pub fn is_known(graph: &Graph, node: &Node) -> bool {
    let Some(at) = graph.find(node) else { return false };
    let mut links = [Incoming, Outgoing].into_iter().flat_map(|way| graph.links(at, way));
    let said = graph.about(at).map(|about| About { offboarded: None, first_ms: None, ..about.clone() });
    links.next().is_some() || said.is_some_and(|about| about != About::default())
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
    use crate::reach::{Fact, Via};

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

    fn word(idle_since_ms: Option<i64>) -> Offboarding {
        Offboarding {
            tenant: "default".into(),
            node: leaver("agent:a").unwrap(),
            topic: "hr".to_owned(),
            since_ms: 10,
            until_ms: 500,
            by: None,
            reason: "r".to_owned(),
            idle_since_ms,
        }
    }

    #[test]
    fn a_word_ends_when_nothing_else_was_known_for_long_enough_and_its_fences_are_over() {
        let minded = |since, is_known: bool, now_ms| {
            let (before, after) = minded(&[word(since)], |_| is_known, now_ms, 1_000).pop()?;
            assert_eq!(before, word(since), "compared with what stands");
            Some(after.map(|after| after.idle_since_ms))
        };
        assert_eq!(minded(None, true, 9_999), None, "something lives");
        assert_eq!(minded(None, false, 700), Some(Some(Some(700))), "from now on nothing is known");
        assert_eq!(minded(Some(700), false, 1_699), None);
        assert_eq!(minded(Some(700), true, 1_699), Some(Some(None)), "minted anew: it begins again");
        assert_eq!(minded(Some(700), false, 1_700), Some(None), "it ends");
        assert_eq!(minded(Some(20), false, 1_499), None, "its fence ends at 500");
        assert_eq!((word(None).ends_ms(1), word(Some(20)).ends_ms(1_000)), (None, Some(1_500)));
        // What a version before wrote is read, and written, as it was.
        let text = serde_json::to_string(&word(None)).unwrap();
        assert!(!text.contains("idle"));
        assert_eq!(serde_json::from_str::<Offboarding>(&text).unwrap(), word(None));
    }

    #[test]
    fn that_somebody_leaves_makes_nobody_known() {
        let mut graph = Graph::default();
        let known = |graph: &Graph, name: &str| is_known(graph, &leaver(name).unwrap());
        assert!(!known(&graph, "agent:a"));
        let mut fact = Fact::of(leaver("agent:a").unwrap());
        fact.about.first_ms = Some(7);
        fact.about.offboarded = Some(Box::default());
        graph.add(&"journal".into(), fact, 0);
        assert!(!known(&graph, "agent:a"));
        let mut fact = Fact::of(leaver("agent:a").unwrap());
        fact.edge_to(leaver("identity:prod/approle/etl").as_ref(), Via::Runs);
        graph.add(&"declared".into(), fact, 0);
        assert!(known(&graph, "agent:a") && known(&graph, "identity:prod/approle/etl"));
        let mut fact = Fact::of(leaver("owner:bob").unwrap());
        fact.about.label = Some("Bob".to_owned());
        graph.add(&"declared".into(), fact, 0);
        assert!(known(&graph, "owner:bob"));
    }

    #[test]
    fn a_fence_ends_and_no_wish_makes_it_stand_for_ever() {
        assert_eq!(until_ms(1_000, None, 500), 1_500);
        assert_eq!(until_ms(1_000, Some(7), 500), 7, "over before it began: nothing is fenced");
        assert_eq!(until_ms(1_000, Some(i64::MAX), 500), 1_000 + LONGEST_FENCE_MS);
    }
}
