//! The semantic branch (RichSem, section 3.3): a second projection of the detector's queries into
//! CLIP's space, which learns the teacher's soft labels. It exists only in training: its parameters are
//! in a store of their own. Evaluation, prediction and saved detectors do not have it.

use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use crate::{
    bounds::{WEIGHT, within},
    error::{Error, Result},
    models::{
        class_head::TextTable,
        layers::{at_least_f32, l2_normalize},
        parameters::ParameterStore,
        projection::{Projection, ProjectionKind},
    },
};

/// Which boxes the teacher labels, and so which queries learn from it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetBoxes {
    /// The ground truth; the queries matched to it learn.
    #[default]
    GroundTruth,
    /// The matched queries' own input references; the same queries learn.
    Matched,
    /// Every query's own input reference; all queries learn, and the sum is divided by their number.
    /// Of the denoising queries the positive ones, as elsewhere.
    All,
}

/// What the branch compares with the teacher's labels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// `KL(softmax(teacher) ‖ softmax(student))` over the classes.
    #[default]
    Kl,
    /// The L1 distance between the normalised features of branch and teacher.
    L1,
}

/// The projection of queries into CLIP's space.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BranchProjection {
    /// One layer of the branch's own.
    #[default]
    Linear,
    /// Four layers of the branch's own.
    Mlp,
    /// The projection of the class head. In the paper's study it then has four layers
    /// (`model.dino.class_projection = "mlp"`).
    Shared,
}

/// The semantic branch and its loss. The defaults are the paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SemanticConfig {
    /// Weight of the semantic loss. Default: 0.5; 0 to 10,000. With 0 there is no branch, and the
    /// teacher is not opened. Reference: `distill_loss_coef`.
    pub weight: f64,
    /// Which boxes the teacher labels: `ground_truth` (the default), `matched` or `all`. Reference:
    /// `clip_distill_objective`.
    pub target_boxes: TargetBoxes,
    /// What is compared: `kl` (class probabilities, the default) or `l1` (features). Reference:
    /// `distill_type`.
    pub objective: Objective,
    /// Whether each box counts by the entropy H of its soft label: 2 H / ln C. Default: false. Only
    /// with `kl`.
    pub entropy_weight: bool,
    /// Whether only the classes count that the federated loss has drawn. Default: false. Only with
    /// `kl` and `loss.federated`.
    pub federated: bool,
    /// Whether every decoder layer learns from the teacher. Default: false, which is the last layer
    /// alone.
    pub aux_layers: bool,
    /// The projection of queries into CLIP's space: `linear` (the default), `mlp` or `shared`.
    pub projection: BranchProjection,
    /// The teacher is asked before the first step how often it ranks a box's own class first. If
    /// the share is below this, the run stops: such a teacher does harm. It may see the images at a
    /// wrong scale, or not know the domain. Default: 0, which accepts every teacher; 0 to 1.
    pub min_top1: f64,
}

impl Default for SemanticConfig {
    fn default() -> Self {
        Self {
            weight: 0.5,
            target_boxes: TargetBoxes::default(),
            objective: Objective::default(),
            entropy_weight: false,
            federated: false,
            aux_layers: false,
            projection: BranchProjection::default(),
            min_top1: 0.0,
        }
    }
}

impl SemanticConfig {
    /// # Errors
    /// A weight that is negative or not a number; switches without a meaning together.
    pub fn validate(&self, key: &str) -> Result<()> {
        within(format!("{key}.weight"), self.weight, WEIGHT)?;
        within(format!("{key}.min_top1"), self.min_top1, 0.0..=1.0)?;
        if self.objective == Objective::L1 {
            for (name, on) in
                [("entropy_weight", self.entropy_weight), ("federated", self.federated)]
            {
                if on {
                    let problem = "it weighs classes, and objective = \"l1\" compares features";
                    return Err(Error::config(format!("{key}.{name}"), problem)
                        .with_hint("leave it out, or set objective = \"kl\""));
                }
            }
        }
        Ok(())
    }
}

/// Features of regions as the detector's heads see them: DINO's queries, or the pooled boxes of a
/// two-stage detector.
#[derive(Debug)]
pub struct RegionFeatures(
    /// `[N, D]`
    pub Tensor,
);

/// Which regions learn from which soft labels.
#[derive(Debug)]
pub struct Assignments {
    /// `[M]` i64: positions among the regions.
    pub region: Tensor,
    /// `[M]` i64: positions among the soft labels.
    pub target: Tensor,
}

/// What the branch predicts for M regions.
#[derive(Debug)]
pub struct Prediction {
    /// `[M, D_text]`, of length one.
    pub features: Tensor,
    /// `[M, C]`: `exp(logit_scale) · features · norm(text)ᵀ`.
    pub logits: Tensor,
}

/// The branch with its weights. It exists in training only.
#[derive(Debug)]
pub struct SemanticBranch {
    store: ParameterStore,
    projection: Projection,
    text: Tensor,
    scale: f64,
}

impl SemanticBranch {
    /// `dim` is D; `text` and `scale` (the exponential of the logit scale) are the teacher's.
    /// `class_head` is the detector's own projection: the branch starts equal to it where it has
    /// the same form, as in the reference.
    ///
    /// # Errors
    /// A projection that should be shared, with a class head that has none or of another width.
    pub fn new(
        config: &SemanticConfig,
        dim: i64,
        text: &TextTable,
        scale: f64,
        class_head: Option<&Projection>,
        (device, seed): (Device, u64),
    ) -> Result<Self> {
        let store = ParameterStore::new(device, seed);
        let own = |kind| {
            let scope = store.root().sub("semantic_branch").sub("clip_visual_proj");
            let projection = Projection::new(&scope, dim, text.dim(), kind);
            if let Some(other) = class_head {
                projection.start_as(other);
            }
            projection
        };
        let projection = match (config.projection, class_head) {
            (BranchProjection::Linear, _) => own(ProjectionKind::Linear),
            (BranchProjection::Mlp, _) => own(ProjectionKind::Mlp),
            (BranchProjection::Shared, Some(other)) if other.width() == text.dim() => other.share(),
            (BranchProjection::Shared, other) => {
                let width = other.map_or("none".to_owned(), |p| format!("one to {}", p.width()));
                let problem = format!(
                    "the class head's projection cannot be shared: expected one to the teacher's \
                     width {}, got {width}",
                    text.dim()
                );
                return Err(Error::config("semantic.projection", problem).with_hint(
                    "set model.class_head to kind = \"text\" with the teacher's table",
                ));
            }
        };
        let text = text.normalized.to_device(device);
        Ok(Self { store, projection, text, scale })
    }

    /// Starts as the class head's projection, if both have the same form; otherwise as it was
    /// initialised.
    pub fn start_as(&self, class_head: Option<&Projection>) {
        if let Some(other) = class_head {
            self.projection.start_as(other);
        }
    }

    /// Its own parameters: none if the projection is shared.
    #[must_use]
    pub fn store(&self) -> &ParameterStore {
        &self.store
    }

    /// Features and class logits of the assigned regions, in f32 also under autocast.
    ///
    /// # Shapes
    /// `[N, D]` and M assignments → `[M, D_text]`, `[M, C]`
    pub fn predict(&self, regions: &RegionFeatures, assignments: &Assignments) -> Prediction {
        torch_ext::no_autocast(regions.0.device(), || {
            let chosen = at_least_f32(&regions.0.index_select(0, &assignments.region));
            let features = l2_normalize(&self.projection.forward(&chosen));
            let text = self.text.to_kind(features.kind());
            let logits = features.matmul(&text.transpose(0, 1)) * self.scale;
            Prediction { features, logits }
        })
    }
}
