//! Settings of Faster R-CNN.

use serde::{Deserialize, Serialize};

use crate::{
    bounds::within,
    error::{Error, Result},
    models::{backbone::BackboneConfig, padding::Padding, projection::ProjectionKind},
};

/// Number of maps that boxes are pooled from, P2 to P5: all of the backbone's.
pub(super) const LEVELS: usize = 4;

/// Groups of the norms of `4conv1fc`.
pub(super) const GROUPS: i64 = 32;

/// Which implementation a detector computes as. They differ in what no setting says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// detectron2: anchors as they are, boxes read at pixel centres, L1.
    #[default]
    Detectron2,
    /// torchvision: anchors rounded, boxes read half a pixel off at two points a side of a bin, smooth L1.
    Torchvision,
}

impl Variant {
    /// Whether anchors are rounded to whole pixels, and lie as far apart as image and map have it.
    pub(super) fn rounds_anchors(self) -> bool {
        self == Self::Torchvision
    }

    /// Points of a bin down and across (0: one for each pixel of the map), and whether pixel centres lie
    /// at half-integers.
    pub(super) fn pooling(self) -> (i64, bool) {
        match self {
            Self::Detectron2 => (0, true),
            Self::Torchvision => (2, false),
        }
    }

    /// What keeps a box that is exactly as large as a level's limit in the upper level.
    pub(super) fn level_eps(self) -> f64 {
        match self {
            Self::Detectron2 => 1e-8,
            Self::Torchvision => 1e-6,
        }
    }

    /// Least side of a proposal, in pixels.
    pub(super) fn least_proposal(self) -> f64 {
        match self {
            Self::Detectron2 => 0.0,
            Self::Torchvision => 1e-3,
        }
    }

    /// Least side of a detection, in pixels.
    pub(super) fn least_detection(self) -> f64 {
        match self {
            Self::Detectron2 => 0.0,
            Self::Torchvision => 1e-2,
        }
    }

    /// Up to this difference the box loss is quadratic.
    #[must_use]
    pub fn beta(self) -> f64 {
        match self {
            Self::Detectron2 => 0.0,
            Self::Torchvision => 1.0 / 9.0,
        }
    }
}

/// How class logits become probabilities.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Classifier {
    /// One distribution over the classes and the background: C + 1 logits, the background's last.
    #[default]
    Softmax,
    /// Each class on its own: C logits.
    Sigmoid,
}

/// What lies between pooled boxes and the predictors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoxHeadKind {
    /// Two fully connected layers.
    #[default]
    #[serde(rename = "2fc")]
    TwoFc,
    /// Four 3×3 convolutions with group norm, and one fully connected layer.
    #[serde(rename = "4conv1fc")]
    FourConvOneFc,
}

/// How boxes are predicted from a box's features.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoxPredictor {
    /// One linear layer.
    #[default]
    Linear,
    /// Two linear layers with ReLU between them, as Detic has it.
    Mlp,
}

/// The region proposal network: which boxes are looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RpnConfig {
    /// Side of the square anchor of each level, P2 to P6, in pixels. Default: 32, 64, 128, 256, 512. Each 1
    /// to 10,000. detectron2 calls it `ANCHOR_GENERATOR.SIZES`.
    pub sizes: Vec<f64>,
    /// Height of an anchor over its width; all have the square's area. Default: 0.5, 1, 2. Each 0.01 to 100.
    pub aspect_ratios: Vec<f64>,
    /// An anchor is an object's from this overlap on. Default: 0.7; 0 to 1.
    pub positive_iou: f64,
    /// An anchor is background below this overlap. Between the two it does not count. Default: 0.3; 0 to 1.
    pub negative_iou: f64,
    /// Anchors of an image that learn. Default: 256; 1 to 1,000,000.
    pub batch_per_image: i64,
    /// Largest share of objects' anchors among them. Default: 0.5; 0 to 1.
    pub positive_fraction: f64,
    /// Best anchors of each level that become proposals, in training. Default: 2000; 1 to 100,000.
    pub pre_nms_train: i64,
    /// The same, in detection. Default: 1000; 1 to 100,000.
    pub pre_nms_test: i64,
    /// Proposals of an image, in training. Default: 1000; 1 to 100,000. Cascades and torchvision have 2000.
    pub post_nms_train: i64,
    /// The same, in detection. Default: 1000; 1 to 100,000.
    pub post_nms_test: i64,
    /// A proposal goes if it overlaps a better one of its level by more than this. Default: 0.7; 0 to 1.
    pub nms: f64,
}

impl Default for RpnConfig {
    fn default() -> Self {
        Self {
            sizes: vec![32.0, 64.0, 128.0, 256.0, 512.0],
            aspect_ratios: vec![0.5, 1.0, 2.0],
            positive_iou: 0.7,
            negative_iou: 0.3,
            batch_per_image: 256,
            positive_fraction: 0.5,
            pre_nms_train: 2000,
            pre_nms_test: 1000,
            post_nms_train: 1000,
            post_nms_test: 1000,
            nms: 0.7,
        }
    }
}

/// The second stage: what becomes of a proposal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RoiConfig {
    /// Overlap from which on a box is an object's, for each stage. One number is plain Faster R-CNN; more
    /// are a cascade (arXiv 1712.00726), whose later stages look again at the boxes of the stage before.
    /// Default: 0.5. Cascade R-CNN has 0.5, 0.6, 0.7. Each 0 to 1; 1 to 8 stages.
    pub iou: Vec<f64>,
    /// Boxes of an image that learn. Default: 512; 1 to 1,000,000.
    pub batch_per_image: i64,
    /// Largest share of objects' boxes among them. Default: 0.25; 0 to 1.
    pub positive_fraction: f64,
    /// Bins of a pooled box, down and across. Default: 7; 1 to 64.
    pub pool: i64,
    /// What lies between pooled boxes and predictors: `2fc` (the default) or `4conv1fc`.
    pub head: BoxHeadKind,
    /// D: features of a box. Default: 1024; 1 to 65,536.
    pub dim: i64,
    /// Whether boxes are predicted once for all classes. Default: false. A cascade needs it.
    pub class_agnostic: bool,
    /// How boxes are predicted: `linear` (the default) or `mlp` (Detic's).
    pub box_predictor: BoxPredictor,
    /// Weights of the four numbers of a box, x, y, width, height, in the first stage. A later one has two, three …
    /// times as much. Default: 10, 10, 5, 5. Each 0.001 to 1000.
    pub box_weights: [f64; 4],
    /// A detection needs a higher score than this. Default: 1e-4, as for LVIS; 0 to 1. For COCO detectron2 and
    /// torchvision have 0.05; detectron2 has 0.02 for `sigmoid`.
    pub score_threshold: f64,
    /// A detection goes if it overlaps a better one of its class by more than this. Default: 0.5; 0 to 1.
    pub nms: f64,
}

impl Default for RoiConfig {
    fn default() -> Self {
        Self {
            iou: vec![0.5],
            batch_per_image: 512,
            positive_fraction: 0.25,
            pool: 7,
            head: BoxHeadKind::default(),
            dim: 1024,
            class_agnostic: false,
            box_predictor: BoxPredictor::default(),
            box_weights: [10.0, 10.0, 5.0, 5.0],
            score_threshold: 1e-4,
            nms: 0.5,
        }
    }
}

impl RoiConfig {
    /// Number of stages.
    #[must_use]
    pub fn stages(&self) -> usize {
        self.iou.len()
    }
}

/// Faster R-CNN's settings. Defaults are detectron2's (`Base-RCNN-FPN.yaml`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FasterRcnnConfig {
    /// Which implementation it computes as: `detectron2` (the default) or `torchvision`.
    pub variant: Variant,
    /// The network that makes feature maps of images. The pyramid takes all of its maps (of most, strides 4 to 32).
    pub backbone: BackboneConfig,
    /// What the padding of an image may change of its result: `masked` (nothing) or `official` (what it changes in
    /// detectron2 and torchvision: maps are not zero in it, and anchors stand there). Default: as the weights that a
    /// run starts from were trained; from scratch `masked`, and `official` with a backbone that cannot mask (`vit`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub padding: Option<Padding>,
    /// Channels of the pyramid's maps. Default: 256; 1 to 8192.
    pub fpn_dim: i64,
    /// How logits become probabilities: `softmax` (the default) or `sigmoid`. Class heads against text and
    /// the federated loss need `sigmoid`.
    pub classifier: Classifier,
    /// How features are projected into the space of text embeddings: `linear` (the default), `affine`
    /// (Detic's) or `mlp`. Only for class heads against text.
    pub class_projection: ProjectionKind,
    /// The first stage.
    pub rpn: RpnConfig,
    /// The second stage.
    pub roi: RoiConfig,
}

impl Default for FasterRcnnConfig {
    fn default() -> Self {
        Self {
            variant: Variant::default(),
            backbone: BackboneConfig::default(),
            padding: None,
            fpn_dim: 256,
            classifier: Classifier::default(),
            class_projection: ProjectionKind::default(),
            rpn: RpnConfig::default(),
            roi: RoiConfig::default(),
        }
    }
}

impl RpnConfig {
    fn validate(&self, key: &str) -> Result<()> {
        let levels = LEVELS + 1;
        if self.sizes.len() != levels {
            let problem =
                format!("expected {levels} sides, one for each of P2 to P6, got {:?}", self.sizes);
            return Err(Error::config(format!("{key}.sizes"), problem));
        }
        if self.aspect_ratios.is_empty() || self.aspect_ratios.len() > 32 {
            let problem = format!("expected 1 to 32 ratios, got {}", self.aspect_ratios.len());
            return Err(Error::config(format!("{key}.aspect_ratios"), problem));
        }
        for (name, values, range) in [
            ("sizes", &self.sizes, 1.0..=1e4),
            ("aspect_ratios", &self.aspect_ratios, 0.01..=100.0),
        ] {
            for (i, &value) in values.iter().enumerate() {
                within(format!("{key}.{name}[{i}]"), value, range.clone())?;
            }
        }
        for (name, value) in [
            ("positive_iou", self.positive_iou),
            ("negative_iou", self.negative_iou),
            ("positive_fraction", self.positive_fraction),
            ("nms", self.nms),
        ] {
            within(format!("{key}.{name}"), value, 0.0..=1.0)?;
        }
        if self.negative_iou > self.positive_iou {
            let problem = format!(
                "expected at most positive_iou ({}), got {}",
                self.positive_iou, self.negative_iou
            );
            return Err(Error::config(format!("{key}.negative_iou"), problem));
        }
        within(format!("{key}.batch_per_image"), self.batch_per_image, 1..=1_000_000)?;
        for (name, value) in [
            ("pre_nms_train", self.pre_nms_train),
            ("pre_nms_test", self.pre_nms_test),
            ("post_nms_train", self.post_nms_train),
            ("post_nms_test", self.post_nms_test),
        ] {
            within(format!("{key}.{name}"), value, 1..=100_000)?;
        }
        Ok(())
    }
}

impl RoiConfig {
    fn validate(&self, key: &str) -> Result<()> {
        if !(1..=8).contains(&self.iou.len()) {
            let problem = format!("expected 1 to 8 overlaps, one a stage, got {}", self.iou.len());
            return Err(Error::config(format!("{key}.iou"), problem));
        }
        for (i, &iou) in self.iou.iter().enumerate() {
            within(format!("{key}.iou[{i}]"), iou, 0.0..=1.0)?;
        }
        for (name, value) in [
            ("positive_fraction", self.positive_fraction),
            ("score_threshold", self.score_threshold),
            ("nms", self.nms),
        ] {
            within(format!("{key}.{name}"), value, 0.0..=1.0)?;
        }
        within(format!("{key}.batch_per_image"), self.batch_per_image, 1..=1_000_000)?;
        within(format!("{key}.pool"), self.pool, 1..=64)?;
        within(format!("{key}.dim"), self.dim, 1..=65_536)?;
        for (i, &weight) in self.box_weights.iter().enumerate() {
            within(format!("{key}.box_weights[{i}]"), weight, 1e-3..=1e3)?;
        }
        if self.stages() > 1 && !self.class_agnostic {
            let problem =
                "a cascade hands one box from stage to stage, and there is one for each class";
            return Err(Error::config(format!("{key}.class_agnostic"), problem)
                .with_hint("set class_agnostic = true, or give iou one number"));
        }
        Ok(())
    }
}

impl FasterRcnnConfig {
    /// # Errors
    /// The first setting that is out of range or contradicts another, named below `key`.
    pub fn validate(&self, key: &str) -> Result<()> {
        self.backbone.validate(&format!("{key}.backbone"))?;
        self.backbone.validate_padding(self.padding, key)?;
        let strides = self.strides();
        if self.variant == Variant::Torchvision
            && strides.iter().any(|stride| stride.fract() != 0.0)
        {
            let problem = format!(
                "torchvision, which has whole strides, and those of the backbone ({}) are {strides:?}",
                self.backbone.describe()
            );
            return Err(Error::config(format!("{key}.variant"), problem).with_hint(
                "set it to \"detectron2\", or take a backbone with patches of 16 pixels",
            ));
        }
        within(format!("{key}.fpn_dim"), self.fpn_dim, 1..=8192)?;
        if self.roi.head == BoxHeadKind::FourConvOneFc && self.fpn_dim % GROUPS != 0 {
            let problem = format!(
                "expected a multiple of {} for the group norms of roi.head = \"4conv1fc\", got {}",
                GROUPS, self.fpn_dim
            );
            return Err(Error::config(format!("{key}.fpn_dim"), problem));
        }
        self.rpn.validate(&format!("{key}.rpn"))?;
        self.roi.validate(&format!("{key}.roi"))
    }

    /// As [`BackboneConfig::padding`].
    #[must_use]
    pub fn padding(&self) -> Padding {
        self.backbone.padding(self.padding)
    }

    /// Pixels from one cell to the next, of each level of the pyramid that is the backbone's: P2 to P5.
    pub(super) fn strides(&self) -> [f64; LEVELS] {
        let levels = self.backbone.levels();
        std::array::from_fn(|level| levels[level].stride)
    }

    /// Names and values of its sizes, in the order to be read.
    pub(in crate::models) fn facts(&self) -> Vec<(&'static str, String)> {
        let kind = match self.roi.stages() {
            1 => "Faster R-CNN".to_owned(),
            stages => format!("Cascade R-CNN, {stages} stages"),
        };
        let variant = match self.variant {
            Variant::Detectron2 => "detectron2",
            Variant::Torchvision => "torchvision",
        };
        let head = match self.roi.head {
            BoxHeadKind::TwoFc => "2fc",
            BoxHeadKind::FourConvOneFc => "4conv1fc",
        };
        let classifier = match self.classifier {
            Classifier::Softmax => "softmax",
            Classifier::Sigmoid => "sigmoid",
        };
        vec![
            (
                "detector",
                format!("{kind} as {variant} has it, {} proposals", self.rpn.post_nms_test),
            ),
            (
                "heads",
                format!(
                    "{head}, {} features, {classifier}, {} pyramid channels",
                    self.roi.dim, self.fpn_dim
                ),
            ),
        ]
    }
}
