//! A courier's task says what it does; the database user that it shares with a scout may more. It gets a user of its own with no more
//! than that, works on, and what its task holds then dies with it. The scout notices nothing.

use sqlx::PgConnection;

use super::*;

/// The shared user, in a schema of its own.
struct Office {
    base: String,
    password: String,
    pg: Postgres,
}

impl Office {
    async fn open() -> Self {
        let base = crate::world::unique("office").replace('-', "_");
        let (password, pg) = (crate::canary::made_up("shared-"), Postgres::shared());
        let pool = pg.pool().await;
        for statement in [
            format!("CREATE ROLE {base}_o"),
            format!("CREATE ROLE {base} LOGIN PASSWORD '{password}'"),
            format!("CREATE ROLE {base}_m LOGIN CREATEROLE PASSWORD 'w1tness'"),
            format!("GRANT {base}_o TO {base}_m"),
            format!("CREATE SCHEMA {base} AUTHORIZATION {base}_o"),
            format!("CREATE TABLE {base}.orders (id int); ALTER TABLE {base}.orders OWNER TO {base}_o"),
            format!("CREATE TABLE {base}.cards (id int); ALTER TABLE {base}.cards OWNER TO {base}_o"),
            format!("GRANT USAGE ON SCHEMA {base} TO {base}"),
            format!("GRANT SELECT, INSERT ON {base}.orders TO {base}"),
            format!("GRANT SELECT ON {base}.cards TO {base}"),
        ] {
            pool.execute(AssertSqlSafe(statement)).await.unwrap();
        }
        Self { base, password, pg }
    }

    fn own(&self, agent: &str) -> String {
        format!("{}_{agent}", self.base)
    }

    fn config(&self, folder: &std::path::Path) -> Value {
        let url = format!("postgresql://{}_m:w1tness@{}/postgres", self.base, self.pg.host);
        let url_file = private(folder.join("maker.url"), &url);
        let rotation = |name: &str, user: &str, path: String| {
            json!({"name": name, "target": "appdb", "roles": [user], "adopt_within": "1h",
                "store": {"realm": "prod", "mount": "kv", "path": path, "field": "password", "user_field": "username"}})
        };
        let mut shared = rotation("office-db", &self.base, format!("apps/{}", self.base));
        let agents = ["courier", "scout"];
        shared["split"] = agents.iter().map(|name| json!({"agent": name, "rotation": name})).collect();
        let own = agents.map(|name| rotation(name, &self.own(name), format!("agents/{}", self.own(name))));
        json!({
            "mode": "enforce",
            "topics": {"curfew.tasks": {"strongest": "revoke"}},
            "targets": [{"name": "appdb", "mode": "enforce", "postgres": {"url_file": "pg.url"}}],
            "rotations": std::iter::once(shared).chain(own).collect::<Vec<_>>(),
            "reductions": [{"system": "appdb", "identities": agents.map(|name| self.own(name)), "url_file": url_file}],
            "finds": {"sorts": ["outside"], "strongest": "split"},
            "policy": {"findings": [{"when": {"detector": ["curfew:outside"]}, "then": "split"}]},
        })
    }

    async fn may(&self, user: &str, table: &str, privilege: &str) -> bool {
        let ask = sqlx::query_scalar("SELECT has_table_privilege($1::name, $2, $3)");
        let ask = ask.bind(user).bind(format!("{}.{table}", self.base)).bind(privilege);
        ask.fetch_one(&self.pg.pool().await).await.unwrap()
    }
}

/// What an agent reads in its place.
async fn reads(tower: &Tower, office: &Office, agent: &str) -> (String, String) {
    let (_, told) = tower.admin.call("GET", &format!("kv/data/agents/{}", office.own(agent)), Value::Null).await;
    let text = |name: &str| told["data"]["data"][name].as_str().unwrap_or_default().to_owned();
    (text("username"), text("password"))
}

async fn works(session: &mut PgConnection, office: &Office, table: &str) -> bool {
    let count = format!("SELECT count(*) FROM {}.{table}", office.base);
    session.execute(AssertSqlSafe(count)).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_courier_gets_a_user_for_its_task_alone_and_nobody_else_is_touched() {
    let (tower, office) = (Tower::new().await, Office::open().await);
    let login = tower.admin.token_of(&[&tower.admin.policy("reach", &[]).await]).await;
    let secret = json!({"data": {"username": office.base, "password": office.password}});
    for path in [
        format!("apps/{}", office.base),
        format!("agents/{}", office.own("courier")),
        format!("agents/{}", office.own("scout")),
    ] {
        tower.admin.done("POST", &format!("kv/data/{path}"), secret.clone()).await;
    }
    let keys = tempfile::tempdir().unwrap();
    let mut desk = Desk::open_with(&tower, "{}", &login, office.config(keys.path())).await;
    let folder = desk.folder.path().to_owned();
    let cell = std::cell::RefCell::new(&mut desk);
    let mut no = 0;
    let mut tell = |kind: &str, data: Value| {
        no += 1;
        let event = json!({"specversion": "1.0", "type": format!("dev.curfew.{kind}.v1"), "source": "/office",
            "id": format!("{kind}-{no}"), "data": data});
        fs::write(folder.join("event.json"), event.to_string()).unwrap();
        let (code, said) = cell.borrow_mut().ask(&["publish", "event.json"]);
        assert_eq!(code, Some(0), "{said}");
    };
    let shared = format!("urn:curfew:cred:postgres-role:appdb:{}", office.base);
    let held = json!([{"cred_id": shared, "tenure": "standing"}]);
    let permissions = [format!("schema:{}:USAGE", office.base), format!("relation:{}.orders:SELECT", office.base)];
    let boundary = json!({"actions": [{"target": "appdb", "permissions": permissions}]});
    tell("task.started", json!({"run_id": "s1", "workload_id": "scout", "grants": held}));
    let mut scout = office.pg.login(&office.base, &office.password).await.unwrap();
    tell("task.started", json!({"run_id": "c1", "workload_id": "courier", "grants": held, "boundary": boundary}));

    // It works with what it reads, and comes as its own user when that stands there.
    let mut courier = until("a value of its own", || async {
        let (user, password) = reads(&tower, &office, "courier").await;
        if user != office.own("courier") {
            return None;
        }
        office.pg.login(&user, &password).await.ok()
    })
    .await;
    let case = |credential: String, verdict: &'static str| {
        let cell = &cell;
        async move {
            until(verdict, || {
                let all = cell.borrow_mut().json(&["cases", "--closed"]);
                let is_it = |line: &&Value| {
                    line["case"]["directive"]["credential"] == *credential && line["verdict"]["state"] == verdict
                };
                let found = all.as_array().unwrap().iter().find(is_it).cloned();
                async move { found }
            })
            .await
        }
    };
    let line = case(shared.clone(), "reduced").await;
    let moves = &line["case"]["directive"]["cut"]["moves"];
    assert_eq!((moves[0]["agent"].as_str(), moves.as_array().unwrap().len()), (Some("courier"), 1), "{line}");
    assert_eq!(line["case"]["directive"]["grantors"], json!(["curfew.tasks"]), "on the word of who told of its task");
    assert_eq!(line["verdict"]["residue"], json!(["still_shared"]), "{line}");
    assert_eq!(line["verdict"]["taken"], 2, "INSERT, and the cards");
    let place = cell.borrow_mut().json(&["findings", "--all"])[0]["place"].as_str().unwrap().to_owned();
    assert!(place.starts_with("task:/office:c1 may at appdb relation:") && place.contains(".cards:SELECT"), "{place}");

    let own = office.own("courier");
    assert!(works(&mut courier, &office, "orders").await, "its work goes on");
    assert!(!works(&mut courier, &office, "cards").await);
    for (table, privilege, expected) in
        [("orders", "SELECT", true), ("orders", "INSERT", false), ("cards", "SELECT", false)]
    {
        assert_eq!(office.may(&own, table, privilege).await, expected, "{table} {privilege}");
    }
    assert_eq!(reads(&tower, &office, "scout").await, (office.base.clone(), office.password.clone()));
    assert!(works(&mut scout, &office, "cards").await, "the scout works on, in the same session");

    // Whoever runs the task says what it holds now; what was outside is over.
    let minted = format!("urn:curfew:cred:postgres-role:appdb:{own}");
    tell("grant.registered", json!({"run_id": "c1", "cred_id": minted, "tenure": "minted"}));
    tell("grant.released", json!({"run_id": "c1", "cred_id": shared}));
    until("nothing to be outside", || {
        let all = cell.borrow_mut().json(&["findings", "--all"]);
        let over = all.as_array().unwrap().iter().all(|one| one["phase"] == "closed");
        async move { over.then_some(()) }
    })
    .await;
    let (_, password) = reads(&tower, &office, "courier").await;
    tell("task.ended", json!({"run_id": "c1", "outcome": "success"}));
    case(minted, "dead").await;
    assert!(office.pg.login(&own, &password).await.is_err(), "what its task held died with it");
    assert!(!works(&mut courier, &office, "orders").await, "and its session");
    assert!(works(&mut scout, &office, "orders").await);
    office.pg.login(&office.base, &office.password).await.unwrap();

    desk.running.take().unwrap().end();
    let log = fs::read_to_string(desk.folder.path().join("log")).unwrap();
    let journal = fs::read(desk.folder.path().join("curfew.db")).unwrap();
    for secret in [office.password.as_str(), password.as_str(), &login] {
        assert!(!log.contains(secret), "a secret is in the log");
        assert!(!journal.windows(secret.len()).any(|bytes| bytes == secret.as_bytes()), "a secret is in the journal");
    }
}
