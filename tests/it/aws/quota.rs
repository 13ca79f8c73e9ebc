//! What AWS counts of the calls: each process has its part of it, and without one nothing is sent.

use std::sync::Arc;

use curfew::case::record::FailureKind;
use curfew::connector::aws::AwsSettings;
use curfew::pace::Quota;

use super::Moto;
use crate::stage::Stage;
use crate::store::Store;
use crate::world::until;

fn writes(settings: &AwsSettings) -> Arc<Quota> {
    settings.quotas.all().into_iter().find(|quota| quota.name().ends_with("/secret-writes")).unwrap()
}

over_both! {
    one_process_alone_has_the_whole_of_a_quota,
}

async fn one_process_alone_has_the_whole_of_a_quota(store: Store) {
    let moto = Moto::start().await;
    let settings = moto.settings();
    let stage = Stage::new(store, moto.registry_of(&settings).await);
    let executor = stage.executor(stage.open().await);
    let quota = writes(&settings);
    executor.drain().await.unwrap();
    assert_eq!((quota.allowed(), quota.whole()), (48, 48));
}

/// Two processes at one account, on one journal.
#[tokio::test(flavor = "multi_thread")]
async fn two_processes_never_have_more_of_a_quota_than_aws_allows() {
    let moto = Moto::start().await;
    let store = Store::postgres();
    let (one, other) = (moto.settings(), moto.settings());
    let stages = [
        Stage::new(Store::sqlite(), moto.registry_of(&one).await),
        Stage::new(Store::sqlite(), moto.registry_of(&other).await),
    ];
    let journal = store.open().await;
    let [first, second] = stages.each_ref().map(|stage| stage.executor(journal.clone()));
    let parts = || [writes(&one).allowed(), writes(&other).allowed()];
    first.drain().await.unwrap();
    assert_eq!(parts()[0], 48, "alone");
    until("both to have their halves", || async {
        second.drain().await.unwrap();
        assert!(parts().iter().sum::<u32>() <= 48, "{:?}", parts());
        first.drain().await.unwrap();
        assert!(parts().iter().sum::<u32>() <= 48, "{:?}", parts());
        (parts() == [24, 24]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_part_nothing_is_sent() {
    let moto = Moto::start().await;
    let settings = moto.settings();
    let connector = moto.connector(&settings).await;
    settings.quotas.all().iter().for_each(|quota| quota.begin());
    let failure = connector.self_check().await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unavailable, "{}", failure.note);
    assert_eq!(moto.proxy.calls(), []);
    settings.quotas.all().iter().for_each(|quota| quota.allow(10));
    connector.self_check().await.unwrap();
}
