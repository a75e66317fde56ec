//! Memory of a training on the CPU: a step that takes more than there is would be killed, and not refused.

use std::path::Path;

use anyhow::{Result, anyhow};
use richsem::{
    bench::{self, Part, Workload},
    config::Config,
    recipe::Choice,
};
use tch::Device;
use toml::Value;

/// Share of the memory that is free which a training may take.
pub(super) const MOST_MEMORY: f64 = 0.8;

/// Bytes that steps take, on images of one size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Need {
    /// Whatever the images: parameters, gradients, moments.
    pub(super) fixed: f64,
    /// For each image of a batch.
    pub(super) image: f64,
}

impl Need {
    /// What two steps on one image each tell of images of `area`, in pixels: each its area and bytes. What an image
    /// takes grows with its area.
    fn of([(small, few), (large, more)]: [(f64, f64); 2], area: f64) -> Self {
        let pixel = ((more - few) / (large - small)).max(0.0);
        Self { fixed: (few - pixel * small).max(0.0), image: pixel * area }
    }

    pub(super) fn of_batch(&self, batch: usize) -> f64 {
        self.fixed + self.image * batch as f64
    }
}

/// Steps on small images, from which follows what those of the run take; none where Linux does not say what a
/// process takes. `work` has the size of the run's images, and one image a batch.
pub(super) fn need(config: &Config, work: &Workload) -> Option<Need> {
    let sides = [work.height, work.width];
    // Of small images the parameters are nearly all, and nothing can be told.
    if sides.into_iter().min() < Some(4 * 32) {
        return None;
    }
    let before = of_process("VmRSS")?;
    let mut steps = [(0.0, 0.0); 2];
    for (step, part) in steps.iter_mut().zip([4, 2]) {
        let small = Workload {
            height: work.height / part,
            width: work.width / part,
            batch: 1,
            warmup: 0,
            runs: 1,
            ..*work
        };
        forget_peak();
        // So few cells may be too few for the queries: then nothing is known.
        if bench::run(config, &small, Device::Cpu, Some(Part::Train)).is_err() {
            return None;
        }
        let peak = of_process("VmHWM")?;
        *step = (f64::from(small.height) * f64::from(small.width), (peak - before).max(0.0));
    }
    Some(Need::of(steps, f64::from(work.height) * f64::from(work.width)))
}

/// The factor by which the sides of images must be smaller for a batch of one to fit into `free` bytes; none if
/// it fits as it is.
pub(super) fn shrink(need: Need, free: f64) -> Result<Option<f64>> {
    let limit = MOST_MEMORY * free;
    if need.of_batch(1) <= limit {
        return Ok(None);
    }
    let left = limit - need.fixed;
    let factor = (left / need.image).max(0.0).sqrt();
    if left <= 0.0 || factor < 0.1 {
        return Err(anyhow!(
            "memory: training takes {:.1} GiB, and {:.1} GiB are free\n  hint: free memory, use a machine with \
             more, or start from a smaller backbone",
            gib(need.of_batch(1)),
            gib(free)
        ));
    }
    Ok(Some(factor))
}

/// The sizes of a configuration, all smaller by a factor.
pub(super) fn sizes(config: &Config, factor: f64, need: Need, free: f64) -> Vec<Choice> {
    let smaller = |side: u32| {
        let side = (f64::from(side) * factor / 32.0).floor() * 32.0;
        Value::Integer((side as i64).max(32))
    };
    let mut scales: Vec<Value> = config.data.augment.scales.iter().map(|&s| smaller(s)).collect();
    scales.dedup();
    let why = format!(
        "smaller images: at the usual size one takes {:.1} GiB, and {:.1} GiB are free",
        gib(need.of_batch(1)),
        gib(free)
    );
    let choice = |key: &str, value: Value, why: &str| Choice {
        key: key.to_owned(),
        value,
        why: why.to_owned(),
    };
    vec![
        choice("data.augment.scales", Value::Array(scales), &why),
        choice("data.augment.max_size", smaller(config.data.augment.max_size), ""),
        choice("data.resize.size", smaller(config.data.resize.size), &why),
        choice("data.resize.max_size", smaller(config.data.resize.max_size), ""),
    ]
}

pub(super) fn gib(bytes: f64) -> f64 {
    bytes / f64::from(1 << 30)
}

/// Where control groups are, what a line of `/proc/self/cgroup` has before the group's path, and names: of the
/// limit, of what is taken, and of the files' share of it.
struct Groups {
    root: &'static str,
    before: &'static str,
    names: [&'static str; 3],
}

/// Versions 2 and 1.
const GROUPS: [Groups; 2] = [
    Groups {
        root: "/sys/fs/cgroup",
        before: "0::/",
        names: ["memory.max", "memory.current", "inactive_file "],
    },
    Groups {
        root: "/sys/fs/cgroup/memory",
        before: ":memory:/",
        names: ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "],
    },
];

/// Bytes that this process can still have: what is free, or what its control groups leave it.
pub(super) fn free() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let mut free = kib(&text, "MemAvailable")?;
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    for Groups { root, before, names } in GROUPS {
        let path = own.lines().find_map(|line| Some(line.split_once(before)?.1));
        // The limits of the groups around it hold, too.
        for group in Path::new(path.unwrap_or_default()).ancestors() {
            free = left_of_group(&Path::new(root).join(group), names)
                .map_or(free, |left| left.min(free));
        }
    }
    Some(free)
}

/// Bytes that a control group leaves; none without a limit.
fn left_of_group(folder: &Path, [most, taken, files]: [&str; 3]) -> Option<f64> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<f64>().ok();
    let (most, taken) = (number(most)?, number(taken)?);
    // Files that were read stay until others need the memory.
    let stat = read("memory.stat").unwrap_or_default();
    let files = stat.lines().find_map(|line| line.strip_prefix(files));
    let files: f64 = files.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(0.0);
    Some((most - taken + files).max(0.0))
}

/// Bytes that the kernel has of this process: `VmRSS`, what it takes, or `VmHWM`, the most that it took.
pub(super) fn of_process(name: &str) -> Option<f64> {
    kib(&std::fs::read_to_string("/proc/self/status").ok()?, name)
}

/// Bytes in a line as `MemAvailable:  1024 kB`.
fn kib(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let number: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(1024.0 * number)
}

/// Lets the kernel count the most that is taken from now on. Where it may not, the most until now stays, and the need
/// comes out too high.
pub(super) fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const GIB: f64 = 1_073_741_824.0;

    #[test]
    fn two_small_steps_tell_of_large_ones() {
        let need = Need::of([(10.0, 120.0), (40.0, 180.0)], 160.0);
        assert_eq!(need, Need { fixed: 100.0, image: 320.0 });
        assert_eq!(need.of_batch(2), 740.0);
        // A second step that takes less, by chance.
        assert_eq!(Need::of([(10.0, 120.0), (40.0, 110.0)], 160.0).image, 0.0);
    }

    #[test]
    fn images_become_smaller_where_one_does_not_fit() {
        let need = Need { fixed: GIB, image: 4.0 * GIB };
        assert_eq!(shrink(need, 10.0 * GIB).unwrap(), None);
        // 0.8 of 2.5 GiB leave 1 GiB to an image: a quarter of its area.
        assert!((shrink(need, 2.5 * GIB).unwrap().unwrap() - 0.5).abs() < 1e-9);
        let error = shrink(need, GIB).unwrap_err().to_string();
        assert!(error.contains("takes 5.0 GiB, and 1.0 GiB are free"), "{error}");
        let config = Config::defaults(&[]).unwrap();
        let sizes = sizes(&config, 0.5, need, 2.5 * GIB);
        let size = sizes.iter().find(|choice| choice.key == "data.resize.size").unwrap();
        assert_eq!(size.value, Value::Integer(i64::from(config.data.resize.size) / 2 / 32 * 32));
        assert!(size.why.contains("one takes 5.0 GiB"), "{}", size.why);
    }

    #[test]
    fn a_control_groups_limit_is_what_counts() {
        for Groups { names: names @ [most, taken, files], .. } in GROUPS {
            let folder = tempfile::tempdir().unwrap();
            let write = |name: &str, text: &str| fs_err::write(folder.path().join(name), text);
            assert_eq!(left_of_group(folder.path(), names), None);
            write(taken, "700\n").unwrap();
            write(most, "max\n").unwrap();
            assert_eq!(left_of_group(folder.path(), names), None);
            write(most, "1000\n").unwrap();
            assert_eq!(left_of_group(folder.path(), names), Some(300.0));
            write("memory.stat", &format!("anon 5\n{files}50\n")).unwrap();
            assert_eq!(left_of_group(folder.path(), names), Some(350.0));
        }
        assert_eq!(kib("A: 1 kB\nMemAvailable:   2 kB\n", "MemAvailable"), Some(2048.0));
        assert!(free().unwrap() > 0.0 && of_process("VmRSS").unwrap() > 0.0);
    }
}
