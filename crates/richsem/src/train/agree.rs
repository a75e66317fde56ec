//! What all processes of a run must have in common, checked before the first step: settings, data, weights.
//! A process that has something else than rank 0 says so itself.

use crc::{CRC_32_ISCSI, Crc, Table};
use tch::{Device, Tensor};

use super::Learner;
use crate::{
    collective::Collective,
    config::Config,
    data::{detection_source::ImageEntry, fingerprint::Fingerprint},
    error::{Error, Result, guarded},
};

/// What rank 0 has.
fn of_first(collective: &dyn Collective, own: Vec<u8>) -> Result<Vec<u8>> {
    let mut all = collective.exchange(own)?;
    if all.is_empty() {
        return Err(Error::other("rank 0 said nothing"));
    }
    Ok(all.swap_remove(0))
}

/// # Errors
/// Other settings than rank 0 has: names the first line that differs.
pub(super) fn on_settings(collective: &dyn Collective, config: &Config) -> Result<()> {
    let own = config.to_toml();
    let first = of_first(collective, own.clone().into_bytes())?;
    let first = String::from_utf8_lossy(&first);
    if own == first {
        return Ok(());
    }
    let lines = || own.lines().map(Some).chain(std::iter::repeat(None));
    let differing = lines().zip(first.lines().map(Some).chain(std::iter::repeat(None)));
    let (here, there) = differing
        .take(own.lines().count().max(first.lines().count()))
        .find(|(here, there)| here != there)
        .unwrap_or((None, None));
    let line = |line: Option<&str>| line.map_or("nothing".to_owned(), |line| format!("`{line}`"));
    let problem =
        format!("its settings are not those of rank 0: {} here, {} there", line(here), line(there));
    Err(Error::other(problem).with_hint("start all processes with the same file and options"))
}

/// # Errors
/// Other data than rank 0 has.
pub(super) fn on_data(
    collective: &dyn Collective,
    train: &Fingerprint,
    val: Option<&Vec<ImageEntry>>,
) -> Result<()> {
    let val = val.map(|entries| Fingerprint::of(entries));
    let own = serde_json::to_vec(&(train, &val)).map_err(|e| Error::other(e.to_string()))?;
    let first = of_first(collective, own.clone())?;
    if own == first {
        return Ok(());
    }
    let (of_train, of_val): (Fingerprint, Option<Fingerprint>) =
        serde_json::from_slice(&first).map_err(|e| Error::other(e.to_string()))?;
    let (key, own, first) = match *train == of_train {
        false => ("data.train", Some(train), Some(&of_train)),
        true => ("data.val", val.as_ref(), of_val.as_ref()),
    };
    let counts = |of: Option<&Fingerprint>| {
        of.map_or("none".to_owned(), |f| format!("{} images, {} boxes", f.images, f.boxes))
    };
    let problem = format!(
        "the data are not those of rank 0: {} here, {} there (or others of as many, or another teacher)",
        counts(own),
        counts(first)
    );
    Err(Error::config(key, problem).with_hint("all processes must read the same files"))
}

/// # Errors
/// Other weights than rank 0 has.
pub(super) fn on_weights(learner: &Learner) -> Result<()> {
    let collective = learner.collective();
    if collective.world() == 1 {
        return Ok(());
    }
    let crc = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);
    let mut digest = crc.digest();
    for parameter in learner.model.parameters() {
        let tensor = guarded(|| {
            let tensor: Tensor = parameter.tensor.f_detach()?;
            Ok(tensor.f_to_device(Device::Cpu)?.f_contiguous()?)
        })?;
        let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
        tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
        digest.update(&bytes);
    }
    let own = digest.finalize().to_le_bytes().to_vec();
    if of_first(collective, own.clone())? == own {
        return Ok(());
    }
    Err(Error::other("the weights at the start are not those of rank 0").with_hint(
        "all processes must read the same weights and checkpoints, and run the same program",
    ))
}

/// What several processes mean for the settings.
pub(super) fn in_words(config: &Config, collective: &dyn Collective) -> Option<String> {
    let (world, batch) = (collective.world(), config.data.batch_size);
    (world > 1).then(|| {
        format!(
            "{world} processes × data.batch_size {batch} = {} images a step; learning rates are as set, not \
             scaled to that",
            world * batch as u64
        )
    })
}

impl Learner {
    /// Makes the running statistics of trained batch norms, which each process has of its own images, the same in
    /// all: their means. At every update, so that a checkpoint at any of them changes nothing.
    ///
    /// # Errors
    /// A process that failed or is gone; what libtorch refuses.
    pub(super) fn share_statistics(&self) -> Result<()> {
        if self.collective().world() == 1 || self.statistics.is_empty() {
            return Ok(());
        }
        torch_ext::no_grad(|| {
            let flat: Vec<Tensor> = self.statistics.iter().map(|t| t.view([-1])).collect();
            let all = Tensor::f_cat(&flat, 0)?;
            self.collective().mean_gradients(&[all.shallow_clone()])?;
            let sizes: Vec<i64> = flat.iter().map(|t| t.size()[0]).collect();
            for (own, mean) in flat.iter().zip(all.f_split_with_sizes(sizes, 0)?) {
                own.shallow_clone().f_copy_(&mean)?;
            }
            Ok(())
        })
    }
}
