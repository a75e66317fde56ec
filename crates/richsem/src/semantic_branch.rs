//! The semantic branch (RichSem, section 3.3): a second projection of the detector's queries into
//! CLIP's space, which learns the teacher's soft labels. It exists in training only: its parameters
//! lie in a store of their own, and neither evaluation nor prediction nor a saved detector has one.

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

/// What is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// `KL(softmax(teacher) ‖ softmax(student))` over the classes.
    #[default]
    Kl,
    /// The L1 distance of the normalised features.
    L1,
}

/// Where the branch's projection comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BranchProjection {
    /// One layer of its own.
    #[default]
    Linear,
    /// Four layers of its own.
    Mlp,
    /// The class head's; in the paper's study that is then a four-layer one
    /// (`model.dino.class_projection = "mlp"`).
    Shared,
}

/// The branch and its loss; the defaults are the paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SemanticConfig {
    /// Weight of the loss; 0: no branch, and no teacher is opened.
    pub weight: f64,
    /// Which boxes the teacher labels.
    pub target_boxes: TargetBoxes,
    /// What is compared.
    pub objective: Objective,
    /// Weighs each box by the entropy of its soft label, 2 H / ln C.
    pub entropy_weight: bool,
    /// Compares over the classes that the federated loss has drawn alone.
    pub federated: bool,
    /// Teaches every decoder layer instead of the last alone.
    pub aux_layers: bool,
    /// Where the projection comes from.
    pub projection: BranchProjection,
    /// Least share of boxes whose label the teacher must rank first, asked before the first step: a
    /// teacher that sees the images at the wrong scale, or knows another domain, does harm.
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

/// Regions of a detector as its heads see them: queries of DINO, pooled boxes of a two-stage
/// detector.
#[derive(Debug)]
pub struct RegionFeatures(
    /// `[N, D]`
    pub Tensor,
);

/// Which regions learn from which soft labels.
#[derive(Debug)]
pub struct Assignments {
    /// `[M]` rows of the regions, i64.
    pub region: Tensor,
    /// `[M]` rows of the soft labels, i64.
    pub target: Tensor,
}

/// What the branch says of M regions.
#[derive(Debug)]
pub struct Prediction {
    /// `[M, D_text]`, of length one.
    pub features: Tensor,
    /// `[M, C]`: `exp(logit_scale) · features · norm(text)ᵀ`.
    pub logits: Tensor,
}

/// The branch.
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

    /// Takes the class head's projection, where it has the same form; as it was made.
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

    /// In f32 also under autocast.
    ///
    /// # Shapes
    /// `[N, D]` and M assignments → `[M, D_text]`, `[M, C]`
    pub fn predict(&self, regions: &RegionFeatures, assignments: &Assignments) -> Prediction {
        torch_ext::no_autocast(regions.0.device(), || {
            let chosen = at_least_f32(&regions.0.index_select(0, &assignments.region));
            let features = l2_normalize(&self.projection.forward(&chosen));
            let logits = features.matmul(&self.text.transpose(0, 1)) * self.scale;
            Prediction { features, logits }
        })
    }
}
