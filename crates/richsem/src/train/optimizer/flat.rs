//! Parameters in flat buffers: those of a group are views of one tensor, and so are their gradients. So a
//! step, a norm, a mean over processes is one operation a group.

use tch::Tensor;

use crate::{error::Result, models::parameters::Parameter};

/// Every parameter starts at a multiple of this many values (256 bytes), as vector loads want.
const ALIGNMENT: usize = 64;

/// Where a parameter lies in a flat buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    pub name: String,
    pub offset: usize,
    pub shape: Vec<i64>,
}

impl Slot {
    /// Its part of a buffer, flat.
    pub(super) fn of(&self, flat: &Tensor) -> Tensor {
        flat.narrow(0, self.offset as i64, self.shape.iter().product())
    }
}

/// Some parameters and their gradients.
#[derive(Debug)]
pub(super) struct FlatParameters {
    pub values: Tensor,
    pub grads: Tensor,
    pub slots: Vec<Slot>,
    /// Whether all of them are the backbone's.
    pub backbone: bool,
}

impl FlatParameters {
    /// Moves them into new buffers: the modules' own tensors read and write these from now on.
    pub(super) fn new(members: Vec<Parameter>) -> Result<Self> {
        let mut slots = Vec::with_capacity(members.len());
        let mut total = 0usize;
        for member in &members {
            let (name, shape) = (member.name.clone(), member.tensor.size());
            slots.push(Slot { name, offset: total, shape });
            total += member.tensor.numel().next_multiple_of(ALIGNMENT);
        }
        let backbone = members.iter().all(|member| member.tags.backbone);
        // f32 always, but in the tests against the official code.
        let options = (members[0].tensor.kind(), members[0].tensor.device());
        let zeros = || Tensor::f_zeros([total as i64], options);
        let (values, grads) = (zeros()?, zeros()?);
        torch_ext::no_grad(|| -> Result<()> {
            for (mut member, slot) in members.into_iter().zip(&slots) {
                let view = |flat: &Tensor| slot.of(flat).view(slot.shape.as_slice());
                let (value, grad) = (view(&values), view(&grads));
                value.shallow_clone().copy_(&member.tensor);
                member.tensor.set_data(&value);
                torch_ext::set_grad(&member.tensor, &grad)?;
            }
            Ok(())
        })?;
        Ok(Self { values, grads, slots, backbone })
    }

    /// The parameters by name, as views of another buffer like that of the values.
    pub(super) fn views<'a>(
        &'a self,
        of: &'a Tensor,
    ) -> impl Iterator<Item = (String, Tensor)> + 'a {
        self.slots.iter().map(|slot| (slot.name.clone(), slot.of(of).view(slot.shape.as_slice())))
    }
}
