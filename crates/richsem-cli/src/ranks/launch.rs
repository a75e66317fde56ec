//! Starts the processes of a command on this machine, and waits for them. They are told what torchrun would
//! tell them.

use std::{
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use richsem::collective::group::{tell_of, told_in};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use signal_hook::consts::SIGTSTP;
use torch_ext::Store;

use crate::{exit, output, signals::Signals};

/// Set for the processes that are started here: the number of this one.
const LAUNCHER: &str = "RICHSEM_LAUNCHER";
/// Of the first start, which is the only one.
const ATTEMPT: &str = "0";
/// Time that processes have to end by themselves once one of them failed: a little longer than they give
/// themselves.
const GRACE: Duration = Duration::from_secs(12);
const PAUSE: Duration = Duration::from_millis(30);
/// Time between two looks whether they told of a failure.
const LOOK: Duration = Duration::from_millis(500);

pub(super) fn was_launched() -> bool {
    std::env::var_os(LAUNCHER).is_some()
}

/// Whether this process was started here. If so it ends with the one that started it.
pub(super) fn is_child() -> Result<bool> {
    let Some(launcher) = std::env::var(LAUNCHER).ok() else { return Ok(false) };
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    if launcher != parent.to_string() {
        return Err(anyhow!("the process that started this one is gone"));
    }
    Ok(true)
}

/// Ends what is left of the processes when it is dropped.
struct Children(Vec<(Child, Option<ExitStatus>)>);

impl Children {
    fn pid(child: &Child) -> Option<Pid> {
        i32::try_from(child.id()).ok().and_then(Pid::from_raw)
    }

    /// Those that run.
    fn send(&self, signal: Signal) {
        let running = self.0.iter().filter(|(_, status)| status.is_none());
        for pid in running.filter_map(|(child, _)| Self::pid(child)) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Ends those that run, or of these those that are stopped, and says which ones.
    fn kill(&mut self, only_stopped: bool) -> Vec<usize> {
        let mut killed = Vec::new();
        for (rank, (child, status)) in self.0.iter_mut().enumerate() {
            // With whatever it started itself.
            if let (Some(pid), None) = (Self::pid(child), &status)
                && (!only_stopped || is_stopped(pid))
            {
                let _ = kill_process_group(pid, Signal::KILL);
                *status = child.wait().ok();
                killed.push(rank);
            }
        }
        killed
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.kill(false);
    }
}

/// Whether a process is stopped, from Linux's record: it cannot end by itself.
fn is_stopped(pid: Pid) -> bool {
    let record = format!("/proc/{}/stat", pid.as_raw_nonzero());
    let record = std::fs::read_to_string(record).unwrap_or_default();
    // Its name comes before, in brackets, and may hold anything.
    record.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T'))
}

fn start(world: u64, port: u16) -> Result<Children> {
    let program = std::env::current_exe()?;
    let threads =
        std::thread::available_parallelism().map_or(1, |cores| cores.get()) as u64 / world;
    let mut children = Children(Vec::new());
    for rank in 0..world {
        let mut command = Command::new(&program);
        command
            .args(std::env::args_os().skip(1))
            .env("RANK", rank.to_string())
            .env("LOCAL_RANK", rank.to_string())
            .env("WORLD_SIZE", world.to_string())
            .env("LOCAL_WORLD_SIZE", world.to_string())
            .env("MASTER_ADDR", "127.0.0.1")
            .env("MASTER_PORT", port.to_string())
            .env("TORCHELASTIC_USE_AGENT_STORE", "True")
            .env("TORCHELASTIC_RESTART_COUNT", ATTEMPT)
            .env(LAUNCHER, std::process::id().to_string());
        if std::env::var_os("OMP_NUM_THREADS").is_none() {
            command.env("OMP_NUM_THREADS", threads.max(1).to_string());
        }
        // A Ctrl-C on the terminal comes to this process alone, which hands it on.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .map_err(|error| anyhow!("a process of this program could not be started: {error}"))?;
        children.0.push((child, None));
    }
    Ok(children)
}

/// Starts `world` processes, and gives the exit code of the first of them, or of the one that failed.
pub(super) fn launch(world: u64, patience: Duration) -> Result<u8> {
    let signals = Signals::catch()?;
    let store = Store::serve(0, patience)?;
    let mut children = start(world, store.port())?;
    let suspends = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGTSTP, Arc::clone(&suspends))?;
    let mut told = false;
    let mut failed: Option<Instant> = None;
    let mut looked = Instant::now();
    // Those that this process ended itself.
    let mut ended_here = Vec::new();
    while children.0.iter().any(|(_, status)| status.is_none()) {
        if let (Some(signal), false) = (signals.received(), told) {
            told = true;
            Signal::from_named_raw(signal).into_iter().for_each(|signal| children.send(signal));
        }
        if suspends.swap(false, Ordering::Relaxed) {
            // Ctrl-Z, until the shell's `fg` or `bg`: the store of this process would not answer the others.
            children.send(Signal::STOP);
            kill_process(rustix::process::getpid(), Signal::STOP)?;
            children.send(Signal::CONT);
        }
        for rank in 0..children.0.len() {
            let (child, status) = &mut children.0[rank];
            if status.is_some() {
                continue;
            }
            *status = child.try_wait()?;
            let Some(ended) = *status else { continue };
            // Whoever was told to stop ends with that signal's code.
            if !ended.success() && !told {
                failed.get_or_insert_with(Instant::now);
                if let Some(problem) = killed(ended) {
                    // The others may have told before; the store may be full of other troubles.
                    let _ = tell_of(&store, ATTEMPT, rank as u64, &problem);
                }
            }
        }
        if failed.is_none() && looked.elapsed() > LOOK {
            looked = Instant::now();
            // One that is stopped does not end, and the others may be stuck.
            failed = told_in(&store, ATTEMPT)?.map(|_| looked);
        }
        if let Some(since) = failed {
            ended_here.extend(children.kill(since.elapsed() <= GRACE));
        }
        std::thread::sleep(PAUSE);
    }
    let statuses = children.0.iter().filter_map(|(_, status)| *status);
    let (rank, status) = statuses
        .enumerate()
        .find(|(_, status)| !status.success())
        .unwrap_or((0, ExitStatus::default()));
    if ended_here.contains(&0) {
        // Rank 0 speaks for all, and was stopped or stuck.
        let why = told_in(&store, ATTEMPT)?.map_or_else(String::new, |error| error.to_string());
        output::error(&anyhow!("{why}"));
        return Ok(exit::ERROR);
    }
    if let Some(problem) = killed(status) {
        // It could say nothing itself.
        output::error(&anyhow!("rank {rank}: {problem}"));
    }
    Ok(code(status))
}

/// Why a process ended that could say nothing.
fn killed(status: ExitStatus) -> Option<String> {
    let signal = std::os::unix::process::ExitStatusExt::signal(&status)?;
    let why = match signal {
        9 => " (SIGKILL: by hand, or because the machine's memory was full)",
        7 => " (SIGBUS)",
        6 => " (SIGABRT)",
        11 => " (SIGSEGV)",
        _ => "",
    };
    Some(format!("its process was ended by signal {signal}{why}"))
}

fn code(status: ExitStatus) -> u8 {
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    match (status.code(), signal) {
        (Some(code), _) => u8::try_from(code).unwrap_or(exit::ERROR),
        (None, Some(signal)) => exit::signal(signal.unsigned_abs() as usize),
        (None, None) => exit::ERROR,
    }
}
