//! `curfew tasks`.

use comfy_table::Cell;
use curfew::config::Config;
use curfew::journal::{Holding, TaskFilter, TaskLine};
use curfew::ops::Request;
use curfew::task::{GrantPhase, Phase, Task, Tenure};

use crate::args::Tasks;
use crate::{Failed, link, show};

/// `curfew tasks`
pub async fn list(config: &Config, which: Tasks, json: bool) -> Result<(), Failed> {
    let ended = which.ended;
    let (unbound, limit) = (which.unbound, which.limit);
    let filter = TaskFilter { ended, unbound, source: which.source, identity: which.identity, limit };
    let lines: Vec<TaskLine> = link::ask_for(config, Request::Tasks { filter }).await?;
    if json {
        println!("{}", serde_json::to_string(&lines).map_err(anyhow::Error::from)?);
        return Ok(());
    }
    if lines.is_empty() {
        let none = if unbound { "no task ended with nothing known of what it held" } else { "no tasks" };
        println!("{none}{}", if ended || unbound { "" } else { " run" });
        return Ok(());
    }
    let now_ms = curfew::clock::System::shared().wall_ms();
    let mut table =
        show::table(&["RUN", "TASK", "WHO", "STATE", "STARTED", "DEADLINE", "LAST SIGN", "HOLDS", "DIES", "FROM"]);
    for TaskLine { task, holds } in &lines {
        let about = about(task, now_ms);
        let mut holds = holds.iter();
        table.add_row(about.into_iter().chain(held(holds.next())).map(Cell::new));
        for more in holds {
            table.add_row((0..7).map(|_| String::new()).chain(held(Some(more))).map(Cell::new));
        }
    }
    println!("{table}");
    Ok(())
}

fn about(task: &Task, now_ms: i64) -> Vec<String> {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let state = match task.phase {
        Phase::Expected => "expected".to_owned(),
        Phase::Running => "running".to_owned(),
        Phase::Ended => or_none(&task.outcome),
    };
    let run = if task.attempt > 1 { format!("{} #{}", task.run, task.attempt) } else { task.run.to_string() };
    let deadline = match task.phase {
        Phase::Ended => show::time_or_none(task.ended_ms),
        _ => format!("in {}", show::span(task.deadline_ms - now_ms)),
    };
    let sign = match task.last_beat_ms {
        Some(at) if task.phase != Phase::Ended => format!("{} ago", show::span(now_ms - at)),
        _ => "-".to_owned(),
    };
    let (name, who, started) = (or_none(&task.name), or_none(&task.identity), show::time_or_none(task.started_ms));
    vec![run, name, who, state, started, deadline, sign]
}

/// What it holds, till when, and which topics say so.
fn held(holding: Option<&Holding>) -> Vec<String> {
    let Some(Holding { grant, principal, expires_ms, dead_ms }) = holding else {
        return ["-", "-", "-"].map(str::to_owned).to_vec();
    };
    let mut name = grant.credential.to_string();
    if let Some(principal) = principal {
        name.push_str(&format!(" ({principal})"));
    }
    if grant.tenure == Tenure::Standing {
        name.push_str(", standing");
    }
    let dies = match (dead_ms, grant.phase) {
        (Some(at), _) => format!("dead since {}", show::time(*at)),
        (None, GrantPhase::Cut) => "being revoked".to_owned(),
        (None, GrantPhase::Released) => "released".to_owned(),
        (None, GrantPhase::Held) => show::time_or_none(*expires_ms),
    };
    vec![name, dies, grant.topics.join(", ")]
}
