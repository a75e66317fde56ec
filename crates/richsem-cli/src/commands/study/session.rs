//! Training the runs of a study: child processes, several at once.

use std::{
    collections::VecDeque,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use richsem::{
    error::write_atomically,
    study::{PlannedRun, ResultLine, Results, RunState, Study, run_state},
    train::{EvalRow, RunFolder},
};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    place::{Place, VISIBLE},
    progress::{StudyProgress, Watched},
};
use crate::{progress::hms, table};

/// Time between two looks at the child processes.
const TICK: Duration = Duration::from_millis(50);
/// Most lines of a failed run's log that are shown.
const LOG_LINES: usize = 12;

/// How a session of training ended.
pub(super) enum Ended {
    /// There is nothing left to train.
    Done {
        /// Number of runs that failed.
        failed: usize,
    },
    /// The user stopped it.
    Stopped,
}

pub(super) struct Session<'a> {
    study: &'a Study,
    folder: &'a Path,
    results: Results,
    queue: VecDeque<&'a PlannedRun>,
    /// Number of runs of this session, those included that were finished before.
    total: usize,
    places: Vec<Place>,
    /// One for each job. Job i runs at place i, modulo the number of places.
    slots: Vec<Option<Running<'a>>>,
    failed: usize,
    progress: StudyProgress,
}

struct Running<'a> {
    run: &'a PlannedRun,
    started: Instant,
    work: Work,
}

enum Work {
    Child {
        child: Child,
        log: PathBuf,
        /// Length of the log, in bytes, when this process was started.
        log_from: u64,
        /// Whether it trains the run from its start.
        whole: bool,
        told_to_stop: bool,
    },
    /// A process that a killed study left behind. This study waits for it.
    Elsewhere,
}

impl<'a> Session<'a> {
    /// Finds out how far the selected runs are. If one of them cannot be resumed, this is an error, and
    /// nothing is trained.
    pub(super) fn new(
        study: &'a Study,
        folder: &'a Path,
        results: Results,
        selected: Vec<&'a PlannedRun>,
    ) -> Result<Self> {
        let mut session = Self {
            study,
            folder,
            results,
            queue: VecDeque::new(),
            total: selected.len(),
            places: Vec::new(),
            slots: Vec::new(),
            failed: 0,
            progress: StudyProgress::new(),
        };
        let mut states = Vec::new();
        for run in selected {
            if session.results.of(study, run).is_none() {
                states.push((run, run_state(&session.run_folder(run), &run.config)?));
            }
        }
        for (run, state) in states {
            match state {
                RunState::Finished(row) => session.record(run, row, None, None)?,
                RunState::New | RunState::Unfinished => session.queue.push_back(run),
            }
        }
        Ok(session)
    }

    pub(super) fn is_work_left(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(super) fn into_results(self) -> Results {
        self.results
    }

    /// Trains the runs that are left, `jobs` of them at the same time.
    pub(super) fn work(
        &mut self,
        places: Vec<Place>,
        jobs: usize,
        stop: &AtomicBool,
    ) -> Result<Ended> {
        self.progress.start(self.total);
        self.progress.note(&format!(
            "study {}: {} of {} runs are finished; {jobs} at once on {}; folder {}",
            self.study.name,
            self.done(),
            self.total,
            places.iter().map(|place| place.name.as_str()).collect::<Vec<_>>().join(", "),
            self.folder.display()
        ));
        self.places = places;
        self.slots = (0..jobs).map(|_| None).collect();
        let ended = self.supervise(stop);
        if ended.is_err() {
            // For example, the disk is full. No run continues without this process.
            self.tell_to_stop();
            for running in self.slots.iter_mut().flatten() {
                if let Work::Child { child, .. } = &mut running.work {
                    let _ = child.wait();
                }
            }
        }
        self.progress.finish();
        ended
    }

    fn supervise(&mut self, stop: &AtomicBool) -> Result<Ended> {
        let mut stopping = false;
        loop {
            if stop.load(Ordering::Relaxed) {
                if !stopping {
                    stopping = true;
                    self.progress.note(
                        "stopping: the runs save first; a second Ctrl-C does not wait for them",
                    );
                }
                self.tell_to_stop();
            }
            for slot in 0..self.slots.len() {
                self.look_at(slot, stopping)?;
                while !stopping && self.slots[slot].is_none() {
                    let Some(run) = self.queue.pop_front() else { break };
                    self.start(run, slot)?;
                }
            }
            if self.slots.iter().all(Option::is_none) {
                let done = Ended::Done { failed: self.failed };
                return Ok(if stopping { Ended::Stopped } else { done });
            }
            self.show_progress();
            std::thread::sleep(TICK);
        }
    }

    /// Starts or resumes a run. The slot stays empty if the run turns out to be finished.
    fn start(&mut self, run: &'a PlannedRun, slot: usize) -> Result<()> {
        let folder = self.run_folder(run);
        if RunFolder::is_busy(&folder)? {
            self.wait_for(run, slot);
            return Ok(());
        }
        let state = run_state(&folder, &run.config)?;
        if let RunState::Finished(row) = state {
            return self.record(run, row, None, None);
        }
        let place = self.place(slot).clone();
        let device = &place.name;
        let log = self.file(run, "log");
        let mut out = fs_err::OpenOptions::new().create(true).append(true).open(&log)?;
        let log_from = out.metadata()?.len();
        let mut command = this_program()?;
        let whole = state == RunState::New;
        if whole {
            let settings = self.file(run, "toml");
            let text = run.config.to_toml();
            write_atomically(&settings, |file| Ok(file.write_all(text.as_bytes())?))?;
            command.args(["train", "--config"]).arg(settings).arg("--run").arg(&folder);
        } else {
            command.args(["train", "--resume"]).arg(&folder);
        }
        command.args(&place.options);
        if let Some(visible) = &place.visible {
            command.env(VISIBLE, visible);
        }
        for (name, threads) in self.threads(place.processes) {
            command.env(name, threads.to_string());
        }
        writeln!(out, "richsem study: {}, on {device}", self.label(run))?;
        let out = out.into_file();
        // Ctrl-C goes to a terminal's whole process group. The runs get one signal, from this process.
        command.process_group(0).stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child = command.spawn().context("a run could not be started")?;
        let verb = if whole { "started " } else { "resumed " };
        self.progress.note(&format!("{verb} {} on {device}", self.label(run)));
        let work = Work::Child { child, log, log_from, whole, told_to_stop: false };
        self.slots[slot] = Some(Running { run, started: Instant::now(), work });
        Ok(())
    }

    fn wait_for(&mut self, run: &'a PlannedRun, slot: usize) {
        self.progress.note(&format!(
            "waiting  {}: another process trains in {}",
            self.label(run),
            self.run_folder(run).display()
        ));
        self.slots[slot] = Some(Running { run, started: Instant::now(), work: Work::Elsewhere });
    }

    /// Frees the slot if no process trains its run any more.
    fn look_at(&mut self, slot: usize, stopping: bool) -> Result<()> {
        let Some(running) = &mut self.slots[slot] else { return Ok(()) };
        let run = running.run;
        match &mut running.work {
            Work::Elsewhere => {
                let folder = self.folder.join("runs").join(&run.name);
                if stopping {
                    self.slots[slot] = None;
                } else if !RunFolder::is_busy(&folder)? {
                    self.slots[slot] = None;
                    self.queue.push_front(run);
                }
                Ok(())
            }
            Work::Child { child, log, log_from, whole, .. } => {
                let Some(status) = child.try_wait()? else { return Ok(()) };
                let seconds = whole.then(|| running.started.elapsed().as_secs_f64());
                let (log, log_from) = (log.clone(), *log_from);
                self.slots[slot] = None;
                match run_state(&self.run_folder(run), &run.config) {
                    Ok(RunState::Finished(row)) => {
                        let device = self.place(slot).name.clone();
                        self.record(run, row, seconds, Some(device))?;
                    }
                    _ if stopping => {}
                    // Two processes were started before one of them had the folder.
                    _ if RunFolder::is_busy(&self.run_folder(run))? => self.wait_for(run, slot),
                    state => {
                        self.failed += 1;
                        let why = match state {
                            Err(error) => error.to_string(),
                            Ok(_) => ended(status),
                        };
                        self.progress.note(&format!(
                            "failed   {} ({why}); the end of {}:\n{}",
                            self.label(run),
                            log.display(),
                            end_of(&log, log_from)
                        ));
                    }
                }
                Ok(())
            }
        }
    }

    /// Adds the line of a finished run to `study.jsonl`, and tells the user.
    fn record(
        &mut self,
        run: &PlannedRun,
        row: EvalRow,
        seconds: Option<f64>,
        device: Option<String>,
    ) -> Result<()> {
        let value = |metric: &String| row.metrics.get(metric).copied().flatten();
        let metrics = self.study.metrics.iter();
        let metrics: Vec<String> =
            metrics.map(|metric| format!("{metric} {}", table::percent(value(metric)))).collect();
        let how = match (seconds, &device) {
            (Some(seconds), _) => format!("in {}", hms(seconds)),
            (None, Some(_)) => "after resuming".to_owned(),
            (None, None) => "found finished".to_owned(),
        };
        self.progress.note(&format!("done     {} {how}: {}", self.label(run), metrics.join("  ")));
        self.results.append(ResultLine {
            variant: self.study.variants[run.variant].name.clone(),
            seed: run.seed,
            metrics: row.metrics,
            steps: row.step,
            seconds,
            device,
            config_hash: run.config_hash.clone(),
        })?;
        Ok(())
    }

    /// Sends each child one signal: a second one would end it without saving.
    fn tell_to_stop(&mut self) {
        for running in self.slots.iter_mut().flatten() {
            if let Work::Child { child, told_to_stop, .. } = &mut running.work
                && !*told_to_stop
            {
                *told_to_stop = true;
                // The child is not reaped yet, so the id is still its own. It may have ended by itself.
                let _ = kill_process(Pid::from_child(child), Signal::TERM);
            }
        }
    }

    fn show_progress(&mut self) {
        let watched: Vec<Watched<'_>> = self
            .slots
            .iter()
            .flatten()
            .map(|running| Watched {
                run: running.run,
                folder: self.run_folder(running.run),
                label: self.label(running.run),
                seconds: running.started.elapsed().as_secs_f64(),
            })
            .collect();
        let queued: Vec<usize> = self.queue.iter().map(|run| run.variant).collect();
        let durations: Vec<(usize, f64)> = self
            .study
            .runs
            .iter()
            .filter_map(|run| Some((run.variant, self.results.of(self.study, run)?.seconds?)))
            .collect();
        let done = self.total - queued.len() - watched.len() - self.failed;
        self.progress.show(done, &watched, &queued, &durations, self.slots.len());
    }

    fn done(&self) -> usize {
        self.total - self.queue.len()
    }

    fn label(&self, run: &PlannedRun) -> String {
        format!("{}, seed {}", self.study.variants[run.variant].name, run.seed)
    }

    fn place(&self, slot: usize) -> &Place {
        &self.places[slot % self.places.len()]
    }

    fn run_folder(&self, run: &PlannedRun) -> PathBuf {
        self.folder.join("runs").join(&run.name)
    }

    /// A file beside the run's folder. The ending is added: a run's name may hold dots.
    fn file(&self, run: &PlannedRun, ending: &str) -> PathBuf {
        self.folder.join("runs").join(format!("{}.{ending}", run.name))
    }

    /// Numbers of threads of the libraries of each of a run's processes, so that several runs share the cores.
    fn threads(&self, processes: usize) -> Vec<(&'static str, usize)> {
        if self.slots.len() < 2 {
            return Vec::new();
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let each = (cores / (self.slots.len() * processes)).max(1);
        let names = ["OMP_NUM_THREADS", "RAYON_NUM_THREADS"].into_iter();
        names.filter(|name| std::env::var_os(name).is_none()).map(|name| (name, each)).collect()
    }
}

/// This same program, even if a newer build has replaced its file.
fn this_program() -> Result<Command> {
    let same = Path::new("/proc/self/exe");
    let mut command =
        if same.exists() { Command::new(same) } else { Command::new(std::env::current_exe()?) };
    command.arg0("richsem");
    Ok(command)
}

/// How a process ended, in words.
fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "it ended without its last evaluation".to_owned(),
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// The last lines of a log, of those after byte `from`.
fn end_of(log: &Path, from: u64) -> String {
    /// Bytes that are read: far more than the lines that are shown.
    const MOST: u64 = 16 << 10;
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(log)?;
        let length = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(from.max(length.saturating_sub(MOST))))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let text = match read() {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => return format!("    (it cannot be read: {error})"),
    };
    let lines: Vec<&str> = text.lines().collect();
    let shown = &lines[lines.len().saturating_sub(LOG_LINES)..];
    shown.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}
