//! The terms: of the region proposal network, and class and box terms of each stage.

use tch::{Device, Kind, Reduction, Tensor};
use torch_ext::Download;

use super::{
    super::Step,
    input::{StageTensors, TrainingOutput, truth},
    matching::{Labels, Overlaps},
    regions::regions,
    sampling::{Draw, chosen, draws, most_positive},
};
use crate::{
    error::Result,
    losses::{
        LossConfig,
        classes::ClassChoice,
        regions::{Regions, Wanted},
        terms::LossTerms,
    },
    models::{
        faster_rcnn::{
            Classifier, FasterRcnnConfig, Variant, coding::BoxCoder, in_image, rpn::CODER,
        },
        padding::Padding,
    },
    targets::Target,
};

/// Computes the loss terms from predictions and targets.
#[derive(Debug)]
pub struct Criterion {
    config: FasterRcnnConfig,
    loss: LossConfig,
    choice: ClassChoice,
    classes: i64,
    regions: bool,
}

/// A term, and what it weighs.
struct Term {
    name: String,
    value: Tensor,
    weight: f64,
}

/// The terms of a step, and perhaps which boxes are objects, on their way to the host.
pub struct PendingTerms<'a> {
    output: &'a TrainingOutput,
    targets: &'a [Target],
    terms: LossTerms,
    /// Of the last stage, see [`MatchedTerms::target`].
    target: Option<Download>,
    /// `[W]`: the classes that the last stage's class term looks at; none: all.
    classes: Option<Tensor>,
}

/// The terms of a step.
pub struct MatchedTerms<'a> {
    output: &'a TrainingOutput,
    targets: &'a [Target],
    terms: LossTerms,
    /// Of the boxes of the last stage, on the host: the object, −1 for background, −2 where there is none. None if
    /// no branch asks.
    target: Option<Vec<i64>>,
    classes: Option<Tensor>,
}

/// Absolute differences summed over the last axis, below `beta` squares.
///
/// # Shapes
/// `[…, 4]` → `[…]`
fn distance(a: &Tensor, b: &Tensor, beta: f64) -> Tensor {
    let difference = (a - b).abs();
    let each = if beta > 0.0 {
        let square = difference.square() * (0.5 / beta);
        square.where_self(&difference.lt(beta), &(&difference - 0.5 * beta))
    } else {
        difference
    };
    each.sum_dim_intlist([-1i64].as_slice(), false, a.kind())
}

fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Tensor {
    let none = None::<&Tensor>;
    logits.binary_cross_entropy_with_logits(targets, none, none, Reduction::None)
}

impl Criterion {
    /// `image_counts` of the vocabulary's classes drive the federated loss. `regions`: whether regions will be
    /// asked for.
    #[must_use]
    pub fn new(
        config: &FasterRcnnConfig,
        loss: &LossConfig,
        image_counts: &[u32],
        regions: bool,
    ) -> Self {
        let mut of_boxes = loss.clone();
        if let Some(federated) = &mut of_boxes.federated {
            // The background is one of them, as detectron2 counts it.
            federated.classes -= 1;
        }
        Self {
            config: config.clone(),
            loss: loss.clone(),
            choice: ClassChoice::new(&of_boxes, image_counts),
            classes: image_counts.len() as i64,
            regions,
        }
    }

    /// All terms; and what a semantic branch will ask for, on its way.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn start<'a>(
        &'a self,
        output: &'a TrainingOutput,
        step: Step<'a>,
    ) -> Result<PendingTerms<'a>> {
        let Step { targets, supervision, .. } = step;
        let weights = &self.loss.faster_rcnn;
        let mut terms = self.anchor_terms(output, &step)?;
        let (mut classes, last) = (None, output.stages.len() - 1);
        for (number, stage) in output.stages.iter().enumerate() {
            let suffix = if last == 0 { String::new() } else { format!("_stage{number}") };
            classes = self
                .choice
                .sample(&step.whole, number as u64, 1)
                .map(|classes| torch_ext::upload(&classes.view([-1]), stage.logits.device()));
            let [class, boxes] = self.stage_terms(stage, number, targets, classes.as_ref())?;
            for (name, value, weight, on) in [
                ("loss_cls", class, weights.class, supervision.class),
                ("loss_box_reg", boxes, weights.bbox, supervision.l1),
            ] {
                let weight = if on { weight } else { 0.0 };
                terms.push(Term { name: format!("{name}{suffix}"), value, weight });
            }
        }
        let target = match self.regions && supervision.semantic {
            false => None,
            true => {
                let StageTensors { target, valid, .. } = &output.stages[last];
                let target = target.masked_fill(&valid.logical_not(), -2).view([-1]);
                Some(torch_ext::download(&target)?)
            }
        };
        Ok(PendingTerms { output, targets, terms: weighed(terms), target, classes })
    }

    /// The terms of the region proposal network.
    fn anchor_terms(&self, output: &TrainingOutput, step: &Step<'_>) -> Result<Vec<Term>> {
        let Step { targets, supervision, whole } = step;
        let (config, weights) = (&self.config.rpn, &self.loss.faster_rcnn);
        let (device, kind) = (output.anchors.device(), output.anchors.kind());
        let anchors = &output.anchors;
        let truth = truth(targets, (kind, device));
        let in_image = (self.config.padding() == Padding::Masked).then(|| {
            let sizes: Vec<f32> = targets.iter().flat_map(|t| t.size.map(|x| x as f32)).collect();
            let sizes = Tensor::from_slice(&sizes).view([-1, 2]);
            in_image(anchors, &torch_ext::upload(&sizes, device))
        });
        let (mut is_object, mut is_chosen, mut codes) = (vec![], vec![], vec![]);
        torch_ext::no_grad(|| {
            for (image, objects) in truth.iter().enumerate() {
                let overlaps = Overlaps::new(objects, anchors, None, supervision.ignore_inside);
                let there = in_image.as_ref().map(|there| there.get(image as i64));
                let Labels { positive, negative, target } =
                    overlaps.anchor_labels(config, there.as_ref());
                let draws = draws(
                    whole.key,
                    whole.first_image + image as u64,
                    Draw::Anchors,
                    anchors.size()[0],
                );
                let mut draws = torch_ext::upload(&draws, device);
                if let Some(there) = &there {
                    // Each has the number that it has in the image alone.
                    let place = (there.cumsum(0, Kind::Int64) - 1).clamp_min(0);
                    draws = draws.index_select(0, &place);
                }
                let most = most_positive(config.batch_per_image, config.positive_fraction);
                let (positive, count) = chosen(&positive, &draws, most, None);
                let (negative, _) = chosen(&negative, &draws, config.batch_per_image, Some(&count));
                is_chosen.push(positive.logical_or(&negative));
                codes.push(match objects.size()[0] {
                    0 => anchors.zeros_like(),
                    _ => CODER.encode(anchors, &objects.index_select(0, &target)),
                });
                is_object.push(positive);
            }
        });
        let is_object = Tensor::stack(&is_object, 0).to_kind(kind);
        let is_chosen = Tensor::stack(&is_chosen, 0).to_kind(kind);
        let codes = Tensor::stack(&codes, 0);
        // What learns is divided by what could have, in torchvision by what does.
        let total = match self.config.variant {
            Variant::Detectron2 => {
                let most = (config.batch_per_image * targets.len() as i64) as f64;
                torch_ext::constant(&[most], &[], (kind, device))
            }
            Variant::Torchvision => is_chosen.sum(kind).clamp_min(1.0),
        };
        let class = (cross_entropy(&output.rpn_logits, &is_object) * &is_chosen).sum(kind) / &total;
        let boxes = distance(&output.rpn_deltas, &codes, self.config.variant.beta());
        let boxes = (boxes * &is_object).sum(kind) / total;
        let on = if supervision.rpn { 1.0 } else { 0.0 };
        Ok(vec![
            Term { name: "loss_rpn_cls".into(), value: class, weight: weights.rpn_class * on },
            Term { name: "loss_rpn_loc".into(), value: boxes, weight: weights.rpn_bbox * on },
        ])
    }

    /// Class and box term of a stage.
    fn stage_terms(
        &self,
        stage: &StageTensors,
        number: usize,
        targets: &[Target],
        classes: Option<&Tensor>,
    ) -> Result<[Tensor; 2]> {
        let (device, kind) = (stage.logits.device(), stage.logits.kind());
        let rows = stage.logits.size()[0];
        let valid = stage.valid.view([rows]).to_kind(kind);
        let count = valid.sum(kind).clamp_min(1.0);
        // Behind the objects stands the background: its class is C, its box anything with an inside.
        let labels = targets.iter().flat_map(|t| t.labels.iter().map(|label| i64::from(label.0)));
        let labels: Vec<i64> = labels.chain([self.classes]).collect();
        let objects = labels.len() as i64 - 1;
        let labels = torch_ext::upload(&Tensor::from_slice(&labels), device);
        let is_object = stage.target.view([rows]).ge(0).logical_and(&stage.valid.view([rows]));
        let target = stage.target.view([rows]).masked_fill(&is_object.logical_not(), objects);
        let labels = labels.index_select(0, &target);
        let class = match self.config.classifier {
            Classifier::Softmax => {
                let none = None::<&Tensor>;
                let each =
                    stage.logits.cross_entropy_loss(&labels, none, Reduction::None, -100, 0.0);
                (each * &valid).sum(kind) / &count
            }
            Classifier::Sigmoid => {
                let weights = self.class_weights(stage, targets, &labels, classes)?;
                let each = cross_entropy(&stage.logits, &self.onehot(&labels, kind));
                let each = each * valid.unsqueeze(1);
                let each = match weights {
                    Some(weights) => each * weights,
                    None => each,
                };
                each.sum(kind) / &count
            }
        };
        let boxes = self.box_term(stage, number, targets, (&target, &is_object, &labels));
        Ok([class, boxes / count])
    }

    /// `[R, C]`: 1 at each box's class; zeros for background.
    fn onehot(&self, labels: &Tensor, kind: Kind) -> Tensor {
        let size = [labels.size()[0], self.classes + 1];
        let all = Tensor::zeros(size, (kind, labels.device()));
        all.scatter_value(1, &labels.unsqueeze(1), 1.0).narrow(1, 0, self.classes)
    }

    /// Which logits count, `[R, C]` or `[1, C]`: those of the classes that the federated loss has drawn, and of
    /// classes that are known in the box's image; none: all.
    fn class_weights(
        &self,
        stage: &StageTensors,
        targets: &[Target],
        labels: &Tensor,
        classes: Option<&Tensor>,
    ) -> Result<Option<Tensor>> {
        let (device, kind) = (stage.logits.device(), stage.logits.kind());
        let drawn = classes.map(|classes| {
            let none = Tensor::zeros([self.classes], (kind, device));
            none.index_fill(0, classes, 1.0).unsqueeze(0)
        });
        let known = self.choice.known(targets, self.classes, device).map(|known| {
            let [images, places] = stage.valid.size()[..] else { unreachable!("[B, P]") };
            let of_boxes = known.to_kind(kind).unsqueeze(1);
            let of_boxes = of_boxes.expand([images, places, self.classes], false);
            // A box's own class counts even where other boxes of it may be missing.
            of_boxes.reshape([images * places, self.classes]).maximum(&self.onehot(labels, kind))
        });
        Ok(match (drawn, known) {
            (Some(drawn), Some(known)) => Some(drawn * known),
            (drawn, known) => drawn.or(known),
        })
    }

    /// The sum of the objects' box losses.
    fn box_term(
        &self,
        stage: &StageTensors,
        number: usize,
        targets: &[Target],
        (target, is_object, labels): (&Tensor, &Tensor, &Tensor),
    ) -> Tensor {
        let (device, kind) = (stage.deltas.device(), stage.deltas.kind());
        let rows = target.size()[0];
        let unit = torch_ext::constant(&[0.0, 0.0, 1.0, 1.0], &[1, 4], (kind, device));
        let mut boxes = truth(targets, (kind, device));
        boxes.push(unit.shallow_clone());
        let wanted = Tensor::cat(&boxes, 0).index_select(0, target);
        let is_object = is_object.unsqueeze(1);
        let from = stage.boxes.view([rows, 4]).where_self(&is_object, &unit);
        let weights = self.config.roi.box_weights.map(|weight| weight * (number + 1) as f64);
        let codes = BoxCoder { weights }.encode(&from, &wanted);
        let own = if self.config.roi.class_agnostic {
            stage.deltas.shallow_clone()
        } else {
            let at =
                labels.clamp_max(self.classes - 1).view([rows, 1, 1]).expand([rows, 1, 4], false);
            stage.deltas.view([rows, self.classes, 4]).gather(1, &at, false).squeeze_dim(1)
        };
        let each = distance(&own, &codes, self.config.variant.beta());
        (each * is_object.squeeze_dim(1).to_kind(kind)).sum(kind)
    }
}

/// All terms as one.
fn weighed(terms: Vec<Term>) -> LossTerms {
    let values: Vec<Tensor> = terms.iter().map(|term| term.value.shallow_clone()).collect();
    let values = Tensor::stack(&values, 0);
    let options: (Kind, Device) = (values.kind(), values.device());
    let weights: Vec<f64> = terms.iter().map(|term| term.weight).collect();
    let weights = torch_ext::constant(&weights, &[weights.len() as i64], options);
    LossTerms {
        names: terms.into_iter().map(|term| term.name).collect(),
        total: (&values * weights).sum(options.0),
        values: values.detach(),
    }
}

impl<'a> PendingTerms<'a> {
    /// Waits for what a semantic branch will ask for.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn wait(self) -> Result<MatchedTerms<'a>> {
        let Self { output, targets, terms, target, classes } = self;
        let target =
            target.map(|target| -> Result<Vec<i64>> { Ok(Vec::<i64>::try_from(target.wait()?)?) });
        Ok(MatchedTerms { output, targets, terms, target: target.transpose()?, classes })
    }
}

impl MatchedTerms<'_> {
    /// Boxes of the last stage that are objects; 0 if no branch asks.
    #[must_use]
    pub fn num_boxes(&self) -> f64 {
        self.target.iter().flatten().filter(|&&target| target >= 0).count() as f64
    }

    /// The terms; and the boxes of the last stage as regions, whose losses are divided by `num_boxes`.
    #[must_use]
    pub fn finish(self, num_boxes: f64, wanted: Option<Wanted>) -> (LossTerms, Option<Regions>) {
        let Self { output, targets, target, classes, .. } = &self;
        let objects = target.as_deref().unwrap_or_default();
        let of = |wanted| regions((output, targets), objects, classes.as_ref(), num_boxes, wanted);
        let regions = wanted.map(of);
        (self.terms, regions)
    }
}
