//! CLIP as a teacher.

use std::{borrow::Cow, path::Path};

use tch::{Device, Kind, Tensor};

use super::{
    DenseMap, SoftLabels, Teacher, TeacherConfig, TeacherText, VitLabels,
    clip::{self, Clip, ClipConfig, Hints, PromptSet, Visual, VisualConfig},
    made_for::MadeFor,
    text_table,
};
use crate::{
    checkpoint_io::{checked_text_table, read_text_table},
    error::{Error, Result, guarded},
    models::{class_head::TextTable, parameters::ParameterStore},
    precision::Precision,
    vocabulary::Vocabulary,
};

/// Boxes that are embedded at once. More cost memory and gain no time.
const BOXES: i64 = 256;

/// A frozen CLIP. Its ResNets see an image once and pool each box from the dense map; its vision
/// transformers do as [`VitLabels`] says.
#[derive(Debug)]
pub struct ClipTeacher {
    clip: Clip,
    config: ClipConfig,
    device: Device,
    text: TextTable,
    logit_scale: f64,
    precision: Precision,
    vit: VitLabels,
}

impl ClipTeacher {
    /// Loads weights and text table.
    ///
    /// # Errors
    /// As [`super::open`].
    pub fn open(config: &TeacherConfig, vocabulary: &Vocabulary, device: Device) -> Result<Self> {
        Self::open_with_cache(config, vocabulary, device, text_table::cache_folder().as_deref())
    }

    pub(crate) fn open_with_cache(
        config: &TeacherConfig,
        vocabulary: &Vocabulary,
        device: Device,
        cache: Option<&Path>,
    ) -> Result<Self> {
        let weights = config.weights()?;
        if !weights.is_file() {
            let problem = format!("there is no file `{}`", weights.display());
            return Err(Error::config("teacher.weights", problem)
                .with_hint("paths are relative to the settings file"));
        }
        let hints = Hints::of(weights, config.activation)?;
        let (store, sizes, mut clip) = clip::load(weights, &hints, device)?;
        let text = text_table_of(config, vocabulary, (&store, &sizes, &clip), cache)?;
        // Images are all that is looked at from here on: half of CLIP's memory is free again.
        clip.text = None;
        Self::new(clip, sizes, text, device, config.precision, config.vit)
    }

    /// A teacher from parts that are already loaded. `text` may be on any device.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn new(
        clip: Clip,
        config: ClipConfig,
        text: TextTable,
        device: Device,
        precision: Precision,
        vit: VitLabels,
    ) -> Result<Self> {
        let logit_scale = f64::try_from(clip.logit_scale.detach().to_device(Device::Cpu))?;
        let text = TextTable::new(&text.rows.to_device(device));
        Ok(Self { clip, config, device, text, logit_scale, precision, vit })
    }

    /// Embeddings of whole images, resized to the model's resolution (antialiased bilinear, the
    /// aspect not kept); not normalised.
    ///
    /// # Shapes
    /// `images` as [`Teacher::encode`] takes them → `[B, D]` f32
    ///
    /// # Errors
    /// As [`Teacher::encode`].
    pub fn embed_images(&self, images: &Tensor) -> Result<Tensor> {
        let images = self.normalize(images)?;
        let side = self.config.visual.resolution();
        self.frozen(|| {
            let images =
                images.f_internal_upsample_bilinear2d_aa([side, side], false, None, None)?;
            self.clip.encode_image(&images, false)
        })
    }

    /// Sizes of both encoders.
    #[must_use]
    pub fn config(&self) -> &ClipConfig {
        &self.config
    }

    /// Runs `f` in the teacher's precision and without autograd.
    fn frozen(&self, f: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
        let kind = self.precision.kind();
        guarded(|| torch_ext::no_grad(|| torch_ext::autocast(self.device, kind, f)))
    }

    fn normalize(&self, images: &Tensor) -> Result<Tensor> {
        let size = images.size();
        if !matches!(size[..], [_, 3, h, w] if h > 0 && w > 0) || images.kind() != Kind::Float {
            let got = images.kind();
            let problem = format!("images: expected [B, 3, H, W] f32, got {size:?} {got:?}");
            return Err(Error::other(format!("teacher: {problem}")));
        }
        let (mean, std) = clip::PIXELS.tensors(self.device);
        Ok(images.f_sub(&mean)?.f_div(&std)?)
    }

    fn embed_boxes(&self, map: &DenseMap, boxes: &Tensor) -> Result<Tensor> {
        match (&self.clip.visual, self.vit) {
            (Visual::Resnet(visual), _) => visual.embed_boxes(&map.features, boxes),
            (Visual::Vit(_), VitLabels::PatchMap) => {
                let scale = 1.0 / map.stride as f64;
                let means = torch_ext::roi_align(&map.features, boxes, (1, 1), scale, 0, true)?;
                Ok(means.f_flatten(1, 3)?)
            }
            (Visual::Vit(visual), VitLabels::Crops) => {
                let crops = crop(&map.features, boxes, self.config.visual.resolution())?;
                Ok(visual.forward(&crops))
            }
        }
    }
}

/// Each box cut out, to whole pixels outwards, and resized to a square of that side.
///
/// # Shapes
/// `images` `[B, 3, H, W]`, `boxes` `[N, 5]` → `[N, 3, side, side]`
fn crop(images: &Tensor, boxes: &Tensor, side: i64) -> Result<Tensor> {
    let [b, _, h, w] = images.size()[..] else { unreachable!("checked by `normalize`") };
    let rows = Vec::<f32>::try_from(boxes.to_device(Device::Cpu).to_kind(Kind::Float).view([-1]))?;
    let crops = rows.chunks_exact(5).map(|row| {
        let &[image, x0, y0, x1, y1] = row else { unreachable!("chunks of five") };
        if !(image >= 0.0 && (image as i64) < b) {
            return Err(Error::other(format!("teacher: no image {image} of {b}")));
        }
        let span = |from: f32, to: f32, side: i64| {
            let from = (from.floor() as i64).clamp(0, side - 1);
            (from, (to.ceil() as i64).clamp(from + 1, side) - from)
        };
        let ((left, width), (top, height)) = (span(x0, x1, w), span(y0, y1, h));
        let image = images.f_narrow(0, image as i64, 1)?;
        let region = image.f_narrow(2, top, height)?.f_narrow(3, left, width)?;
        Ok(region.f_internal_upsample_bilinear2d_aa([side, side], false, None, None)?)
    });
    Ok(Tensor::f_cat(&crops.collect::<Result<Vec<_>>>()?, 0)?)
}

fn text_table_of(
    config: &TeacherConfig,
    vocabulary: &Vocabulary,
    (store, sizes, clip): (&ParameterStore, &ClipConfig, &Clip),
    cache: Option<&Path>,
) -> Result<TextTable> {
    let width = sizes.embed_dim;
    let (set, own) = match &config.text {
        TeacherText::Prompts { set, templates } => (set, templates),
        TeacherText::Table { table } => {
            if !table.is_file() {
                let problem = format!("there is no file `{}`", table.display());
                return Err(Error::config("teacher.text.table", problem)
                    .with_hint("paths are relative to the settings file"));
            }
            let text = read_text_table(table, vocabulary)?;
            if text.dim() != width {
                let problem = format!("expected rows of width {width}, got {}", text.dim());
                return Err(Error::invalid(table, "shape", problem)
                    .with_hint("the table must come from the text encoder of the same CLIP"));
            }
            return Ok(text);
        }
    };
    let loaded = (store, sizes, clip);
    let weights = config.weights()?;
    let own = match set {
        PromptSet::Weights => Cow::Owned(MadeFor::of(weights)?.templates),
        _ => Cow::Borrowed(own),
    };
    prompt_table(loaded, &set.templates(&own), vocabulary, weights, cache)
}

/// The vocabulary's embeddings by a CLIP's text encoder, kept in `~/.cache/richsem/text`; `path`
/// says where the CLIP came from.
///
/// # Errors
/// A CLIP without a text encoder; as [`super::encode_prompts`].
pub(crate) fn text_of_clip(
    loaded: (&ParameterStore, &ClipConfig, &Clip),
    templates: &[impl AsRef<str>],
    vocabulary: &Vocabulary,
    path: &Path,
) -> Result<TextTable> {
    prompt_table(loaded, templates, vocabulary, path, text_table::cache_folder().as_deref())
}

fn prompt_table(
    (store, sizes, clip): (&ParameterStore, &ClipConfig, &Clip),
    templates: &[impl AsRef<str>],
    vocabulary: &Vocabulary,
    path: &Path,
    cache: Option<&Path>,
) -> Result<TextTable> {
    let Some(encoder) = &clip.text else {
        let problem = "missing: these weights have no text encoder";
        return Err(Error::invalid(path, "token_embedding.weight", problem).with_hint(
            "give the vocabulary's embeddings: teacher.text.kind = \"table\", teacher.text.table",
        ));
    };
    let names: Vec<&str> = vocabulary.categories().iter().map(|c| c.name.as_str()).collect();
    let config = sizes.text.as_ref().expect("an encoder has sizes");
    let key = text_table::key(store, config, templates, &names)?;
    let table = text_table::cached(cache, &key, [names.len() as i64, sizes.embed_dim], || {
        text_table::encode_prompts(encoder, store.device(), templates, &names)
    })?;
    checked_text_table(&table, vocabulary, path)
}

impl Teacher for ClipTeacher {
    fn encode(&self, images: &Tensor) -> Result<DenseMap> {
        let images = self.normalize(images)?;
        let (features, stride) = match (&self.clip.visual, self.vit) {
            (Visual::Resnet(visual), _) => {
                (self.frozen(|| visual.dense(&images, false))?, clip::RESNET_STRIDE)
            }
            (Visual::Vit(visual), VitLabels::PatchMap) => {
                (self.frozen(|| Ok(visual.patch_map(&images)))?, visual.patch())
            }
            (Visual::Vit(_), VitLabels::Crops) => (images, 1),
        };
        Ok(DenseMap { features, stride })
    }

    fn label(&self, map: &DenseMap, boxes: &Tensor) -> Result<SoftLabels> {
        let size = boxes.size();
        let &[n, 5] = size.as_slice() else {
            let problem = format!("teacher: boxes: expected [N, 5], got {size:?}");
            return Err(Error::other(problem));
        };
        let options = (Kind::Float, self.device);
        let mut parts = vec![Tensor::f_zeros([0, self.config.embed_dim], options)?];
        for from in (0..n).step_by(BOXES as usize) {
            let boxes = boxes.f_narrow(0, from, BOXES.min(n - from))?;
            let features = self.frozen(|| self.embed_boxes(map, &boxes))?;
            parts.push(features.f_to_kind(Kind::Float)?);
        }
        guarded(|| {
            let features = Tensor::f_cat(&parts, 0)?;
            Ok(torch_ext::no_grad(|| SoftLabels::new(&features, &self.text, self.logit_scale)))
        })
    }

    fn text(&self) -> &TextTable {
        &self.text
    }

    fn logit_scale(&self) -> f64 {
        self.logit_scale
    }

    fn describe(&self) -> String {
        let visual = match &self.config.visual {
            VisualConfig::Resnet { backbone, resolution, .. } => {
                let layers: Vec<String> = backbone.layers.iter().map(i64::to_string).collect();
                let (layers, width) = (layers.join("-"), backbone.width);
                format!("CLIP ResNet {layers}, width {width}, {resolution} px")
            }
            VisualConfig::Vit { width, layers, patch, resolution, .. } => {
                let how = match self.vit {
                    VitLabels::Crops => "boxes cut out",
                    VitLabels::PatchMap => "boxes from the map of patches",
                };
                format!(
                    "CLIP ViT, {layers} layers, width {width}, patch {patch}, {resolution} px, {how}"
                )
            }
        };
        let (classes, dim) = (self.text.rows.size()[0], self.text.dim());
        format!("{visual}; {classes} classes in {dim} dimensions")
    }
}
