//! What the optimizer keeps in a checkpoint, and takes back: known by the names of the parameters.

use std::{collections::BTreeMap, path::Path};

use tch::Tensor;

use super::{Group, Optimizer, flat::Slot};
use crate::error::{Error, Result};

impl Optimizer {
    /// Moments, and weights where they are not what inference uses, for a checkpoint.
    #[must_use]
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        let mut state = BTreeMap::new();
        for (i, group) in self.groups.iter().enumerate() {
            state.insert(format!("params.{i}"), group.flat.values.shallow_clone());
            for (name, moment) in group.moments.named() {
                state.insert(format!("{name}.{i}"), moment.shallow_clone());
            }
            if let Some(ema) = &group.ema {
                state.insert(format!("ema.{i}"), ema.shallow_clone());
            }
        }
        state
    }

    /// Which parameter lies where in the tensors of [`Self::state`].
    #[must_use]
    pub fn layout(&self) -> String {
        let place = |Slot { name, offset, shape }: &Slot| format!("{name} {offset} {shape:?}\n");
        let group = |(i, g): (usize, &Group)| {
            format!("group {i}\n{}", g.flat.slots.iter().map(place).collect::<String>())
        };
        self.groups.iter().enumerate().map(group).collect()
    }

    /// Restores what [`Self::state`] gave, by the names of the parameters: the groups may be others.
    /// Without an EMA in it, ours begins at the weights.
    ///
    /// # Errors
    /// A parameter that is missing, of another shape, or not of this model.
    pub fn load_state(
        &mut self,
        state: &BTreeMap<String, Tensor>,
        layout: &str,
        steps: i64,
        path: &Path,
    ) -> Result<()> {
        let refuse = |name: &str, problem: String| {
            Error::invalid(path, name, problem)
                .with_hint("resume with the release and the settings that the run was started with")
        };
        let mut saved = places(layout)
            .ok_or_else(|| refuse("layout", "the record of the parameters is damaged".into()))?;
        let mut copies = Vec::new();
        for group in &self.groups {
            for slot in &group.flat.slots {
                let Slot { name, shape, .. } = slot;
                let Some(place) = saved.remove(name.as_str()) else {
                    return Err(refuse(name, "missing: this model has it".into()));
                };
                if place.shape != format!("{shape:?}") {
                    let problem = format!("expected shape {shape:?}, got {}", place.shape);
                    return Err(refuse(name, problem));
                }
                let count: i64 = shape.iter().product();
                let of = |kind: &str| -> Result<Option<Tensor>> {
                    let key = format!("{kind}.{}", place.group);
                    let Some(flat) = state.get(&key) else { return Ok(None) };
                    let part = flat.f_narrow(0, place.offset, count).map_err(|_| {
                        let has = flat.numel();
                        refuse(&key, format!("{has} values, too few for {name} of {shape:?}"))
                    })?;
                    Ok(Some(part))
                };
                let needed = |kind: &str| -> Result<Tensor> {
                    of(kind)?.ok_or_else(|| refuse(kind, format!("missing, for {name}")))
                };
                let params = needed("params")?;
                if let Some(ema) = &group.ema {
                    copies
                        .push((slot.of(ema), of("ema")?.unwrap_or_else(|| params.shallow_clone())));
                }
                for (name, moment) in group.moments.named() {
                    copies.push((slot.of(moment), needed(name)?));
                }
                copies.push((slot.of(&group.flat.values), params));
            }
        }
        if let Some(name) = saved.keys().next() {
            return Err(refuse(name, "unexpected: this model has no such parameter".into()));
        }
        torch_ext::no_grad(|| {
            for (mut own, saved) in copies {
                own.copy_(&saved);
            }
        });
        self.steps = steps;
        Ok(())
    }
}

/// Where a parameter lies in a saved state.
struct Place<'a> {
    group: usize,
    offset: i64,
    /// As [`Optimizer::layout`] writes it.
    shape: &'a str,
}

/// Reads what [`Optimizer::layout`] wrote.
fn places(layout: &str) -> Option<BTreeMap<&str, Place<'_>>> {
    let mut places = BTreeMap::new();
    let mut group = None;
    for line in layout.lines() {
        let mut parts = line.splitn(3, ' ');
        let (name, number) = (parts.next()?, parts.next()?);
        match parts.next() {
            None if name == "group" => group = Some(number.parse().ok()?),
            None => return None,
            Some(shape) => {
                let place = Place { group: group?, offset: number.parse().ok()?, shape };
                places.insert(name, place);
            }
        }
    }
    (!places.is_empty()).then_some(places)
}
