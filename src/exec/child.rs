//! The task's process: found, started, told signals, waited for.
//!
//! Without a terminal it leads a process group of its own, which gets each signal that we get: a pipeline ends as a whole.
//! With a terminal it stays in ours: Ctrl-C, Ctrl-\ and Ctrl-Z reach it from the terminal itself, as they would without
//! us, and are not passed on a second time.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, WaitOptions};
use tokio::signal::unix::{self, SignalKind};

use super::hand::Variables;
use super::times::End;

/// The first argument of the process that becomes the task.
pub const BECOME: &str = "__become-task";

/// Signals that are passed on.
const PASSED: [(Signal, &str); 6] = [
    (Signal::TERM, "SIGTERM"),
    (Signal::INT, "SIGINT"),
    (Signal::HUP, "SIGHUP"),
    (Signal::QUIT, "SIGQUIT"),
    (Signal::USR1, "SIGUSR1"),
    (Signal::USR2, "SIGUSR2"),
];

/// Why there is no such process.
#[derive(Debug, thiserror::Error)]
pub enum NoCommand {
    /// 127
    #[error("{0}: command not found")]
    Missing(String),
    /// 126
    #[error("{0}: cannot be executed: {1}")]
    NotExecutable(String, String),
}

impl NoCommand {
    /// As shells say it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Missing(_) => 127,
            Self::NotExecutable(..) => 126,
        }
    }
}

/// The file that `command` names, looked up as a shell does: before anything is minted for it.
///
/// # Errors
/// [`NoCommand`].
pub fn find(command: &OsStr, path: Option<&OsStr>) -> Result<PathBuf, NoCommand> {
    let shown = command.to_string_lossy().into_owned();
    let as_file = |file: &Path| match std::fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(NoCommand::Missing(shown.clone())),
        Err(error) => Err(NoCommand::NotExecutable(shown.clone(), error.kind().to_string())),
        Ok(about) if about.is_dir() => Err(NoCommand::NotExecutable(shown.clone(), "it is a folder".to_owned())),
        Ok(about) if about.permissions().mode() & 0o111 == 0 => {
            Err(NoCommand::NotExecutable(shown.clone(), "`chmod +x` it".to_owned()))
        }
        Ok(_) => Ok(file.to_owned()),
    };
    if command.is_empty() {
        return Err(NoCommand::Missing(shown));
    }
    if command.as_encoded_bytes().contains(&b'/') {
        return as_file(Path::new(command));
    }
    let mut worst = NoCommand::Missing(shown.clone());
    for folder in std::env::split_paths(path.unwrap_or(OsStr::new("/usr/bin:/bin"))) {
        match as_file(&folder.join(command)) {
            Ok(file) => return Ok(file),
            Err(error @ NoCommand::NotExecutable(..)) => worst = error,
            Err(NoCommand::Missing(_)) => {}
        }
    }
    Err(worst)
}

/// A running task.
pub struct Child {
    pid: Pid,
    leads: bool,
}

impl Child {
    /// Starts it, as a child that is told SIGTERM when we are killed.
    ///
    /// # Errors
    /// The system's.
    pub fn spawn(file: &Path, args: &[OsString], without: &[&str], variables: &Variables) -> io::Result<Self> {
        let own = Path::new("/proc/self/exe");
        let leads = File::open("/dev/tty").is_err();
        // Only a process itself can ask to be told of its parent's death: so ours becomes the task.
        let mut command = if cfg!(target_os = "linux") && own.exists() {
            let mut command = Command::new(own);
            command.arg0("curfew").arg(BECOME).arg(std::process::id().to_string()).arg(file).args(args);
            command
        } else {
            let mut command = Command::new(file);
            command.arg0(args.first().map_or(file.as_os_str(), OsString::as_os_str)).args(args.iter().skip(1));
            command
        };
        for name in without {
            command.env_remove(name);
        }
        command.envs(variables.pairs());
        if leads {
            command.process_group(0);
        }
        let id = command.spawn()?.id();
        let pid = i32::try_from(id).ok().and_then(Pid::from_raw).ok_or_else(|| io::Error::other("no process id"))?;
        Ok(Self { pid, leads })
    }

    /// Its id.
    pub fn id(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Sends a signal: to its whole group where it leads one.
    pub fn tell(&self, signal: Signal) {
        // It may just have ended: then nobody is told.
        let told = if self.leads {
            rustix::process::kill_process_group(self.pid, signal)
        } else {
            rustix::process::kill_process(self.pid, signal)
        };
        told.ok();
    }

    /// Passes on a signal that we got, unless the terminal sent it to the task as well.
    pub fn pass(&self, signal: Signal) {
        if self.leads || !(matches!(signal, Signal::INT | Signal::QUIT) && is_in_foreground()) {
            self.tell(signal);
        }
    }

    /// Whether it has ended. As process 1 of a container we also collect what its descendants leave behind.
    pub fn ended(&self) -> Option<End> {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.pid => {
                    let by_signal = status.terminating_signal().map(End::Signal);
                    if let Some(end) = by_signal.or_else(|| status.exit_status().map(End::Code)) {
                        return Some(end);
                    }
                }
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => return None,
                // Somebody else collected it.
                Err(_) => return Some(End::Code(125)),
            }
        }
    }
}

/// Whether the terminal's keys reach our group now.
fn is_in_foreground() -> bool {
    let Ok(terminal) = File::open("/dev/tty") else { return false };
    rustix::termios::tcgetpgrp(&terminal).is_ok_and(|group| group == rustix::process::getpgrp())
}

/// Becomes the task: `args` are the parent's id, the file, and what the task is called with. Returns only what went wrong.
pub fn become_task(mut args: impl Iterator<Item = OsString>) -> (u8, String) {
    let parent = args.next().and_then(|text| text.to_str()?.parse::<i32>().ok()).and_then(Pid::from_raw);
    let (Some(parent), Some(file), Some(name)) = (parent, args.next(), args.next()) else {
        return (125, "this is a part of `curfew exec`".to_owned());
    };
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::TERM)) {
        return (125, format!("the task would outlive `curfew exec`: {error}"));
    }
    // It may have been killed before it could be watched.
    if rustix::process::getppid() != Some(parent) {
        return (125, "`curfew exec` was killed before the task began".to_owned());
    }
    let error = Command::new(&file).arg0(&name).args(args).exec();
    let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
    (code, format!("{}: {error}", name.to_string_lossy()))
}

/// What we are told by signals.
pub struct Signals {
    heard: Vec<(Signal, &'static str, unix::Signal)>,
    child: unix::Signal,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// One that is passed on.
    Signal(Signal, &'static str),
    /// A child has ended.
    Child,
}

impl Signals {
    /// Listens from now on. What was ignored when we were started (`nohup`) stays so, for us and for the task.
    ///
    /// # Errors
    /// The system's.
    pub fn listen() -> io::Result<Self> {
        let ignored = ignored();
        let mut heard = Vec::new();
        for (signal, name) in PASSED {
            if ignored & (1 << (signal.as_raw() - 1)) == 0 {
                heard.push((signal, name, unix::signal(SignalKind::from_raw(signal.as_raw()))?));
            }
        }
        Ok(Self { heard, child: unix::signal(SignalKind::child())? })
    }

    /// The next.
    pub async fn next(&mut self) -> Told {
        std::future::poll_fn(|cx| {
            if self.child.poll_recv(cx).is_ready() {
                return std::task::Poll::Ready(Told::Child);
            }
            for (signal, name, stream) in &mut self.heard {
                if stream.poll_recv(cx).is_ready() {
                    return std::task::Poll::Ready(Told::Signal(*signal, name));
                }
            }
            std::task::Poll::Pending
        })
        .await
    }

    /// The next that means that we shall end.
    pub async fn ending(&mut self) -> (Signal, &'static str) {
        loop {
            match self.next().await {
                Told::Signal(signal, name) if !matches!(signal, Signal::USR1 | Signal::USR2) => return (signal, name),
                _ => {}
            }
        }
    }
}

/// The mask of ignored signals; where the system does not say, none.
fn ignored() -> u64 {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return 0 };
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_looked_up_before_anything_is_minted() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("plain"), "").unwrap();
        let path = std::env::join_paths([folder.path(), Path::new("/bin"), Path::new("/usr/bin")]).unwrap();
        let code = |command: &str| find(OsStr::new(command), Some(&path)).map_err(|error| error.exit_code());
        assert!(code("sh").unwrap().is_absolute());
        assert_eq!(code("no-such-command"), Err(127));
        assert_eq!(code("/no/such/command"), Err(127));
        assert_eq!(code(""), Err(127));
        assert_eq!(code("plain"), Err(126));
        assert_eq!(code("/tmp/"), Err(126));
        assert_eq!(code("/bin/sh/x"), Err(126));
    }
}
