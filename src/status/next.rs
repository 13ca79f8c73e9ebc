//! What a person does next about a case, if anything. PURE.

use crate::case::record::{FailureKind, Residue, Verdict};
use crate::case::state::Phase;
use crate::case::{Case, HoldReason};
use crate::ops::half;

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// Whether it waits for a person.
    pub waits: bool,
    /// In words.
    pub say: &'static str,
    /// Commands, each with what it is good for.
    pub run: Vec<(&'static str, String)>,
}

/// What comes next for `case`.
pub fn of(case: &Case) -> Next {
    let id = case.id;
    let resume = ("where it is right to go on", format!("curfew resume {id}"));
    let abandon = ("where it is not", format!("curfew abandon {id} --reason '…'"));
    let retry = ("to try at once", format!("curfew retry-now {id}"));
    let state = &case.state;
    match &state.phase {
        Phase::Closed { verdict } => Next { waits: false, say: closed(verdict), run: Vec::new() },
        Phase::Held { reason } => {
            let (waits, say) = held(*reason);
            let run = match reason {
                HoldReason::Frozen | HoldReason::StartedHeld => {
                    vec![("when the reason is gone", "curfew release".to_owned())]
                }
                HoldReason::Observe | HoldReason::Cap | HoldReason::Clock | HoldReason::Notice | HoldReason::Kept => {
                    Vec::new()
                }
                HoldReason::Unserved | HoldReason::NoRecipe => vec![("after a change", "curfew check".to_owned())],
                _ => vec![resume, abandon],
            };
            Next { waits, say, run: run.into_iter().chain(by_hand(case)).collect() }
        }
        Phase::Abandoned => Next {
            waits: true,
            say: "A person gave up on acting: nothing more is done. It goes on looking, and closes when it is seen dead.",
            run: by_hand(case),
        },
        Phase::Open if state.last_failure == Some(FailureKind::Denied) => Next {
            waits: true,
            say: "The system refuses Curfew's own access. Mend its login or its rights there; then it goes on by itself.",
            run: vec![retry],
        },
        Phase::Open => {
            let say = match state.name() {
                "in_doubt" => {
                    "Something was begun and its answer is missing. It looks what became of it before anything is repeated."
                }
                "retrying" => "The system did not answer as hoped. It tries again by itself, for as long as it takes.",
                "proving" => "What was to be done is done. It is dead when enough looks have seen it refused.",
                _ => "It goes on by itself.",
            };
            let run = if matches!(state.name(), "in_doubt" | "retrying") { vec![retry] } else { Vec::new() };
            Next { waits: false, say, run }
        }
    }
}

/// What ends a half-made case by hand.
fn by_hand(case: &Case) -> Vec<(&'static str, String)> {
    let half = half::half_made(case);
    half.into_iter().flat_map(|half| half.by_hand).map(|one| (one.to, one.run)).collect()
}

/// Whether a person is needed, and why it does not act.
fn held(reason: HoldReason) -> (bool, &'static str) {
    use HoldReason as H;
    match reason {
        H::Frozen => (true, "Everything is frozen. It goes on when the freeze is lifted."),
        H::StartedHeld => {
            (true, "The journal may be older than what was published: a person has to release the start.")
        }
        H::Observe => {
            (false, "Its realm only observes: this is what would be done. It goes on when `mode` says `enforce`.")
        }
        H::Cap => (false, "More effects than the cap allows in this minute. It goes on by itself."),
        H::Authority => (true, "The topic that asked for it may not ask for so much. A person decides."),
        H::Prefix => (true, "It is outside the realm's allowed prefixes. A person decides."),
        H::Protected => (true, "It is one of Curfew's own credentials, or root: it is never touched."),
        H::OtherTask => (true, "The issuer says that it is another task's. A person decides."),
        H::Unregistered => (true, "Nobody registered it, and its prefix is not Curfew's alone. A person decides."),
        H::Unserved => (true, "No process serves its kind and instance. It goes on when one does."),
        H::Finding => (true, "The rules leave this finding to a person."),
        H::NoRecipe => (true, "Nobody said how it is rotated. It goes on when `rotations` names it."),
        H::CandidateRejected => (true, "The target took no new value; what was made is undone. A person decides."),
        H::NotAdopted => (true, "Not all consumers have taken the new value in time. A person decides."),
        H::Unhealthy => {
            (true, "A consumer cannot work with the new value; the old one was given back. A person decides.")
        }
        H::Clock => (false, "The wall clock is doubted. It goes on when the clocks agree."),
        H::Refused => (true, "The provider says that it never will. A person decides."),
        H::Notice => (
            false,
            "Whoever answers for the identity was told what it will lose, and has time to say no. Then it goes on.",
        ),
        H::Kept => (false, "Whoever answers for the identity wants it kept as it is, for a time. Then it goes on."),
        H::Differs => (
            true,
            "The identity had more, or less, than it was to have: what was taken was given back. A person decides.",
        ),
    }
}

fn closed(verdict: &Verdict) -> &'static str {
    let residue = match verdict {
        Verdict::Dead { residue, .. } => residue,
        Verdict::Reduced { residue, .. } if residue.is_empty() => {
            return "Nothing is left to do: it may do less, as was asked.";
        }
        Verdict::Reduced { residue, .. } if residue.contains(&Residue::StillShared) => {
            return "Its agents have users of their own with less. Others share it still, and who was moved may know it.";
        }
        Verdict::Reduced { residue, .. } if residue.contains(&Residue::Sessions) => {
            return "It may do less. Sessions that had gone over to a group stay in it: end them at the target.";
        }
        Verdict::Reduced { .. } => {
            return "It may do less. Tokens that were issued before keep what they were given until they expire.";
        }
        _ => return "Nothing is left to do.",
    };
    match residue.first() {
        None => "Nothing is left to do: it was seen dead.",
        Some(Residue::Sessions) => "It is dead. Sessions that were opened with it may go on: end them at the target.",
        Some(Residue::DerivedUnknown) => {
            "It is dead. What was derived from it cannot be listed, and may live up to its own end."
        }
        Some(Residue::Derived) => {
            "It is dead. Sessions of roles that were opened with it may live up to the times that are told."
        }
        Some(Residue::NotFenced) => "It is dead. Its login could not be shut before it was revoked.",
        Some(Residue::EntityOpen) => {
            "It is dead. The entity that it logged in as is not closed: others log in as it, or Curfew may not."
        }
        Some(Residue::CleanupPending) => {
            "It is dead. What it owns keeps it from being removed: hand that over, and drop it."
        }
        Some(Residue::OldValueStored) => "It is dead. The old value, which nothing takes any more, is still stored.",
        Some(Residue::NotAdopted) => "It is dead. Not all consumers were seen to take the new value before.",
        Some(Residue::CopyNotUpdated) => "It is dead. One place where consumers read does not have the new value.",
        Some(Residue::NotNotified) => "It is dead. Who was to be called about the new value was not reached.",
        Some(Residue::OlderTokens) => "Tokens that were issued before keep what they were given until they expire.",
        Some(Residue::StillShared) => "Others share it still, and who was moved off it may know it.",
        Some(Residue::Disabled) => "It is disabled, not destroyed: who administers its issuer can enable it again.",
    }
}
