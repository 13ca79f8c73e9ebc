//! Who leaves, at IAM (moto): its user is denied everything before the first key is disabled, by a policy that ends by itself; and
//! that is taken off, unless somebody has changed it.

use curfew::case::HoldReason;
use curfew::case::plan::Act;
use curfew::case::record::{FailureKind, Residue, Verdict};
use curfew::case::state::Phase;
use curfew::connector::aws::fence;
use curfew::connector::{Rescope, Subject};
use curfew::event::Event;
use curfew::journal::{CaseLine, Journal};
use curfew::scope::{Cut, Cutting, Fence, identity_of};

use super::*;
use crate::endure::{self, Trial};
use crate::rotation::leaving::{found, known};
use crate::stage::{Stage, now_ms, record};
use crate::store::Store;

over_each! {
    sqlite: a_fenced_user_s_key_that_ends_survives_every_kill, the_end_of_a_user_s_fence_survives_every_fault;
    postgres: a_fenced_user_s_key_that_ends_survives_every_fault, the_end_of_a_user_s_fence_survives_every_kill
}

over_both! {
    a_policy_that_somebody_put_in_its_place_is_left_alone_and_said,
    a_fence_that_ends_too_early_is_written_anew_and_one_whose_end_is_past_is_not,
}

const DAY_MS: i64 = 86_400_000;
const THEIRS: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}"#;

impl Moto {
    async fn fencing(&self) -> Registry {
        let mut registry = self.registry().await;
        registry.add(aws::connect_fences("aws", &self.settings(), clock::System::shared()).await.unwrap());
        registry
    }

    async fn put(&self, victim: &Victim, name: &str, document: &str) {
        let call = self.root.put_user_policy().user_name(victim.name()).policy_name(name).policy_document(document);
        call.send().await.unwrap();
    }

    /// Until when the user is fenced.
    async fn fenced_until(&self, victim: &Victim) -> Option<i64> {
        let call = self.root.get_user_policy().user_name(victim.name()).policy_name(fence::NAME).send();
        let found = call.await.ok()?;
        let text = percent_encoding::percent_decode_str(found.policy_document()).decode_utf8().unwrap();
        fence::until_ms(&text)
    }
}

/// A key that ends because its user leaves.
struct Leaver<'a> {
    moto: &'a Moto,
    registry: Registry,
    victim: Victim,
    credential: CredentialId,
    until_ms: i64,
}

impl<'a> Leaver<'a> {
    async fn new(moto: &'a Moto) -> Self {
        let victim = moto.victim().await;
        moto.put(&victim, "own", THEIRS).await;
        let credential = victim.credential();
        // Whole seconds, as it stands in the policy.
        let until_ms = (now_ms() / 1_000) * 1_000 + 30 * DAY_MS;
        Self { moto, registry: moto.fencing().await, victim, credential, until_ms }
    }
}

impl Trial for Leaver<'_> {
    fn credential(&self) -> &CredentialId {
        &self.credential
    }

    fn registry(&self) -> Registry {
        self.registry.clone()
    }

    async fn open_case(&self, journal: &dyn Journal) {
        record(journal, vec![known(&self.credential), found(&self.credential, Some(self.until_ms))]).await;
    }

    async fn died(&self, what: &str) -> Registry {
        let alive = self.moto.lets_in(&self.victim, &self.victim.key.id).await == Some(true);
        assert!(alive || self.moto.fenced_until(&self.victim).await.is_some(), "{what}: the key died before the fence");
        self.registry.clone()
    }

    async fn assert_over(&self, journal: &Arc<dyn Journal>, line: &CaseLine, _forgot: bool, what: &str) {
        let Verdict::Dead { residue, .. } = &line.verdict else { panic!("{what}: {:?}", line.verdict) };
        assert!(!residue.contains(&Residue::NotFenced), "{what}: {residue:?}");
        assert_eq!(self.moto.lets_in(&self.victim, &self.victim.key.id).await, Some(false), "{what}");
        assert_eq!(self.moto.fenced_until(&self.victim).await, Some(self.until_ms), "{what}: its end stands in it");
        assert!(
            self.moto.policies(&self.victim).await.contains(&"own".to_owned()),
            "{what}: the user's own is its own"
        );
        let fences = journal.fences(i64::MAX, 9).await.unwrap();
        assert_eq!((fences.len(), &fences[0].identity), (1, &identity_of(&self.credential)), "{what}");
    }
}

/// A user that is not to be fenced any more.
struct Over<'a> {
    leaver: Leaver<'a>,
    identity: CredentialId,
    fence: Fence,
}

impl<'a> Over<'a> {
    async fn new(moto: &'a Moto) -> Self {
        let leaver = Leaver::new(moto).await;
        let stage = Stage::new(Store::sqlite(), leaver.registry());
        let journal = stage.open().await;
        leaver.open_case(journal.as_ref()).await;
        stage.run_until_closed(&journal, &leaver.credential).await;
        let fence = journal.fences(i64::MAX, 9).await.unwrap().remove(0);
        assert!(Cut::back(fence.held.clone(), fence.case).unwrap().is_fence());
        Self { identity: identity_of(&leaver.credential), leaver, fence }
    }
}

impl Trial for Over<'_> {
    fn credential(&self) -> &CredentialId {
        &self.identity
    }

    fn registry(&self) -> Registry {
        self.leaver.registry.clone()
    }

    async fn open_case(&self, journal: &dyn Journal) {
        record(journal, vec![Event::fence_over(&self.fence, now_ms()).unwrap()]).await;
    }

    async fn died(&self, _what: &str) -> Registry {
        self.registry()
    }

    async fn assert_over(&self, _journal: &Arc<dyn Journal>, line: &CaseLine, _forgot: bool, what: &str) {
        assert!(matches!(line.verdict, Verdict::RolledBack { .. }), "{what}: {:?}", line.verdict);
        let policies = self.leaver.moto.policies(&self.leaver.victim).await;
        assert!(!policies.contains(&fence::NAME.to_owned()), "{what}: {policies:?}");
        assert!(policies.contains(&"own".to_owned()), "{what}: {policies:?}");
        let (victim, moto) = (&self.leaver.victim, self.leaver.moto);
        assert_eq!(moto.lets_in(victim, &victim.key.id).await, Some(false), "{what}: its key stays dead");
    }
}

async fn a_fenced_user_s_key_that_ends_survives_every_kill(store: Store) {
    let moto = Moto::start().await;
    endure::every_kill(&store, 4, async || Leaver::new(&moto).await).await;
}

async fn a_fenced_user_s_key_that_ends_survives_every_fault(store: Store) {
    let moto = Moto::start().await;
    endure::every_fault(&store, 5, async || Leaver::new(&moto).await).await;
}

async fn the_end_of_a_user_s_fence_survives_every_kill(store: Store) {
    let moto = Moto::start().await;
    endure::every_kill(&store, 2, async || Over::new(&moto).await).await;
}

async fn the_end_of_a_user_s_fence_survives_every_fault(store: Store) {
    let moto = Moto::start().await;
    endure::every_fault(&store, 3, async || Over::new(&moto).await).await;
}

async fn a_policy_that_somebody_put_in_its_place_is_left_alone_and_said(store: Store) {
    let moto = Moto::start().await;
    // It stands there before: the key dies all the same.
    let leaver = Leaver::new(&moto).await;
    moto.put(&leaver.victim, fence::NAME, THEIRS).await;
    let stage = Stage::new(store.fresh(), leaver.registry());
    let journal = stage.open().await;
    leaver.open_case(journal.as_ref()).await;
    let line = stage.run_until_closed(&journal, &leaver.credential).await;
    let Verdict::Dead { residue, .. } = &line.verdict else { panic!("{:?}", line.verdict) };
    assert!(residue.contains(&Residue::NotFenced), "{residue:?}");
    assert!(journal.fences(i64::MAX, 9).await.unwrap().is_empty(), "it was never set");
    // It came while the fence stood.
    let over = Over::new(&moto).await;
    moto.put(&over.leaver.victim, fence::NAME, THEIRS).await;
    let stage = Stage::new(store, over.registry());
    let journal = stage.open().await;
    over.open_case(journal.as_ref()).await;
    let held = |line: &CaseLine| matches!(line.case.state.phase, Phase::Held { reason: HoldReason::Refused });
    stage.run_until(&journal, over.credential(), held).await;
    let policies = moto.policies(&over.leaver.victim).await;
    assert!(policies.contains(&fence::NAME.to_owned()), "it is a person's: {policies:?}");
}

async fn a_fence_that_ends_too_early_is_written_anew_and_one_whose_end_is_past_is_not(store: Store) {
    let moto = Moto::start().await;
    for early_ms in [-DAY_MS, DAY_MS] {
        let leaver = Leaver::new(&moto).await;
        moto.put(&leaver.victim, fence::NAME, &fence::policy(now_ms() + early_ms).unwrap()).await;
        let stage = Stage::new(store.fresh(), leaver.registry());
        let journal = stage.open().await;
        leaver.open_case(journal.as_ref()).await;
        let line = stage.run_until_closed(&journal, &leaver.credential).await;
        leaver.assert_over(&journal, &line, false, &format!("one until {early_ms} ms from now stood there")).await;
    }
    let leaver = Leaver::new(&moto).await;
    let connector = leaver.registry.by_name("aws-fence", "aws").unwrap().clone();
    let subject = |cutting| Subject {
        credential: leaver.credential.clone(),
        rescope: Some(Rescope { cut: Cut::fence(Kind::AwsUser, now_ms() - 1).unwrap(), cutting, gives: false }),
        ..crate::vault::about(Kind::AwsUser, "x")
    };
    let before = connector.observe(&subject(Cutting::default())).await.unwrap().scope;
    let cutting = Cutting { before, ..Cutting::default() };
    let failure = connector.perform(Act::Fence, &subject(cutting)).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Refused, "its values die without");
    assert_eq!(moto.fenced_until(&leaver.victim).await, None, "nothing was written");
}
