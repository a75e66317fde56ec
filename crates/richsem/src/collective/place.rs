//! Where a process stands among those of its run, as whoever started it says: `torchrun`'s variables, or those
//! of a SLURM step.

use crate::error::{Error, Result};

/// A process's place among those of its run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Which one it is, 0 to `world` − 1.
    pub rank: u64,
    /// Number of processes, at least 1.
    pub world: u64,
    /// Which one it is on its machine: the number of its GPU.
    pub local_rank: usize,
    /// Name or address of the machine where the store is, which is that of rank 0.
    pub host: String,
    /// Port of the store.
    pub port: u16,
    /// Whether who started the processes keeps the store; else rank 0 does.
    pub has_store: bool,
    /// Which start of the run this is, of those that share a store.
    pub attempt: String,
}

/// Ports of SLURM's steps: above those that programs are known by, below those that systems hand out.
const SLURM_PORTS: std::ops::Range<u64> = 15_000..30_000;

/// How often whoever started this process has started it before: torchrun, or SLURM's queue.
#[must_use]
pub fn restarts(get: &dyn Fn(&str) -> Option<String>) -> u64 {
    let count = |name| get(name).and_then(|text| text.parse().ok()).unwrap_or(0);
    // One may have been started by the other.
    count("TORCHELASTIC_RESTART_COUNT").max(count("SLURM_RESTART_COUNT"))
}

impl Place {
    /// What the variables that `get` reads say; none for a process that was started alone.
    ///
    /// # Errors
    /// Variables that are missing beside others, or wrong.
    pub fn read(get: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        // An empty variable is none.
        let get = &|name: &str| get(name).filter(|text| !text.is_empty());
        let place = match (get("RANK"), get("WORLD_SIZE")) {
            (Some(_), Some(_)) => Self::torchrun(get)?,
            _ if get("SLURM_PROCID").is_some() => match Self::slurm(get)? {
                Some(place) => place,
                None => return Ok(None),
            },
            _ => return Ok(None),
        };
        if place.world == 0 || place.rank >= place.world {
            let Self { rank, world, .. } = place;
            return Err(Error::other(format!(
                "expected a rank below the number of processes, got rank {rank} of {world}"
            ))
            .with_hint("RANK and WORLD_SIZE (SLURM_PROCID and SLURM_NTASKS) say it"));
        }
        Ok(Some(place))
    }

    /// Whether this process keeps the store of the run.
    pub(super) fn keeps_store(&self) -> bool {
        self.rank == 0 && !self.has_store
    }

    fn torchrun(get: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let rank = number(get, "RANK")?;
        Ok(Self {
            rank,
            world: number(get, "WORLD_SIZE")?,
            local_rank: number(get, "LOCAL_RANK")?,
            host: required(get, "MASTER_ADDR")?,
            port: number(get, "MASTER_PORT")?,
            has_store: get("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|text| text == "True"),
            attempt: get("TORCHELASTIC_RESTART_COUNT").unwrap_or_else(|| "0".to_owned()),
        })
    }

    /// `srun` sets variables of its step; those of the job are the same where a job has one step.
    fn slurm(get: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let first = |names: &[&'static str]| names.iter().copied().find(|name| get(name).is_some());
        let Some(tasks) = first(&["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"]) else { return Ok(None) };
        let world = number(get, tasks)?;
        if world == 1 {
            return Ok(None);
        }
        let host = match (get("MASTER_ADDR"), first(&["SLURM_STEP_NODELIST", "SLURM_NODELIST"])) {
            (Some(host), _) => host,
            (None, Some(nodes)) => first_node(nodes, &required(get, nodes)?)?,
            (None, None) => return Err(missing("SLURM_NODELIST")),
        };
        let port = match get("MASTER_PORT") {
            Some(_) => number(get, "MASTER_PORT")?,
            None => {
                let id = |name| if get(name).is_some() { number::<u64>(get, name) } else { Ok(0) };
                // Steps of a job, and jobs after each other, have ports of their own.
                let id = id("SLURM_JOB_ID")?.wrapping_mul(31).wrapping_add(id("SLURM_STEP_ID")?);
                (SLURM_PORTS.start + id % (SLURM_PORTS.end - SLURM_PORTS.start)) as u16
            }
        };
        Ok(Some(Self {
            rank: number(get, "SLURM_PROCID")?,
            world,
            local_rank: number(get, "SLURM_LOCALID")?,
            host,
            port,
            has_store: false,
            attempt: get("SLURM_RESTART_COUNT").unwrap_or_else(|| "0".to_owned()),
        }))
    }
}

fn missing(name: &str) -> Error {
    Error::other(format!(
        "{name} is not set, and other variables of a run of several processes are"
    ))
    .with_hint("start the processes with --gpus, torchrun or srun, which set all of them")
}

fn required(get: &dyn Fn(&str) -> Option<String>, name: &str) -> Result<String> {
    get(name).ok_or_else(|| missing(name))
}

fn number<T: std::str::FromStr>(get: &dyn Fn(&str) -> Option<String>, name: &str) -> Result<T> {
    let text = required(get, name)?;
    text.parse().map_err(|_| {
        Error::other(format!("{name}: expected a whole number in its range, got `{text}`"))
    })
}

/// The first host of a list of SLURM's, as `gpu[03-05,9],login`: `gpu03`.
fn first_node(variable: &str, list: &str) -> Result<String> {
    let wrong = || Error::other(format!("{variable}: expected a list of hosts, got `{list}`"));
    let mut name = String::new();
    let mut rest = list;
    // Several groups of numbers may follow each other in a name.
    loop {
        let end = rest.find(['[', ',']).unwrap_or(rest.len());
        name.push_str(&rest[..end]);
        rest = &rest[end..];
        let Some(numbers) = rest.strip_prefix('[') else { break };
        let (numbers, after) = numbers.split_once(']').ok_or_else(wrong)?;
        let first = numbers.split([',', '-']).next().filter(|n| !n.is_empty()).ok_or_else(wrong)?;
        name.push_str(first);
        rest = after;
    }
    if name.is_empty() { Err(wrong()) } else { Ok(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Place>> {
        Place::read(&|name| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn a_process_alone_has_no_place() {
        assert_eq!(read(&[]).unwrap(), None);
        // A script of SLURM's, or a step of one task.
        assert_eq!(read(&[("SLURM_NTASKS", "4"), ("SLURM_NODELIST", "a")]).unwrap(), None);
        assert_eq!(read(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "1")]).unwrap(), None);
    }

    #[test]
    fn torchruns_variables_are_read() {
        let all = [
            ("RANK", "5"),
            ("WORLD_SIZE", "8"),
            ("LOCAL_RANK", "1"),
            ("MASTER_ADDR", "node0"),
            ("MASTER_PORT", "29500"),
            ("TORCHELASTIC_USE_AGENT_STORE", "True"),
            ("TORCHELASTIC_RESTART_COUNT", "2"),
        ];
        let place = read(&all).unwrap().unwrap();
        assert_eq!((place.rank, place.world, place.local_rank), (5, 8, 1));
        assert_eq!((place.host.as_str(), place.port), ("node0", 29500));
        assert!(place.has_store && place.attempt == "2");
        // By hand, without an agent.
        assert!(!read(&all[..5]).unwrap().unwrap().has_store);
        let error = read(&all[..4]).unwrap_err().to_string();
        assert!(error.contains("MASTER_PORT is not set"), "{error}");
        let other = [&[("WORLD_SIZE", "5")], &all[..]].concat();
        assert!(read(&other).unwrap_err().to_string().contains("rank 5 of 5"));
        let other = [&[("MASTER_PORT", "70000")], &all[..]].concat();
        assert!(read(&other).unwrap_err().to_string().contains("MASTER_PORT: expected"));
    }

    #[test]
    fn slurms_variables_are_read() {
        let all = [
            ("SLURM_PROCID", "9"),
            ("SLURM_NTASKS", "16"),
            ("SLURM_LOCALID", "1"),
            ("SLURM_NODELIST", "gpu[03-04]"),
            ("SLURM_JOB_ID", "1234567"),
        ];
        let place = read(&all).unwrap().unwrap();
        assert_eq!((place.rank, place.world, place.local_rank), (9, 16, 1));
        assert_eq!(place.host, "gpu03");
        assert!(SLURM_PORTS.contains(&u64::from(place.port)) && !place.has_store);
        // A step of a larger job, and an address that the user chose.
        let more = [
            ("SLURM_STEP_NUM_TASKS", "12"),
            ("SLURM_STEP_NODELIST", "b,a"),
            ("MASTER_PORT", "4000"),
        ];
        let place = read(&[&more[..], &all[..]].concat()).unwrap().unwrap();
        assert_eq!((place.world, place.host.as_str(), place.port), (12, "b", 4000));
    }

    #[test]
    fn restarts_are_those_of_whoever_has_some() {
        let of = |variables: &[(&str, &str)]| {
            restarts(&|name| {
                variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(of(&[]), 0);
        assert_eq!(of(&[("TORCHELASTIC_RESTART_COUNT", "0"), ("SLURM_RESTART_COUNT", "2")]), 2);
        assert_eq!(of(&[("TORCHELASTIC_RESTART_COUNT", "1")]), 1);
        assert_eq!(of(&[("SLURM_RESTART_COUNT", "")]), 0);
    }

    #[test]
    fn the_first_host_of_a_list() {
        let first = |list| first_node("SLURM_NODELIST", list);
        for (list, host) in [
            ("a", "a"),
            ("a,b", "a"),
            ("gpu[03-05,9],login", "gpu03"),
            ("r[1-2]n[07,08]", "r1n07"),
            ("r[1-2]-ib,x", "r1-ib"),
        ] {
            assert_eq!(first(list).unwrap(), host, "{list}");
        }
        for list in ["", "gpu[03", "gpu[]", ",a"] {
            assert!(first(list).unwrap_err().to_string().contains("SLURM_NODELIST"), "{list}");
        }
    }
}
