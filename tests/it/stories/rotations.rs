//! Rotations by the real binary, told over HTTP: an operator's word, what consumers answer, and a login with the least
//! rights. The witness tries the old values and the new ones itself.

use curfew::connector::recipe::Adoption;

use super::*;
use crate::canary::{port, private};
use crate::rotation::{Ground, Shape, Victim};

/// A running Curfew that rotates.
struct Desk {
    folder: TempDir,
    http: u16,
    running: Running,
}

impl Desk {
    /// With the login of the realm, and what it rotates.
    async fn open(ground: &Ground, login: &str, rotations: Vec<Value>) -> Self {
        let (folder, http) = (tempfile::tempdir().unwrap(), port());
        private(folder.path().join("token"), login);
        private(folder.path().join("pg.url"), &ground.pg.url);
        let config = json!({
            "topics": {"curfew.tasks": {"events": ["credential.adopted"], "strongest": "track"}},
            "http": {"listen": format!("127.0.0.1:{http}")},
            "metrics": {"listen": format!("127.0.0.1:{}", port())},
            "realms": [{
                "name": "test", "mode": "enforce",
                "vault": {"address": &ground.admin.address, "token_file": "token"},
            }],
            "targets": [{"name": "appdb", "mode": "enforce", "postgres": {"url_file": "pg.url"}}],
            "rotations": rotations,
            "retry": {"first": "50ms", "ceiling": "500ms"},
            "limits": {"effects_per_minute": null},
            "log": {"level": "info,curfew=debug"},
        });
        fs::write(folder.path().join("curfew.yaml"), config.to_string()).unwrap();
        let running = Running::start(folder.path());
        running.runs().await;
        Self { folder, http, running }
    }

    async fn json(&self, args: &[&str]) -> Value {
        let output = ask(self.folder.path(), args).await;
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{args:?}: {output:?}"))
    }

    /// Has it rotated by an operator's word: the case.
    async fn rotate(&self, name: &str, flags: &[&str]) -> String {
        let args = ["rotate", name, "--reason", "a story", "--json"];
        let said = self.json(&[&args, flags].concat()).await;
        said["cases"][0].as_str().unwrap_or_else(|| panic!("{said}")).to_owned()
    }

    /// The line of a case, once it is as wanted.
    async fn case(&self, id: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        until(what, || async {
            let lines = self.json(&["cases", "--closed", "--json"]).await;
            let line = lines.as_array().unwrap().iter().find(|line| line["case"]["id"] == id)?.clone();
            wanted(&line).then_some(line)
        })
        .await
    }

    async fn dead(&self, id: &str) -> Value {
        self.case(id, "the old value to be seen dead", |line| line["verdict"]["state"] == "dead").await
    }

    /// Until consumers may hear of a new version.
    async fn promoted(&self, id: &str, version: i64) {
        let is_new = |line: &Value| line["case"]["state"]["turn"]["new"]["version"] == version;
        self.case(id, "the promotion", is_new).await;
    }

    /// A consumer answers over HTTP.
    async fn answers(&self, victim: &Victim, version: i64, consumer: &str, outcome: Option<&str>) {
        let mut data = json!({"cred_id": victim.credential().as_str(), "version": version, "consumer": consumer});
        if let Some(outcome) = outcome {
            data["outcome"] = outcome.into();
        }
        let event = json!({
            "specversion": "1.0", "type": "dev.curfew.credential.adopted.v1", "source": format!("/apps/{consumer}"),
            "id": format!("{}:{version}", victim.recipe.name), "datacontenttype": "application/json", "data": data,
        });
        let token = fs::read_to_string(self.folder.path().join("intake.token")).unwrap();
        let request = reqwest::Client::new().post(format!("http://127.0.0.1:{}/events", self.http));
        let request = request.bearer_auth(token.trim()).header("content-type", "application/cloudevents+json");
        let answer = request.body(event.to_string()).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    }

    /// Ends it; none of `values` is in its log.
    async fn ends(self, values: &[String]) {
        let (code, log) = self.running.terminate().await;
        assert_eq!(code, Some(0), "{log}");
        assert!(values.iter().all(|value| !log.contains(value.as_str())), "a value is in the log");
    }
}

/// How a victim stands in the configuration, with more about its consumers.
fn rotation(victim: &Victim, more: Value) -> Value {
    let (place, names) = (&victim.recipe.place, victim.recipe.users.names());
    let mut rotation = json!({
        "name": victim.recipe.name,
        "store": {"realm": "test", "mount": place.mount, "path": place.path, "field": place.field},
    });
    if let Some(field) = &place.user_field {
        rotation["store"]["user_field"] = field.as_str().into();
    }
    match names[0].split_once('/') {
        Some((mount, role)) => rotation["approle"] = json!({"realm": "test", "mount": mount, "role": role}),
        None => (rotation["target"], rotation["roles"]) = ("appdb".into(), json!(names)),
    }
    for (key, value) in more.as_object().cloned().unwrap_or_default() {
        rotation[key] = value;
    }
    rotation
}

fn is_of(line: &Value, action: &str) -> bool {
    let directive = &line["case"]["directive"];
    (&directive["action"], &directive["trigger"]) == (&json!(action), &json!("operator"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_has_passwords_rotated_and_leaked_ones_cut_first() {
    let ground = Ground::new().await;
    let one = ground.victim(Shape::One, Adoption::default()).await;
    let two = ground.victim(Shape::Two, Adoption::default()).await;
    let rotations = [&one, &two].map(|victim| rotation(victim, Value::Null)).to_vec();
    let desk = Desk::open(&ground, &ground.admin.curfew_token().await, rotations).await;
    let mut values = Vec::new();
    for mut victim in [one, two] {
        let name = victim.recipe.name.clone();
        let id = desk.rotate(&name, &[]).await;
        let line = desk.dead(&id).await;
        assert!(is_of(&line, "rollover") && line["verdict"]["level"] == "target", "{line}");
        victim.assert_rotated("by an operator's word").await;

        let (version, user, value) = victim.stored().await;
        values.extend([victim.old.1.clone(), value.clone()]);
        victim.old = (user, value);
        let id = desk.rotate(&name, &["--leaked"]).await;
        let line = desk.dead(&id).await;
        assert!(is_of(&line, "contain"), "{line}");
        victim.assert_rotated("leaked").await;
        values.push(victim.stored().await.2);
        let place = &victim.recipe.place;
        let meta = format!("{}/metadata/{}", place.mount, place.path);
        let (_, meta) = ground.admin.call("GET", &meta, Value::Null).await;
        assert_eq!(meta["data"]["versions"][version.to_string()]["destroyed"], true, "{meta}");
        // The old value went before there was another.
        let case = desk.json(&["case", &id, "--json"]).await.to_string();
        let at = |act: &str| case.find(&format!("\"act\":\"{act}\"")).unwrap_or_else(|| panic!("{act}: {case}"));
        assert!(at("disable") < at("create"), "{case}");
        assert!(!values.iter().any(|value| case.contains(value.as_str())));
    }
    let output = ask(desk.folder.path(), &["rotate", "nobody", "--reason", "a story"]).await;
    assert_eq!(output.status.code(), Some(65), "{output:?}");
    desk.ends(&values).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_value_dies_when_all_have_answered_over_http_and_comes_back_where_one_cannot() {
    let ground = Ground::new().await;
    let by_word = json!({"consumers": ["billing", "web"], "consumers_answer": true, "adopt_within": "1h"});
    let mut all = Vec::new();
    for shape in [Shape::One, Shape::Two, Shape::One, Shape::Two] {
        all.push(ground.victim(shape, Adoption::default()).await);
    }
    let rotations = all.iter().map(|victim| rotation(victim, by_word.clone())).collect();
    let desk = Desk::open(&ground, &ground.admin.curfew_token().await, rotations).await;
    let (adopt, fail) = all.split_at(2);
    let mut values = Vec::new();
    for victim in adopt {
        let id = desk.rotate(&victim.recipe.name, &[]).await;
        desk.promoted(&id, 2).await;
        desk.answers(victim, 2, "billing", None).await;
        desk.answers(victim, 1, "web", None).await;
        let heard = |line: &Value| line["case"]["state"]["turn"]["adopted"] == json!(["billing"]);
        desk.case(&id, "the first answer", heard).await;
        // Two users overlap. A single one has a new password by now: what waits is what ends its sessions and its old value.
        let overlaps = victim.recipe.users.names().len() == 2;
        assert_eq!(victim.works(&victim.old).await, overlaps, "one has not answered");
        assert_eq!(victim.version(1).await, victim.old, "the old value is kept until all have answered");
        desk.answers(victim, 2, "web", Some("adopted")).await;
        desk.dead(&id).await;
        victim.assert_rotated("all answered").await;
        values.extend([victim.old.1.clone(), victim.stored().await.2]);
    }
    for victim in fail {
        let id = desk.rotate(&victim.recipe.name, &[]).await;
        desk.promoted(&id, 2).await;
        let new = victim.version(2).await;
        desk.answers(victim, 2, "billing", None).await;
        desk.answers(victim, 2, "web", Some("failed")).await;
        let line = desk.case(&id, "the way back", |line| line["verdict"]["by"] == "unhealthy").await;
        assert_eq!(line["closed_ms"], Value::Null, "{line}");
        let (version, user, value) = victim.stored().await;
        assert_eq!((version, &(user, value)), (3, &victim.old), "consumers read the old value again");
        assert!(victim.works(&victim.old).await && !victim.works(&new).await);
        values.extend([victim.old.1.clone(), new.1]);
    }
    desk.ends(&values).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_id_is_rotated_by_a_login_that_may_do_nothing_else() {
    let ground = Ground::new().await;
    let mut ours = ground.approle(Adoption::default()).await;
    let (name, place) = (ours.victim.old.0.clone(), ours.victim.recipe.place.clone());
    let own = format!("auth/{}/role/{}", ours.mount, "ci");
    let rotate = ground.admin.policy("approle-rotate", &[("auth/approle/role/billing", &own)]).await;
    let kv = [("\"kv/", format!("\"{}/", place.mount)), ("app/database", place.path.clone())];
    let kv = kv.each_ref().map(|(from, to)| (*from, to.as_str()));
    let store = ground.admin.policy("kv-store", &kv).await;
    let login = ground.admin.token_of(&[&rotate, &store]).await;
    let desk = Desk::open(&ground, &login, vec![rotation(&ours.victim, Value::Null)]).await;
    let mut values = vec![login.clone(), ours.victim.old.1.clone()];
    let lists = ground.admin.call_as(&login, "LIST", &format!("{own}/secret-id"), Value::Null).await.0;
    assert_eq!(lists, 403, "the control: this login may do little");
    for (flags, action) in [(&[][..], "rollover"), (&["--leaked"], "contain")] {
        let id = desk.rotate(&ours.victim.recipe.name, flags).await;
        let line = desk.dead(&id).await;
        assert!(is_of(&line, action) && line["verdict"]["level"] == "target", "{line}");
        ours.assert_rotated(action).await;
        let value = ours.victim.stored().await.2;
        values.push(value.clone());
        ours.victim.old = (name.clone(), value);
    }
    assert!(
        !desk.running.log().contains("denied"),
        "nothing was wanted that the policies lack: {}",
        desk.running.log()
    );
    desk.ends(&values).await;
}
