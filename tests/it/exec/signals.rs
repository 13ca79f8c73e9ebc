//! Signals, terminals, and being process 1.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn each_signal_is_passed_on_once_to_the_whole_pipeline() {
    let world = World::new().await;
    let names = ["HUP", "INT", "QUIT", "USR1", "USR2", "TERM"];
    let traps: String = names.iter().map(|name| format!("trap 'echo {name} >> heard' {name}; ")).collect();
    // A second process of the same pipeline hears the last one, too.
    let script = format!(
        "{traps} sh -c \"trap '' HUP USR1 USR2; trap 'echo also > also; exit' TERM; \
         echo ready > ready; while :; do sleep 0.05; done\" & {WAITS}; kill -9 $!"
    );
    let (child, got) = world.begin(&[], &script).await;
    until("the traps of both", || async { world.file("ready").exists().then_some(()) }).await;
    let heard = || fs::read_to_string(world.file("heard")).unwrap_or_default();
    for (nth, name) in names.into_iter().enumerate() {
        signal(&child, name);
        until(name, || async { (heard().lines().count() == nth + 1).then_some(()) }).await;
    }
    assert_eq!(heard().lines().collect::<Vec<_>>(), names);
    until("the rest of the pipeline", || async { world.file("also").exists().then_some(()) }).await;
    fs::write(world.file("go"), "").unwrap();
    ends(child).await;
    world.refused(&got).await;
    world.seen_dead(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_ignored_stays_ignored() {
    let world = World::new().await;
    let (role, binary) = (world.role(), assert_cmd::cargo::cargo_bin!("curfew").display().to_string());
    let line = format!("trap '' HUP; exec {binary} exec --realm test --role {role} -- sh task");
    fs::write(world.file("task"), format!("echo ready > ready; {WAITS}")).unwrap();
    let mut shell = Command::new("sh");
    shell.current_dir(world.path()).env_clear().env("HOME", world.path()).env("PATH", "/usr/bin:/bin");
    shell.env("VAULT_ADDR", &world.vault).env("VAULT_TOKEN", &world.token).kill_on_drop(true);
    let child = shell.args(["-c", &line]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("the task", || async { world.file("ready").exists().then_some(()) }).await;
    signal(&child, "HUP");
    fs::write(world.file("go"), "").unwrap();
    let (code, _, err) = ends(child).await;
    assert_eq!(code, Some(0), "{err}");
    world.seen_gone(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_before_the_command_begins_ends_what_there_is() {
    let world = World::new().await;
    let role = world.role();
    // The database keeps Vault waiting: there is a token by then, and no lease.
    let (lock, table) = (world.pg.pool().await, unique("lock").replace('-', "_"));
    let mut hold = lock.begin().await.unwrap();
    sqlx::query("LOCK TABLE pg_authid IN EXCLUSIVE MODE").execute(&mut *hold).await.unwrap();
    let child = world.exec(&["--role", &role, "--run", &table], WRITES).spawn().unwrap();
    until("Vault to wait", || async {
        let waits = "SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation \
                     WHERE NOT l.granted AND c.relname = 'pg_authid'";
        let count: i64 = sqlx::query_scalar(waits).fetch_one(&lock).await.unwrap();
        (count > 0).then_some(())
    })
    .await;
    signal(&child, "TERM");
    let (code, _, err) = ends(child).await;
    hold.rollback().await.unwrap();
    assert_eq!(code, Some(143), "{err}");
    assert!(err.contains("SIGTERM came before the command was started"), "{err}");
    assert!(world.got().is_none());
    until("no lease", || async { (world.leases().await == 0).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_terminal_ctrl_c_comes_once() {
    let world = World::new().await;
    let role = world.role();
    let binary = assert_cmd::cargo::cargo_bin!("curfew").display().to_string();
    let command =
        "trap 'echo INT >> heard' INT; echo ready > ready; while [ ! -e go ]; do setsid sleep 0.05; done; exit 0";
    fs::write(world.file("task"), command).unwrap();
    // Without `exec` the shell around it would end by the same key.
    let line = format!("exec {binary} exec --realm test --role {role} -- sh task");
    // `script` makes a terminal, and writes what we type to it.
    let mut script = Command::new("env");
    script.args(["--default-signal", "script"]);
    script.current_dir(world.path()).env_clear().env("HOME", world.path()).env("PATH", "/usr/bin:/bin");
    script.env("VAULT_ADDR", &world.vault).env("VAULT_TOKEN", &world.token).env("SHELL", "/bin/sh");
    script.args(["-qec", &line, "typed"]).stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true);
    let mut child = script.spawn().unwrap();
    let mut keys = child.stdin.take().unwrap();
    until("the task at the terminal", || async { world.file("ready").exists().then_some(()) }).await;
    tokio::io::AsyncWriteExt::write_all(&mut keys, b"\x03").await.unwrap();
    until("Ctrl-C", || async { world.file("heard").exists().then_some(()) }).await;
    fs::write(world.file("go"), "").unwrap();
    let status = tokio::time::timeout(Duration::from_secs(60), child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0), "{}", fs::read_to_string(world.file("typed")).unwrap_or_default());
    assert_eq!(fs::read_to_string(world.file("heard")).unwrap(), "INT\n");
    world.seen_gone(1).await;
}

/// `unshare` makes it process 1 of its own name space, as in a container.
#[tokio::test(flavor = "multi_thread")]
async fn as_process_1_it_collects_what_descendants_leave() {
    let world = World::new().await;
    let role = world.role();
    let binary = assert_cmd::cargo::cargo_bin!("curfew").display().to_string();
    let mut exec = Command::new("unshare");
    exec.current_dir(world.path()).env_clear().env("HOME", world.path()).env("PATH", "/usr/bin:/bin");
    exec.env("VAULT_ADDR", &world.vault).env("VAULT_TOKEN", &world.token).kill_on_drop(true);
    // Orphans that end: nobody but process 1 can collect them.
    let task = "for i in 1 2 3; do (sleep 0.1 & ) ; done; sleep 1; ps -eo stat,ppid | grep -c '^Z' > zombies; exit 5";
    exec.args([
        "--fork",
        "--pid",
        "--mount-proc",
        &binary,
        "exec",
        "--realm",
        "test",
        "--role",
        &role,
        "--",
        "sh",
        "-c",
        task,
    ]);
    let output = exec.output().await.unwrap();
    let (code, _, err) = said(&output);
    if err.contains("Operation not permitted") {
        // Not every machine lets a user do this.
        return;
    }
    assert_eq!(code, Some(5), "{err}");
    assert_eq!(fs::read_to_string(world.file("zombies")).unwrap().trim(), "0");
    world.seen_gone(1).await;
}
