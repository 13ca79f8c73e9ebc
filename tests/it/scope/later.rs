//! Memberships with a grantor each, and options: what is ours to take of them, and what is not. On a real PostgreSQL 18.

use curfew::case::HoldReason;
use curfew::case::record::Verdict;
use curfew::guard::Mode;
use curfew::scope::Cutting;

use super::postgres::Etl;
use super::{Identity as _, is_held, reduce, registry, restore, run_until, subject};
use crate::admin::Postgres;
use crate::stage::{Stage, record};
use crate::store::Store;

async fn later() -> Etl {
    Etl::at(Postgres::later()).await
}

/// What a look shows of all else.
async fn rest(etl: &Etl) -> (String, u32) {
    let seen = etl.connector().observe(&subject(etl, Cutting::default())).await.unwrap();
    let scope = seen.scope.unwrap();
    (scope.rest, scope.rest_count)
}

#[tokio::test]
async fn a_membership_by_somebody_else_as_well_is_refused_and_nothing_is_half_taken() {
    for more in [
        // By whom our login does not act.
        &["GRANT {group} TO {role} GRANTED BY postgres"][..],
        // Somebody has it from the role itself.
        &["CREATE ROLE {role}_b", "GRANT {group} TO {role}_b GRANTED BY {role}"],
        // It could be taken, and not be given again: its grantor may not any more.
        &["REVOKE {access} FROM {cutter}"],
    ] {
        let etl = later().await;
        for one in more {
            etl.sql(one).await;
        }
        let before = etl.state().await;
        let stage = Stage::new(Store::sqlite(), registry(&etl, Mode::Enforce));
        let journal = stage.open().await;
        record(journal.as_ref(), vec![reduce(etl.credential(), etl.takes(), None)]).await;
        run_until(&stage, &journal, etl.credential(), |line| is_held(line, HoldReason::Refused)).await;
        assert_eq!(etl.state().await, before, "{more:?}");
    }
}

#[tokio::test]
async fn what_it_still_may_by_another_group_is_seen_whatever_the_options_are() {
    for options in ["INHERIT TRUE, SET FALSE", "INHERIT FALSE, SET TRUE", "ADMIN TRUE, INHERIT FALSE, SET FALSE"] {
        let etl = later().await;
        etl.sql("CREATE ROLE {role}_between").await;
        etl.sql("GRANT {group} TO {role}_between").await;
        etl.sql(&format!("GRANT {{role}}_between TO {{role}} WITH {options}")).await;
        let before = etl.state().await;
        let stage = Stage::new(Store::sqlite(), registry(&etl, Mode::Enforce));
        let journal = stage.open().await;
        record(journal.as_ref(), vec![reduce(etl.credential(), etl.named(&["member:{group}"]), None)]).await;
        run_until(&stage, &journal, etl.credential(), |line| is_held(line, HoldReason::Differs)).await;
        assert_eq!(etl.state().await, before, "{options}: what was taken is given back to the letter");
    }
}

#[tokio::test]
async fn another_option_and_another_grantor_is_another_grant() {
    let etl = later().await;
    etl.sql("CREATE ROLE {role}_else").await;
    etl.sql("GRANT {role}_else TO {role} WITH INHERIT TRUE").await;
    let known = rest(&etl).await;
    assert_eq!(rest(&etl).await, known);
    etl.sql("GRANT {role}_else TO {role} WITH INHERIT FALSE").await;
    let other = rest(&etl).await;
    assert_ne!(other.0, known.0, "it inherits no more");
    etl.sql("GRANT {role}_else TO {access} WITH ADMIN TRUE").await;
    etl.sql("GRANT {role}_else TO {role} WITH INHERIT FALSE GRANTED BY {access}").await;
    let more = rest(&etl).await;
    assert_eq!((more.0 == other.0, more.1), (false, other.1 + 1), "and has it from one more");
}

#[tokio::test]
async fn what_nobody_may_give_in_its_grantor_s_name_any_more_stays_out_and_all_else_comes_back() {
    let etl = later().await;
    let before = etl.state().await;
    let stage = Stage::new(Store::sqlite(), registry(&etl, Mode::Enforce));
    let journal = stage.open().await;
    record(journal.as_ref(), vec![reduce(etl.credential(), etl.takes(), None)]).await;
    let line = run_until(&stage, &journal, etl.credential(), |line| line.closed_ms.is_some()).await;
    let Verdict::Reduced { taken: 6, .. } = line.verdict else { panic!("{:?}", line.verdict) };
    etl.sql("REVOKE {group} FROM {access} CASCADE").await;
    let journal = Stage::new(Store::sqlite(), registry(&etl, Mode::Enforce)).open().await;
    record(journal.as_ref(), vec![restore(etl.credential(), line.case.state.cutting.taken.clone())]).await;
    run_until(&stage, &journal, etl.credential(), |line| is_held(line, HoldReason::Refused)).await;
    let without: Vec<&str> = before.lines().filter(|line| !line.starts_with("member")).collect();
    assert_eq!(etl.state().await, without.join("\n"), "both grants of it, or none");
    // Whoever mends it lets it be given again.
    etl.sql("GRANT {group} TO {access} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE").await;
    let journal = Stage::new(Store::sqlite(), registry(&etl, Mode::Enforce)).open().await;
    record(journal.as_ref(), vec![restore(etl.credential(), line.case.state.cutting.taken.clone())]).await;
    run_until(&stage, &journal, etl.credential(), |line| line.closed_ms.is_some()).await;
    assert_eq!(etl.state().await, before);
}

/// There is such a privilege from 17 on.
#[tokio::test]
async fn the_right_to_maintain_is_taken_where_there_is_one() {
    for etl in [Etl::new().await, later().await] {
        let named = "relation:{schema}.\"or:ders\":MAINTAIN";
        let before = etl.state().await;
        if etl.pg.is_later() {
            etl.sql("GRANT MAINTAIN ON {schema}.\"or:ders\" TO {role}").await;
        }
        let stage = Stage::new(Store::sqlite(), registry(&etl, Mode::Enforce));
        let journal = stage.open().await;
        record(journal.as_ref(), vec![reduce(etl.credential(), etl.named(&[named]), None)]).await;
        let line = run_until(&stage, &journal, etl.credential(), |line| line.closed_ms.is_some()).await;
        let Verdict::Reduced { taken, .. } = line.verdict else { panic!("{:?}", line.verdict) };
        assert_eq!((taken, etl.state().await), (u32::from(etl.pg.is_later()), before));
    }
}
