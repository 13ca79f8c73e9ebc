//! `curfew audit`: how long each credential outlived its task.

use comfy_table::{Cell, Color};
use curfew::config::{Config, file::Millis};
use curfew::journal::Overrun;
use curfew::ops::Request;
use curfew::task::RunKey;

use crate::args::Audit;
use crate::{Failed, link, show};

/// `curfew audit overrun`
pub async fn audit(config: &Config, what: Audit, json: bool) -> Result<(), Failed> {
    let Audit::Overrun { over } = what;
    let over = over.as_deref().map(Millis::parse).transpose().map_err(|why| Failed::Data(format!("--over: {why}")))?;
    let mut lines: Vec<Overrun> = link::ask_for(config, Request::Overrun {}).await?;
    if let Some(over) = over {
        lines.retain(|line| line.overrun_ms.is_some_and(|ms| ms > over.0));
    }
    // The worst first; what cannot be said last.
    lines.sort_by_key(|line| std::cmp::Reverse(line.overrun_ms));
    if json {
        println!("{}", serde_json::to_string(&lines).map_err(anyhow::Error::from)?);
        return Ok(());
    }
    let mut table = show::table(&[
        "CREDENTIAL", "RUN", "TRIGGER", "TASK STARTED", "TASK ENDED", "ISSUED", "EXPIRES", "DEAD", "OVERRUN",
    ]);
    for line in &lines {
        let overrun = line.overrun_ms.map_or_else(|| "?".to_owned(), show::span);
        let dead = line.dead_ms.map_or_else(|| Cell::new("NOT SEEN DEAD").fg(Color::Red), |ms| Cell::new(show::time(ms)));
        table.add_row(vec![
            Cell::new(line.credential.as_str()),
            Cell::new(line.run.as_ref().map_or("-", RunKey::as_str)),
            Cell::new(line.trigger.as_str()),
            Cell::new(show::time_or_none(line.task_started_ms)),
            Cell::new(show::time_or_none(line.task_ended_ms)),
            Cell::new(show::time_or_none(line.issued_ms)),
            Cell::new(show::time_or_none(line.expires_ms)),
            dead,
            Cell::new(overrun),
        ]);
    }
    println!("{table}");
    let alive = lines.iter().filter(|line| line.dead_ms.is_none()).count();
    println!("\n{} credentials, {alive} of them not seen dead", lines.len());
    Ok(())
}
