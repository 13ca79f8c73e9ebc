//! What the promises say of stored passwords that were replaced again and again.

use curfew::case::plan::{Act, Step};
use curfew::case::record::Record;

use super::history::{Answer, History};
use super::report::Line;

/// P2: each value that was ever current is refused, but for the one that consumers read now, which works.
pub fn dead_values(h: &History, line: &mut Line) {
    let (mut dead, mut alive) = (0, 0);
    for rotated in &h.rotated {
        for stood in &rotated.stood {
            let wanted = if stood.version == rotated.current { Answer::Works } else { Answer::Refused };
            line.must(stood.answer == wanted, || {
                let (urn, version, user, now) = (&rotated.urn, stood.version, &stood.user, rotated.current);
                format!("{urn}: version {version}, of {user}, says {:?}; {now} is current", stood.answer)
            });
            dead += usize::from(stood.answer == Answer::Refused);
            alive += usize::from(stood.answer == Answer::Works);
        }
    }
    line.counted(dead, "replaced values dead");
    line.counted(alive, "current ones work");
    line.must(h.waiting == 0, || format!("{} findings were matched with nothing", h.waiting));
}

/// P4: nothing is left of a rotation but its value.
pub fn left(h: &History, line: &mut Line) {
    let mut versions = 0;
    for rotated in &h.rotated {
        let (urn, now) = (&rotated.urn, rotated.current);
        line.must(rotated.kept == [now], || format!("{urn}: versions {:?} are stored, {now} is current", rotated.kept));
        line.must(!rotated.pending, || format!("{urn}: a candidate is left over"));
        versions += usize::try_from(rotated.current).unwrap_or(0);
    }
    line.counted(versions, "versions, all but the current ones destroyed");
}

/// Where the last effect on the credential itself began: to destroy what is stored of it comes after the proof.
pub fn last_effect(records: &[&Record]) -> Option<usize> {
    let mut steps: &[Step] = &[];
    let mut last = None;
    for (at, record) in records.iter().enumerate() {
        match record {
            Record::Planned { plan, .. } => steps = &plan.steps,
            Record::Started { step, .. } => {
                let act = steps.get(*step).map(|step| step.act);
                if !matches!(act, Some(Act::Destroy | Act::Discard | Act::Copy | Act::Notify)) {
                    last = Some(at);
                }
            }
            _ => {}
        }
    }
    last
}
