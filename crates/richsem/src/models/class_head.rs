//! Class logits: a linear layer, or cosines against a table of text embeddings.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::{
    layers::{Linear, at_least_f32, divisor, l2_normalize},
    parameters::{Init, Scope},
    projection::{Projection, ProjectionKind},
};

/// Probability that the linear head gives every class at the start (RetinaNet's prior).
const PRIOR: f64 = 0.01;
/// Columns of a matrix product on CUDA are a multiple of this.
const ALIGNED: i64 = 8;

/// Embeddings of the vocabulary's classes: an argument of the model, never a part of it.
#[derive(Debug)]
pub struct TextTable {
    /// `[C, D_text]`, as the text encoder gives them, averaged over prompts.
    pub rows: Tensor,
    /// `[C, D_text]`, of length one.
    pub normalized: Tensor,
}

impl TextTable {
    /// A table of `[C, D_text]` rows of any floating kind.
    ///
    /// # Panics
    /// Rows that are no matrix.
    #[must_use]
    pub fn new(rows: &Tensor) -> Self {
        assert_eq!(rows.dim(), 2, "a text table of size {:?}, expected [C, D_text]", rows.size());
        let rows = at_least_f32(rows);
        Self { normalized: l2_normalize(&rows), rows }
    }

    /// D_text: number of features of a row.
    #[must_use]
    pub fn dim(&self) -> i64 {
        self.rows.size()[1]
    }
}

/// What the class logits compare with. It decides how the head is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClassSpace {
    /// A number of classes, C.
    Classes(i64),
    /// The width of a text table, D_text.
    Text(i64),
}

/// The class head with its weights.
#[derive(Debug)]
pub enum ClassHead {
    /// `W h + b`, one row a class, prior 0.01.
    Linear(Linear),
    /// `exp(logit_scale) · norm(W h) · norm(text)ᵀ` (RichSem, section 3.2).
    Text {
        /// W: from features `[D]` to `[D_text]`.
        proj: Projection,
        /// Scalar: logarithm of the factor on the cosines, CLIP's, frozen.
        logit_scale: Tensor,
    },
}

impl ClassHead {
    /// `scope` names the head itself; `projection` matters against text. CLIP's logit scale starts
    /// at ln 100, where CLIP's training ends.
    #[must_use]
    pub fn new(scope: &Scope, dim: i64, space: ClassSpace, projection: ProjectionKind) -> Self {
        match space {
            ClassSpace::Classes(classes) => {
                let weight = Init::Uniform(1.0 / (dim as f64).sqrt());
                let bias = Init::Constant(-((1.0 - PRIOR) / PRIOR).ln());
                Self::Linear(Linear::with_init(scope, dim, classes, weight, Some(bias)))
            }
            ClassSpace::Text(width) => Self::Text {
                proj: Projection::new(&scope.sub("dino_visual_proj"), dim, width, projection),
                logit_scale: scope.buffer("logit_scale", &[], 100f64.ln()),
            },
        }
    }

    /// The projection into the space of the text, if it has one.
    #[must_use]
    pub fn projection(&self) -> Option<&Projection> {
        match self {
            Self::Linear(_) => None,
            Self::Text { proj, .. } => Some(proj),
        }
    }

    /// Sets the frozen scale of a head against text.
    pub fn set_logit_scale(&self, value: f64) {
        if let Self::Text { logit_scale, .. } = self {
            let _ = torch_ext::no_grad(|| logit_scale.shallow_clone().fill_(value));
        }
    }

    /// Class logits, in f32 also under autocast.
    ///
    /// # Shapes
    /// `[…, D]` → `[…, C]`
    ///
    /// # Panics
    /// If the head needs a text table and gets none: the detector checks that before.
    pub fn forward(&self, hidden: &Tensor, text: Option<&TextTable>) -> Tensor {
        torch_ext::no_autocast(hidden.device(), || {
            let hidden = at_least_f32(hidden);
            match self {
                Self::Linear(linear) => linear.forward(&hidden),
                Self::Text { proj, logit_scale } => {
                    let text = text.expect("checked by the detector: this head needs a text table");
                    let visual = l2_normalize(&proj.forward(&hidden));
                    // Scaled here: the table is smaller than the logits.
                    cosines(&visual, &(&text.normalized * logit_scale.exp()))
                }
            }
        })
    }

    /// The largest logit of each token, without history: what proposals are ranked by.
    ///
    /// # Shapes
    /// `[…, D]` → `[…]`
    ///
    /// # Panics
    /// As [`Self::forward`].
    pub fn largest(&self, hidden: &Tensor, text: Option<&TextTable>) -> Tensor {
        let without_history = || match (self, text) {
            (Self::Text { proj: Projection::Linear(proj), logit_scale }, Some(text))
                if proj.bias.is_none() =>
            {
                // norm(W h) · t = h · (Wᵀ t) / ‖W h‖: tokens are many more than classes, and D_text is
                // several times D.
                let hidden = at_least_f32(hidden);
                let rows = text.normalized.matmul(&proj.weight) * logit_scale.exp();
                let length = divisor(&proj.forward(&hidden), false);
                cosines(&hidden, &rows).amax([-1i64], false) / length
            }
            _ => self.forward(hidden, text).amax([-1i64], false),
        };
        torch_ext::no_grad(|| torch_ext::no_autocast(hidden.device(), without_history))
    }
}

/// Products of each token with each row.
///
/// # Shapes
/// `[…, D]`, `[C, D]` → `[…, C]`, a part of wider rows in memory on CUDA
fn cosines(tokens: &Tensor, rows: &Tensor) -> Tensor {
    let classes = rows.size()[0];
    if !tokens.device().is_cuda() {
        return tokens.matmul(&rows.transpose(0, 1));
    }
    // Fast kernels write rows of whole vectors: LVIS's 1203 columns take three times as long as 1208.
    let missing = (ALIGNED - classes % ALIGNED) % ALIGNED;
    let rows = rows.constant_pad_nd([0, 0, 0, missing]);
    tokens.matmul(&rows.transpose(0, 1)).narrow(-1, 0, classes)
}

/// Features of denoising queries: an embedding of their label.
#[derive(Debug)]
pub enum LabelEncoder {
    /// The class head's own weight rows (tied).
    ClassWeights,
    /// A bias-free projection of the *un-normalised* text row.
    Text(Linear),
}

impl LabelEncoder {
    /// The encoder that goes with a head of that space; `scope` is the class head's.
    #[must_use]
    pub fn new(scope: &Scope, dim: i64, space: ClassSpace) -> Self {
        match space {
            ClassSpace::Classes(_) => Self::ClassWeights,
            ClassSpace::Text(width) => {
                let init = Init::Normal((width as f64).powf(-0.5));
                Self::Text(Linear::with_init(&scope.sub("label_proj"), width, dim, init, None))
            }
        }
    }

    /// # Shapes
    /// `labels` `[…]` → `[…, D]`
    ///
    /// # Panics
    /// As [`ClassHead::forward`].
    pub fn forward(&self, labels: &Tensor, head: &ClassHead, text: Option<&TextTable>) -> Tensor {
        let flat = labels.flatten(0, -1);
        let rows = match (self, head) {
            (Self::Text(proj), _) => {
                let text = text.expect("checked by the detector: this head needs a text table");
                proj.forward(&text.rows.index_select(0, &flat))
            }
            (Self::ClassWeights, ClassHead::Linear(linear)) => linear.weight.index_select(0, &flat),
            (Self::ClassWeights, ClassHead::Text { .. }) => {
                unreachable!("a text head is built with a text label encoder")
            }
        };
        let mut shape = labels.size();
        shape.push(-1);
        rows.view(shape.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::parameters::ParameterStore;
    use crate::testing::normal;
    use tch::{Device, Kind};

    #[test]
    fn text_logits_are_scaled_cosines() {
        let store = ParameterStore::new(Device::Cpu, 1);
        let head = ClassHead::new(&store.root(), 8, ClassSpace::Text(6), ProjectionKind::Linear);
        let hidden = normal(1, &[2, 3, 8]);
        let table = TextTable::new(&(normal(2, &[5, 6]) * 7.0));
        let logits = head.forward(&hidden, Some(&table));
        assert_eq!(logits.size(), [2, 3, 5]);
        let ClassHead::Text { proj: Projection::Linear(proj), .. } = &head else { unreachable!() };
        let visual = proj.weight.matmul(&hidden.get(1).get(2));
        let row = table.rows.get(4);
        let cosine = visual.dot(&row).double_value(&[])
            / (visual.norm().double_value(&[]) * row.norm().double_value(&[]));
        assert!((logits.double_value(&[1, 2, 4]) - 100.0 * cosine).abs() < 1e-3);
    }

    #[test]
    fn the_largest_logit_is_that_of_all_logits() {
        let store = ParameterStore::new(Device::Cpu, 1);
        let (hidden, table) = (normal(1, &[2, 30, 8]), TextTable::new(&normal(2, &[5, 6])));
        // A token of zeros has no direction: its logits are zeros.
        let _ = hidden.get(1).get(7).zero_();
        for (i, kind) in [ProjectionKind::Linear, ProjectionKind::Mlp].into_iter().enumerate() {
            let space = ClassSpace::Text(6);
            let head = ClassHead::new(&store.root().sub(i as i64), 8, space, kind);
            let expected = head.forward(&hidden, Some(&table)).amax([-1i64], false);
            let got = head.largest(&hidden, Some(&table));
            assert_eq!(got.size(), [2, 30]);
            assert!((got - expected).abs().max().double_value(&[]) < 1e-4);
        }
    }

    #[test]
    fn c_classes_give_c_logits_and_the_prior() {
        let store = ParameterStore::new(Device::Cpu, 1);
        let head = ClassHead::new(&store.root(), 8, ClassSpace::Classes(7), ProjectionKind::Linear);
        let logits = head.forward(&Tensor::zeros([1, 2, 8], (Kind::Float, Device::Cpu)), None);
        assert_eq!(logits.size(), [1, 2, 7]);
        assert!((logits.sigmoid().double_value(&[0, 0, 0]) - 0.01).abs() < 1e-6);
    }
}
