//! What waits for the writer. What a case waits for goes before batches of arrivals; the two take turns, so that neither
//! waits for more than one group of the other.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use super::Error;
use super::writer::Writer;

/// Arrivals in one group: as many as a batch of Kafka's has. Whoever sends smaller ones shares the commit.
const HEAVY: usize = 250;
/// So many arrivals delay nobody: they need no group of their own.
const LIGHT: usize = 16;

type Reply = Box<dyn FnOnce(Result<(), &str>) + Send>;
/// What went wrong with the file, if anything, and how to answer after the commit.
type Done = (Option<String>, Reply);

/// One queued operation.
pub(super) struct Job {
    /// How many arrivals it records; none where cases wait for it.
    pub(super) arrivals: usize,
    pub(super) run: Box<dyn FnOnce(&mut Writer) -> Done + Send>,
}

/// An operation as a job, and where its answer comes.
pub(super) fn job<T: Send + 'static>(
    work: impl FnOnce(&mut Writer) -> Result<T, Error> + Send + 'static,
) -> (Job, oneshot::Receiver<Result<T, Error>>) {
    let (answer, answered) = oneshot::channel();
    let run = Box::new(move |writer: &mut Writer| {
        let done = work(writer);
        let broken = match &done {
            Err(e @ (Error::Unavailable(_) | Error::Corrupt { .. })) => Some(full(e)),
            _ => None,
        };
        let reply: Reply = Box::new(move |committed| {
            let done = match (done, committed) {
                (Ok(_), Err(why)) => Err(Error::Unavailable(why.into())),
                (done, _) => done,
            };
            // A caller that went away needs no answer.
            drop(answer.send(done));
        });
        (broken, reply)
    });
    (Job { arrivals: 0, run }, answered)
}

/// An error with its cause.
pub(super) fn full(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

/// Jobs in their order, the two kinds apart.
#[derive(Default)]
pub(super) struct Waiting {
    cases: VecDeque<Job>,
    arrivals: VecDeque<Job>,
    /// The last group was one of cases.
    turn: bool,
}

impl Waiting {
    pub(super) fn put(&mut self, job: Job) {
        let queue = if job.arrivals == 0 { &mut self.cases } else { &mut self.arrivals };
        queue.push_back(job);
    }

    /// Those that did not run after all come first again.
    pub(super) fn put_back(&mut self, jobs: Vec<Job>) {
        for job in jobs.into_iter().rev() {
            let queue = if job.arrivals == 0 { &mut self.cases } else { &mut self.arrivals };
            queue.push_front(job);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.cases.len() + self.arrivals.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next group, of at most `most`; whether it is one of many arrivals.
    pub(super) fn group(&mut self, most: usize) -> (Vec<Job>, bool) {
        let heavy = self.cases.is_empty() || (self.turn && !self.arrivals.is_empty());
        self.turn = !heavy;
        let mut group: Vec<Job> =
            if heavy { Vec::new() } else { self.cases.drain(..self.cases.len().min(most)).collect() };
        let room = if heavy { HEAVY } else { LIGHT };
        let mut taken = 0;
        while group.len() < most
            && let Some(next) = self.arrivals.front()
            && (taken + next.arrivals <= room || (heavy && taken == 0))
            && let Some(next) = self.arrivals.pop_front()
        {
            taken += next.arrivals;
            group.push(next);
        }
        (group, taken > LIGHT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(arrivals: usize) -> Job {
        Job { arrivals, ..job(|_| Ok(())).0 }
    }

    fn waiting(all: &[usize]) -> Waiting {
        let mut waiting = Waiting::default();
        for arrivals in all {
            waiting.put(nothing(*arrivals));
        }
        waiting
    }

    fn groups(mut waiting: Waiting, most: usize) -> Vec<Vec<usize>> {
        let mut groups = Vec::new();
        while !waiting.is_empty() {
            groups.push(waiting.group(most).0.iter().map(|job| job.arrivals).collect());
        }
        groups
    }

    #[test]
    fn cases_and_batches_take_turns() {
        let all = groups(waiting(&[250, 0, 0, 250, 0, 0, 0, 250]), 2);
        assert_eq!(all, [vec![0, 0], vec![250], vec![0, 0], vec![250], vec![0], vec![250]]);
    }

    #[test]
    fn one_transaction_takes_all_that_is_light() {
        assert_eq!(groups(waiting(&[1, 0, 1, 0, 14, 1]), 256), [vec![0, 0, 1, 1, 14], vec![1]]);
        assert_eq!(groups(waiting(&[100, 100, 100]), 256), [vec![100, 100], vec![100]]);
        assert_eq!(groups(waiting(&[1_000]), 256), [vec![1_000]], "one that is larger is taken whole");
    }

    #[test]
    fn arrivals_stay_in_order() {
        assert_eq!(groups(waiting(&[200, 1, 0]), 256), [vec![0], vec![200, 1]]);
        let mut waiting = waiting(&[0, 3, 4]);
        let (mut group, heavy) = waiting.group(256);
        assert!(!heavy);
        let rest = group.split_off(1);
        waiting.put_back(rest);
        waiting.put(nothing(5));
        assert_eq!(groups(waiting, 256), [vec![3, 4, 5]]);
    }
}
