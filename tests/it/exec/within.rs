//! What reach knows to open more than the task is for is not minted.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_opens_more_than_the_task_is_for_is_not_minted() {
    let (_vault, admin) = crate::vault::private().await;
    let login = admin.token_of(&[&admin.policy("reach", &[]).await]).await;
    let mut world = World::at(
        admin,
        json!({
            "http": {"reach": {"token_file": "page.token"}},
            "reach": {"every": "1s", "declared": "inventory.yaml", "vaults": [{"realm": "test", "token_file": "reach.token"}]},
        }),
    )
    .await;
    canary::private(world.file("reach.token"), &login);
    canary::private(world.file("page.token"), "page-token-of-this-test");
    canary::private(world.file("wrong.token"), "wrong-token-of-nobody");
    fs::write(world.file("inventory.yaml"), "zones: [{name: pci}]\ntargets: [{name: appdb, zone: pci}]").unwrap();
    world.start().await;
    let role = world.role();
    until("reach to be whole", || async {
        let answer = world.curfew(&["reach", "--sources", "--json"]).await;
        (answer["whole"] == true).then_some(())
    })
    .await;

    let asks = async |flags: &[&str]| {
        let flags = [&["--role", role.as_str(), "--reach-token-file"][..], flags].concat();
        said(&world.exec(&flags, WRITES).output().await.unwrap())
    };
    let (code, _, err) = asks(&["page.token", "--boundary", "target:wiki"]).await;
    assert_eq!(code, Some(125), "{err}");
    assert!(err.contains("opens target:appdb, beyond what the task is for") && err.contains("not started"), "{err}");
    let (code, _, err) = asks(&["wrong.token", "--boundary", "zone:pci"]).await;
    assert!(code == Some(69) && err.contains("reach: "), "what cannot be asked is not within: {err}");
    assert_eq!(asks(&["page.token"]).await.0, Some(2), "without a boundary there is nothing to compare");
    assert!(world.got().is_none(), "nothing ran");
    assert_eq!(world.leases().await, 0, "nothing was minted");
    assert_eq!(world.curfew(&["tasks", "--ended", "--json"]).await, json!([]), "and Curfew was told of nothing");

    // What a policy opens counts as well; what reach does not know is not compared, and that is said.
    let flags = ["--policy", "nobody-knows-this", "--reach-token-file", "page.token", "--boundary", "zone:pci"];
    let (code, _, err) = said(&world.exec(&flags, "true").output().await.unwrap());
    assert!(code == Some(125) && err.contains("reach does not know policy:test/nobody-knows-this"), "{err}");
    let (code, _, err) = asks(&["page.token", "--boundary", "target:wiki", "--boundary-report-only"]).await;
    assert!(code == Some(0) && err.contains("opens target:appdb, beyond what the task is for"), "{err}");
    let got = world.got().unwrap();
    world.refused(&got).await;
    fs::remove_file(world.file("got")).unwrap();
    let (code, _, err) = asks(&["page.token", "--boundary-action", "appdb=relation:shop.orders:SELECT"]).await;
    assert_eq!((code, err.contains("beyond")), (Some(0), false), "{err}");
    world.refused(&world.got().unwrap()).await;
}
