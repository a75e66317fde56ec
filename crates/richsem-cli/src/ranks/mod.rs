//! A command as several processes, one for each GPU: started here (`--gpus`), or by torchrun or srun, whose
//! variables say which one a process is.

mod launch;
mod logs;

use std::{
    hash::{DefaultHasher, Hasher as _},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, anyhow};
use richsem::{
    Error,
    collective::{
        Collective, Single,
        group::{Group, Joining},
        place::{Place, restarts},
    },
    train::Worker,
};
use tch::{Cuda, Device};
use torch_ext::{DeviceChoice, device_name};

use crate::{args::DeviceArgs, output};

pub(crate) use logs::keep as keep_logs;

/// How many processes do the work.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ProcessArgs {
    /// GPUs of this machine to use, with a process each: a number, or all. Several machines: start one process
    /// a GPU with torchrun or srun instead
    #[arg(long, value_name = "N|all", value_parser = gpus, conflicts_with_all = ["processes", "device"])]
    gpus: Option<Gpus>,
    /// Processes on the CPU, as with --gpus: to try out how several work together
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), conflicts_with = "device")]
    processes: Option<u16>,
    /// Seconds after which one of several processes counts as gone (no sign of life, or it did not come) or as
    /// stuck (no step); all of them end then
    #[arg(long, value_name = "SECONDS", default_value_t = 40, value_parser = clap::value_parser!(u16).range(1..))]
    timeout: u16,
}

#[derive(Debug, Clone, Copy)]
enum Gpus {
    All,
    Count(u16),
}

fn gpus(text: &str) -> Result<Gpus, String> {
    let count = || text.parse().ok().filter(|count| *count > 0).map(Gpus::Count);
    let gpus = if text == "all" { Some(Gpus::All) } else { count() };
    gpus.ok_or_else(|| "expected a number of GPUs, at least 1, or all".to_owned())
}

/// This process among those that do the work.
pub(crate) struct Member {
    group: Option<Arc<Group>>,
    local_rank: Option<usize>,
    /// How often it was started before.
    restarts: u64,
    /// What the options say of it; none: `--device` does.
    device: Option<DeviceChoice>,
}

impl Member {
    /// The processes.
    pub(crate) fn collective(&self) -> Arc<dyn Collective> {
        match &self.group {
            Some(group) => Arc::clone(group) as _,
            None => Arc::new(Single),
        }
    }

    /// Whether this is the process that writes results.
    pub(crate) fn leads(&self) -> bool {
        self.collective().leads()
    }

    /// Whether there are several processes.
    pub(crate) fn has_others(&self) -> bool {
        self.group.is_some()
    }

    /// How often whoever started this process, torchrun or SLURM's queue, has started it before.
    pub(crate) fn restarts(&self) -> u64 {
        self.restarts
    }

    /// What the process of rank 0 says, for all.
    pub(crate) fn told_by_first(&self, text: impl FnOnce() -> Result<String>) -> Result<String> {
        let collective = self.collective();
        let own = if collective.leads() { text()? } else { String::new() };
        let all = collective.exchange(own.into_bytes())?;
        let first = all.into_iter().next().unwrap_or_default();
        Ok(String::from_utf8(first)?)
    }

    /// The device of this process, and its fellows.
    pub(crate) fn worker(&self, device: &DeviceArgs) -> Result<Worker> {
        let choice = self.device.unwrap_or(device.device);
        let Some(local_rank) = self.local_rank else {
            let device = DeviceArgs { device: choice }.resolve()?;
            return Ok(Worker { device, collective: self.collective() });
        };
        let choice = match choice {
            DeviceChoice::Cuda(Some(index)) => {
                return Err(anyhow!(
                    "--device: cuda:{index} is one GPU, and there are several processes\n  hint: leave it \
                     out: each process takes the GPU of its own number on the machine"
                ));
            }
            choice => choice,
        };
        let chosen = DeviceArgs { device: choice }.resolve()?;
        let device = match chosen {
            // Whoever starts a process may let it see no GPU but its own.
            Device::Cuda(_) if Cuda::device_count() == 1 && !launch::was_launched() => {
                Device::Cuda(0)
            }
            Device::Cuda(_) => DeviceChoice::Cuda(Some(local_rank)).resolve()?,
            other => other,
        };
        if let Some(group) = &self.group {
            group.compute_on(device)?;
            let rank = group.rank();
            output::note(format!("rank {rank} of {} on {}", group.world(), device_name(device)));
        }
        Ok(Worker { device, collective: self.collective() })
    }
}

/// Does the work alone, or as one of several processes, or starts these and waits for them.
pub(crate) fn run(args: &ProcessArgs, work: impl FnOnce(&Member) -> Result<u8>) -> Result<u8> {
    let launched = launch::is_child()?;
    let variable = |name: &str| std::env::var(name).ok();
    let place = Place::read(&variable)?;
    let restarts = restarts(&variable);
    let count = match args.gpus {
        Some(Gpus::Count(count)) => Some(count),
        Some(Gpus::All) if !launched => {
            DeviceChoice::Cuda(None).resolve()?;
            Some(u16::try_from(Cuda::device_count()).unwrap_or(1))
        }
        Some(Gpus::All) => None,
        None => args.processes,
    };
    let patience = Duration::from_secs(args.timeout.into());
    let device = match (args.gpus, args.processes) {
        (Some(_), _) => Some(DeviceChoice::Cuda(None)),
        (None, Some(_)) => Some(DeviceChoice::Cpu),
        (None, None) => None,
    };
    if let (Some(count), false) = (count, launched) {
        // SLURM's variables are those of the allocation; who starts processes in it is this program.
        if std::env::var_os("RANK").is_some() {
            return Err(anyhow!(
                "--gpus (and --processes) start processes, and this one was started as one of several \
                 (RANK is set)\n  hint: leave the option out"
            ));
        }
        return match count {
            1 => work(&Member { group: None, local_rank: None, restarts, device }),
            count => launch::launch(count.into(), patience),
        };
    }
    match place {
        Some(place) if place.world > 1 => {
            let group = meet(&place, patience)?;
            let local_rank = Some(place.local_rank);
            let of_member = Some(Arc::clone(&group));
            at_work(&group, &Member { group: of_member, local_rank, restarts, device }, work)
        }
        place => {
            let local_rank = place.map(|place| place.local_rank);
            work(&Member { group: None, local_rank, restarts, device })
        }
    }
}

/// Which program this is: of other bytes it is another one.
fn program() -> Result<String> {
    let mut file = fs_err::File::open("/proc/self/exe")?;
    let mut hash = DefaultHasher::new();
    let (mut part, mut size) = (vec![0; 1 << 20], 0);
    loop {
        let count = std::io::Read::read(&mut file, &mut part)?;
        if count == 0 {
            break;
        }
        hash.write(&part[..count]);
        size += count;
    }
    Ok(format!("richsem {}, {size} bytes, {:016x}", env!("CARGO_PKG_VERSION"), hash.finish()))
}

fn meet(place: &Place, patience: Duration) -> Result<Arc<Group>> {
    let rank = place.rank;
    if rank > 0 {
        logs::begin(rank)?;
    }
    let last_resort = move |error: &Error| {
        tell(rank, error);
        output::error(&anyhow!("{error}"));
        signal_hook::low_level::exit(1);
    };
    let joining = Joining { program: program()?, patience, last_resort: Box::new(last_resort) };
    Group::join(place, joining).map_err(|error| {
        tell(rank, &error);
        if rank > 0 && !matches!(error, Error::Process { .. }) {
            // Without a store nobody else hears of it.
            logs::to_terminal(&format!("rank {rank}: {error}"));
        }
        error.into()
    })
}

/// The work of a process of several, which tells the others how it ends.
fn at_work(group: &Group, member: &Member, work: impl FnOnce(&Member) -> Result<u8>) -> Result<u8> {
    let rank = group.rank();
    match std::panic::catch_unwind(AssertUnwindSafe(|| work(member))) {
        Ok(Ok(code)) => {
            group.leave().inspect_err(|error| tell(rank, error))?;
            Ok(code)
        }
        Ok(Err(error)) => {
            group.fail(&format!("{error:#}"));
            if let Some(error) = error.downcast_ref() {
                tell(rank, error);
            }
            Err(error)
        }
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
            group.fail(&format!("internal error: {text}"));
            std::panic::resume_unwind(panic)
        }
    }
}

/// Rank 0 speaks for all on its terminal. Where it is gone itself, rank 1 does, unless the program that started
/// both is this one, which tells.
fn tell(rank: u64, error: &Error) {
    if rank == 1 && matches!(error, Error::Process { rank: 0, .. }) && !launch::was_launched() {
        logs::to_terminal(&error.to_string());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use torch_ext::Store;

    use super::*;

    /// A process that panics tells the others, as one that fails does, and goes on with its panic.
    #[test]
    fn a_panic_of_one_reaches_the_others() {
        const PATIENCE: Duration = Duration::from_secs(60);
        let store = Store::serve(0, PATIENCE).unwrap();
        let rank = |rank: u64| {
            let place = Place {
                rank,
                world: 2,
                local_rank: 0,
                host: "localhost".to_owned(),
                port: store.port(),
                has_store: true,
                attempt: "0".to_owned(),
            };
            let last_resort = Box::new(|error: &Error| panic!("not ended: {error}"));
            let joining = Joining { program: "test".to_owned(), patience: PATIENCE, last_resort };
            let group = Group::join(&place, joining).unwrap();
            let member = Member {
                group: Some(Arc::clone(&group)),
                local_rank: None,
                restarts: 0,
                device: None,
            };
            at_work(&group, &member, |member| {
                if rank == 1 {
                    std::panic::resume_unwind(Box::new("an index is out of bounds".to_owned()));
                }
                Ok(member.collective().exchange(Vec::new()).map(|_| crate::exit::OK)?)
            })
        };
        let (first, second) = std::thread::scope(|scope| {
            let second = scope.spawn(|| rank(1));
            (rank(0), second.join())
        });
        let error = first.unwrap_err();
        let Some(Error::Process { rank, problem, .. }) = error.downcast_ref() else {
            panic!("{error}")
        };
        assert_eq!((*rank, problem.as_str()), (1, "internal error: an index is out of bounds"));
        assert!(second.is_err());
    }
}
