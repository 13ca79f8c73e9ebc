//! What is to be minted is held against what the task is for, before anything is: by what reach knows of the roles and policies.
//!
//! What a role gives at a database is known by its target alone: how much it may there is known when it is minted, and is found then.

use super::{Exec, Plan, Stop};
use crate::reach::ask::{self, Told};
use crate::reach::kept::Answer;
use crate::reach::{Node, NodeKind, known};
use crate::task::Boundary;
use crate::tell::{self, Page};

/// So many targets are named.
const NAMED: usize = 8;

/// Whose reach is asked.
pub struct Reach {
    /// The page.
    pub page: Page,
    /// What is beyond the boundary is only said.
    pub report_only: bool,
}

/// What an answer says of a role or policy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Says {
    /// All that it opens is within the boundary.
    Within,
    /// No source names it.
    Unknown,
    /// Not all sources were read: there may be more.
    Half,
    /// It opens these beyond.
    Beyond(Vec<Node>),
}

/// What a plan mints, as reach calls it.
fn minted(plan: &Plan) -> Vec<Node> {
    let roles = plan.roles.iter().map(|role| (NodeKind::Path, &role.path));
    let policies = plan.policies.iter().map(|name| (NodeKind::Policy, name));
    let all = roles.chain(policies).map(|(kind, name)| Node::new(kind, &format!("{}/{name}", plan.realm)));
    all.filter_map(Result::ok).collect()
}

/// PURE.
fn says(answer: Option<&Answer>, boundary: &Boundary) -> Says {
    let may = known::may(boundary);
    let Some(Answer { told: Told::Reach(reach), whole, .. }) = answer else { return Says::Unknown };
    let beyond = reach.opened.iter().filter(|one| ask::is_beyond(Some(&may), one));
    let beyond: Vec<Node> = beyond.map(|one| one.target.clone()).collect();
    match (beyond.is_empty(), *whole) {
        (false, _) => Says::Beyond(beyond),
        // More than are told one by one is more than was looked at.
        (true, true) if reach.opened.len() >= reach.targets => Says::Within,
        (true, _) => Says::Half,
    }
}

impl Reach {
    async fn of(&self, node: &Node) -> Result<Option<Answer>, tell::Error> {
        let Some(body) = self.page.get(&[("ask", "of"), ("id", &node.to_string())]).await? else { return Ok(None) };
        let answer = serde_json::from_slice(&body);
        answer.map(Some).map_err(|_| tell::Error::Unavailable("what reach answers cannot be read".to_owned()))
    }
}

impl Exec<'_> {
    /// Nothing is minted that opens more than the task is for, as far as reach knows it.
    pub(super) async fn look_within(&self) -> Result<(), Stop> {
        let (Some(reach), Some(boundary)) = (self.reach, &self.plan.run.boundary) else { return Ok(()) };
        for node in minted(self.plan) {
            let answer = reach.of(&node).await;
            let stop = match answer.map(|answer| says(answer.as_ref(), boundary)) {
                Ok(Says::Within) => continue,
                Ok(Says::Unknown) => {
                    (self.say)(&format!("reach does not know {node}: what it opens is not compared"));
                    continue;
                }
                Ok(Says::Half) => {
                    Stop::Unavailable(format!("reach was not read as a whole: {node} may open more than is known"))
                }
                Ok(Says::Beyond(beyond)) => {
                    let named: Vec<String> = beyond.iter().take(NAMED).map(Node::to_string).collect();
                    let more = beyond.len().saturating_sub(NAMED);
                    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                    Stop::Refused(format!("{node} opens {}{more}, beyond what the task is for", named.join(", ")))
                }
                Err(error) => Stop::Unavailable(format!("reach: {error}")),
            };
            match stop {
                Stop::Unavailable(why) | Stop::Refused(why) if reach.report_only => (self.say)(&why),
                stop => return Err(stop),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reach::graph::Graph;
    use crate::reach::{Fact, Via};

    fn answer(whole: bool) -> Answer {
        let node = |text: &str| Node::parse(text).unwrap();
        let edge = |of: &str, to: &str, via| {
            let mut fact = Fact::of(node(of));
            fact.edge_to(Some(&node(to)), via);
            fact
        };
        let mut graph = Graph::default();
        for fact in [
            edge("path:prod/database/creds/ro", "target:appdb", Via::Opens),
            edge("path:prod/database/creds/ro", "target:wiki", Via::Opens),
            edge("target:wiki", "zone:office", Via::In),
        ] {
            graph.add(&"vault:prod".into(), fact, 1_000);
        }
        let reach = ask::reach(&graph, graph.find(&node("path:prod/database/creds/ro")).unwrap());
        Answer { told: Told::Reach(Box::new(reach)), sources: Vec::new(), whole, nodes: 4, edges: 3 }
    }

    #[test]
    fn what_is_minted_opens_no_more_than_the_task_is_for() {
        let of = |targets: &[&str], zones: &[&str]| {
            let names = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
            Boundary { targets: names(targets), zones: names(zones), actions: Vec::new() }
        };
        let beyond = |text: &str| Says::Beyond(vec![Node::parse(text).unwrap()]);
        assert_eq!(says(Some(&answer(true)), &of(&["appdb"], &["office"])), Says::Within);
        assert_eq!(says(Some(&answer(true)), &of(&["appdb"], &[])), beyond("target:wiki"));
        assert_eq!(
            says(Some(&answer(false)), &of(&[], &["office"])),
            beyond("target:appdb"),
            "half is enough for that"
        );
        assert_eq!(says(Some(&answer(false)), &of(&["appdb", "wiki"], &[])), Says::Half);
        assert_eq!(says(None, &of(&[], &[])), Says::Unknown);
        let mut cut = answer(true);
        let Told::Reach(reach) = &mut cut.told else { unreachable!() };
        reach.targets += 1;
        assert_eq!(says(Some(&cut), &of(&["appdb", "wiki"], &[])), Says::Half);
    }
}
