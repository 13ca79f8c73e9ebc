//! Who shares a value: what is read, and each mistake with what to do about it.

use super::*;
use crate::case::plan::Agent;

const HEAD: &str = "
realms: [{name: prod, mode: enforce, vault: {address: 'http://127.0.0.1:8200', token_file: t}}]
targets: [{name: appdb, mode: enforce, postgres: {url_file: u}}, {name: other, mode: enforce, postgres: {url_file: u}}]
";

fn with(shared: &str, own: &str, reductions: &str) -> Result<Config, Invalid> {
    parse(&format!(
        "{HEAD}reductions: [{reductions}]
rotations:
  - {{name: shared, target: appdb, roles: [agents], store: {{realm: prod, path: apps/agents}}, split: [{shared}]}}
  - {{name: own, target: appdb, roles: [agent_a], {own}}}
"
    ))
}

const OWN: &str = "store: {realm: prod, path: agents/a, user_field: username}";
const MAKES: &str = "{system: appdb, identities: ['agent_*'], url_file: r}";

#[test]
fn a_split_names_who_gets_which_user() {
    let needs = "{agent: a, rotation: own, needs: ['schema:shop:USAGE', 'member:readers']}";
    let config = with(needs, OWN, MAKES).unwrap();
    let recipe = config.recipes.iter().find(|recipe| recipe.name == "shared").unwrap();
    let [share] = recipe.shares.as_slice() else { panic!("{:?}", recipe.shares) };
    assert_eq!(share.agent, Agent { name: "a".into(), user: "agent_a".into() });
    assert_eq!(share.recipe.users, Users::Two("agents".into(), "agent_a".into()));
    assert_eq!((share.recipe.place.path.as_str(), share.needs.as_ref().unwrap().len()), ("agents/a", 2));
    assert_eq!(with("{agent: a, rotation: own}", OWN, MAKES).unwrap().recipes[0].shares[0].needs, None);
}

#[test]
fn what_is_no_split_says_why() {
    let one = "{agent: a, rotation: own}";
    let of_another = "store: {realm: prod, path: agents/a}";
    for (shared, own, reductions, why) in [
        ("{agent: a, rotation: owm}", OWN, MAKES, "there is no rotation `owm`"),
        ("{agent: a, rotation: shared}", OWN, MAKES, "an agent's own rotation is another one at the same target"),
        (&format!("{one}, {one}"), OWN, MAKES, "each agent is named once"),
        ("{agent: a, rotation: own}, {agent: b, rotation: own}", OWN, MAKES, "each agent has a user of its own"),
        (one, of_another, MAKES, "`store.user_field` says whose value it is"),
        (one, &format!("consumers: [b], {OWN}"), MAKES, "name the agent alone: by that name it answers"),
        (one, OWN, "", "nobody may make the user of rotation `own`"),
        (one, OWN, "{system: appdb, identities: [etl], url_file: r}", "nobody may make the user of rotation `own`"),
        ("{agent: a, rotation: own, needs: []}", OWN, MAKES, "between one and 32 permissions"),
        ("{agent: a, rotation: own, needs: ['policy:x']}", OWN, MAKES, "permissions of a PostgreSQL"),
        ("{agent: a, rotation: own, needs: [x]}", OWN, MAKES, "a permission is <sort>:<what>"),
    ] {
        let said = with(shared, own, reductions).unwrap_err().to_string();
        assert!(said.contains(why), "{shared}: {said}");
    }
    let two = with(one, OWN, MAKES).map(drop);
    assert!(two.is_ok());
    let shape = format!(
        "{HEAD}reductions: [{MAKES}]
rotations:
  - {{name: shared, target: appdb, roles: [a, b], store: {{realm: prod, path: x, user_field: u}}, split: [{one}]}}
  - {{name: own, target: appdb, roles: [agent_a], {OWN}}}
"
    );
    assert!(parse(&shape).unwrap_err().to_string().contains("`split` is for the value of a single user"));
}
