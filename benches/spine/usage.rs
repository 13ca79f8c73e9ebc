//! What processes use, from `/proc`; and whether the large counts are asked for.

use std::fs;

/// `CURFEW_BENCH_FULL=1`: the counts of the goals, where the default is smaller to be short.
pub fn full() -> bool {
    std::env::var("CURFEW_BENCH_FULL").is_ok_and(|value| value == "1")
}

/// Memory of this process's own that is in RAM. Pages of files that it looks at are the kernel's, which takes them back.
pub fn resident_mb() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1_024.0
}

/// The fields of a process's `stat` behind its name, which may hold anything.
fn stat(pid: &str) -> Option<Vec<i64>> {
    // It may be gone by now.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, behind) = stat.rsplit_once(')')?;
    Some(behind.split_whitespace().skip(1).map(|field| field.parse().unwrap_or(0)).collect())
}

const PARENT: usize = 0;
/// utime, stime, and both of the children that ended, in ticks of 10 ms.
const TIMES: std::ops::Range<usize> = 10..14;

/// Processor time of this process so far, in milliseconds.
pub fn own_ms() -> i64 {
    stat("self").unwrap()[TIMES][..2].iter().sum::<i64>() * 10
}

/// Processor time of a PostgreSQL server so far, all of its processes, in milliseconds; `backend` is one of them.
pub fn postgres_ms(backend: i32) -> i64 {
    let server = stat(&backend.to_string()).unwrap()[PARENT];
    let all = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let (mut children, ended) = (0, stat(&server.to_string()).unwrap()[TIMES].iter().sum::<i64>());
    for pid in all.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) {
        if let Some(its) = stat(&pid).filter(|its| its[PARENT] == server) {
            children += its[TIMES][..2].iter().sum::<i64>();
        }
    }
    (children + ended) * 10
}
