//! Keys of the checkpoints of RichSem (<https://github.com/MengLcool/RichSem>, 42bf5ff), DINO
//! (<https://github.com/IDEA-Research/DINO>) and Deformable DETR
//! (<https://github.com/fundamentalvision/Deformable-DETR>), as our parameters' paths, and back.
//!
//! Our paths are their keys; what is left to say is which keys they have more of:
//!
//! - One module under many names: the box head as `bbox_embed.0` to `.5`, and once more below
//!   `transformer.decoder`; a linear class head likewise. We have the first name, and ask that the
//!   others hold the same values.
//! - What only training uses: RichSem's `clip_visual_proj`, DINO's `label_enc`.
//! - RichSem's frozen CLIP, once in each class head.
//! - What belongs to another detector: Deformable DETR's reference points, and its heads, of which
//!   each decoder layer has its own.

use std::collections::{BTreeMap, BTreeSet};

use tch::Tensor;

/// Which program a checkpoint is from, and which of its models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// RichSem with its class heads against text.
    RichSem,
    /// RichSem's baseline without language: a linear class head on the decoder, and one against
    /// text on the encoder, which this program has no model for.
    RichSemBaseline,
    /// DINO (<https://github.com/IDEA-Research/DINO>): linear class heads.
    Dino,
    /// Deformable DETR, with box refinement or without, of one stage or two.
    DeformableDetr,
}

impl Variant {
    /// The program's name, for reports: `Deformable DETR`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RichSem => "RichSem",
            Self::RichSemBaseline => "RichSem without language",
            Self::Dino => "DINO",
            Self::DeformableDetr => "Deformable DETR",
        }
    }
}

/// How the keys of one checkpoint are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Which program's checkpoint it is.
    pub variant: Variant,
    /// Layers of the decoder. A head that they share has as many names.
    pub decoder_layers: usize,
}

/// Which class head a copy of CLIP was found in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClipCopy {
    /// The copy in the decoder's class head, below `class_embed.clip`.
    Decoder,
    /// The copy in the encoder's class head, below `transformer.enc_out_class_embed.clip`.
    Encoder,
}

impl ClipCopy {
    /// What its keys begin with.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Decoder => "class_embed.clip.",
            Self::Encoder => "transformer.enc_out_class_embed.clip.",
        }
    }
}

/// What a key of a checkpoint is for this program's detector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The value of the parameter of that path.
    Parameter(String),
    /// One more name for it: the values must be the same.
    Copy(String),
    /// A weight of a frozen CLIP, under OpenAI's name.
    Clip(ClipCopy, String),
    /// The semantic branch's projection, under the path that it has in training. A detector has no
    /// semantic branch.
    SemanticBranch(String),
    /// Used in training alone, or not even there: why.
    Training(&'static str),
    /// Counts batches; nothing reads it.
    Counter,
    /// Belongs to a part that this program's detector does not have: which.
    NoPlace(&'static str),
    /// None of the keys of these checkpoints.
    Unknown,
}

const LABEL_ENC: &str = "DINO's label embedding for denoising; ours are the class head's rows";
const ENCODER_UNUSED: &str = "the encoder's class head never uses it";
const EACH_LAYER: &str = "each decoder layer's own head; ours is one for all";

/// Keys of parts that this detector does not have.
const NO_PLACE: [(&str, &str); 16] = [
    ("query_embed.", "learned queries with their positions"),
    ("refpoint_embed.", "learned reference boxes"),
    ("transformer.refpoint_embed.", "learned reference boxes"),
    ("hw_embed.", "learned sizes of boxes"),
    ("label_embedding.", "attention to label embeddings"),
    ("transformer.reference_points.", "reference points from queries"),
    ("transformer.pos_trans.", "queries from proposals"),
    ("transformer.pos_trans_norm.", "queries from proposals"),
    ("transformer.pat_embed_for_2stage", "query patterns"),
    ("transformer.two_stage_wh_embedding.", "learned sizes of proposals"),
    ("transformer.label_attn.", "attention to label embeddings"),
    ("transformer.decoder.query_scale.", "scaled query positions"),
    ("transformer.decoder.query_pos_sine_scale.", "scaled query positions"),
    ("transformer.decoder.ref_anchor_head.", "modulated attention"),
    ("bbox_attention.", "a mask head"),
    ("mask_head.", "a mask head"),
];

/// What the keys of our own parameters begin with.
const OURS: [&str; 17] = [
    "backbone.0.",
    "input_proj.",
    "class_embed.dino_visual_proj.",
    "class_embed.label_proj.",
    "class_embed.logit_scale",
    "transformer.encoder.layers.",
    "transformer.decoder.layers.",
    "transformer.decoder.norm.",
    "transformer.decoder.ref_point_head.",
    "transformer.level_embed",
    "transformer.tgt_embed.",
    "transformer.enc_output.",
    "transformer.enc_output_norm.",
    "transformer.enc_out_bbox_embed.",
    "transformer.enc_out_class_embed.",
    "bbox_embed.0.",
    "class_embed.0.",
];

/// The number after a prefix, and what follows its dot.
fn numbered<'a>(key: &'a str, prefix: &str) -> Option<(usize, &'a str)> {
    let (number, rest) = key.strip_prefix(prefix)?.split_once('.')?;
    Some((number.parse().ok()?, rest))
}

impl Layout {
    /// The layout of a checkpoint's keys (without `module.`); none if they are no detector's of
    /// these families.
    #[must_use]
    pub fn of<'a>(keys: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let keys: BTreeSet<&str> = keys.into_iter().collect();
        let any = |prefix: &str| keys.iter().any(|key| key.starts_with(prefix));
        if !any("transformer.encoder.layers.") || !any("backbone.0.") || !any("bbox_embed.0.") {
            return None;
        }
        let layers = keys.iter().filter_map(|k| numbered(k, "transformer.decoder.layers."));
        let decoder_layers = layers.map(|(number, _)| number + 1).max()?;
        let variant = if any("class_embed.dino_visual_proj.") {
            Variant::RichSem
        } else if any("transformer.enc_out_class_embed.dino_visual_proj.") {
            Variant::RichSemBaseline
        } else if any("transformer.decoder.ref_point_head.") {
            Variant::Dino
        } else {
            Variant::DeformableDetr
        };
        Some(Self { variant, decoder_layers })
    }

    /// What a key is for this program's detector.
    #[must_use]
    pub fn fate(&self, key: &str) -> Fate {
        if key.ends_with(".num_batches_tracked") {
            return Fate::Counter;
        }
        if key.ends_with(".relative_position_index") {
            return Fate::NoPlace("a Swin Transformer's index, which follows from its window");
        }
        for copy in [ClipCopy::Decoder, ClipCopy::Encoder] {
            if let Some(own) = key.strip_prefix(copy.prefix()) {
                return Fate::Clip(copy, own.to_owned());
            }
        }
        if let Some(rest) = key.strip_prefix("class_embed.clip_visual_proj.") {
            return Fate::SemanticBranch(format!("semantic_branch.clip_visual_proj.{rest}"));
        }
        for part in ["clip_visual_proj.", "label_proj."] {
            if key
                .strip_prefix("transformer.enc_out_class_embed.")
                .is_some_and(|k| k.starts_with(part))
            {
                return Fate::Training(ENCODER_UNUSED);
            }
        }
        if matches!(key, "label_enc.weight" | "transformer.label_enc.weight") {
            return Fate::Training(LABEL_ENC);
        }
        for head in ["bbox_embed", "class_embed"] {
            for (prefix, first) in [("", true), ("transformer.decoder.", false)] {
                if let Some((layer, rest)) = numbered(key, &format!("{prefix}{head}.")) {
                    return self.head(head, layer, rest, first);
                }
            }
        }
        if let Some((_, why)) = NO_PLACE.iter().find(|(prefix, _)| key.starts_with(prefix)) {
            return Fate::NoPlace(why);
        }
        if OURS.iter().any(|prefix| key.starts_with(prefix)) {
            Fate::Parameter(key.to_owned())
        } else {
            Fate::Unknown
        }
    }

    /// What a key of a list of heads is. With `first` it is of the list itself, else of the list's second
    /// name below the decoder.
    fn head(&self, head: &str, layer: usize, rest: &str, first: bool) -> Fate {
        let ours = format!("{head}.0.{rest}");
        let last = self.decoder_layers - 1;
        match self.variant {
            // The last layer's head gives the detections. In two stages the encoder's comes after it.
            Variant::DeformableDetr => {
                let path = match layer {
                    layer if layer == last => ours,
                    layer if layer > last => format!("transformer.enc_out_{head}.{rest}"),
                    _ => return Fate::NoPlace(EACH_LAYER),
                };
                if first { Fate::Parameter(path) } else { Fate::Copy(path) }
            }
            _ if layer == 0 && first => Fate::Parameter(ours),
            _ if layer <= last => Fate::Copy(ours),
            _ => Fate::Unknown,
        }
    }

    /// Every key that the official code has for a parameter of ours. The first key is the one that is read.
    #[must_use]
    pub fn keys_of(&self, path: &str) -> Vec<String> {
        for head in ["bbox_embed", "class_embed"] {
            if let Some((0, rest)) = numbered(path, &format!("{head}.")) {
                let named = ["", "transformer.decoder."].into_iter().flat_map(|prefix| {
                    (0..self.decoder_layers).map(move |i| format!("{prefix}{head}.{i}.{rest}"))
                });
                return named.collect();
            }
        }
        vec![path.to_owned()]
    }

    /// Sorts a checkpoint's tensors by what becomes of them.
    #[must_use]
    pub fn sort(&self, tensors: BTreeMap<String, Tensor>) -> Sorted {
        let mut sorted = Sorted::empty(*self);
        for (key, tensor) in tensors {
            let fate = self.fate(&key);
            if let Fate::Parameter(path) = &fate {
                sorted.parameters.insert(path.clone(), tensor.shallow_clone());
            }
            sorted.keys.insert(key, (fate, tensor));
        }
        for (key, (fate, tensor)) in &sorted.keys {
            if let Fate::Copy(path) = fate
                && !sorted.parameters.get(path).is_some_and(|first| same(first, tensor))
            {
                sorted.unequal.push((key.clone(), path.clone()));
            }
        }
        sorted
    }
}

/// Same kind, shape and values. Two names of one storage need not be compared.
pub(crate) fn same(a: &Tensor, b: &Tensor) -> bool {
    a.kind() == b.kind() && a.size() == b.size() && (a.data_ptr() == b.data_ptr() || a == b)
}

/// A checkpoint, by what becomes of its keys.
#[derive(Debug)]
pub struct Sorted {
    /// How the checkpoint's keys are laid out.
    pub layout: Layout,
    /// Values of our parameters, by path.
    pub parameters: BTreeMap<String, Tensor>,
    /// Every key, what becomes of it, and its value.
    pub keys: BTreeMap<String, (Fate, Tensor)>,
    /// Further names of a parameter that hold other values than it: key and path.
    pub unequal: Vec<(String, String)>,
}

impl Sorted {
    fn empty(layout: Layout) -> Self {
        Self { layout, parameters: BTreeMap::new(), keys: BTreeMap::new(), unequal: Vec::new() }
    }

    /// A copy of CLIP, under OpenAI's names; empty if the checkpoint has none.
    #[must_use]
    pub fn clip(&self, copy: ClipCopy) -> BTreeMap<String, Tensor> {
        let weights = self.keys.values().filter_map(|(fate, tensor)| match fate {
            Fate::Clip(of, own) if *of == copy => Some((own.clone(), tensor.shallow_clone())),
            _ => None,
        });
        weights.collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{
        models::{
            backbone::ResnetConfig,
            class_head::ClassSpace,
            dino::{Dino, DinoConfig},
            parameters::ParameterStore,
        },
        testing::normal,
    };
    use tch::Device;

    const LAYERS: usize = 3;

    fn ours(space: ClassSpace) -> BTreeMap<String, Tensor> {
        let backbone = ResnetConfig { width: 8, ..ResnetConfig::default() }.into();
        let mut config = DinoConfig { backbone, ..DinoConfig::default() };
        config.transformer.hidden_dim = 32;
        config.transformer.dec_layers = LAYERS as i64;
        config.transformer.enc_layers = 1;
        config.transformer.dim_feedforward = 16;
        let store = ParameterStore::new(Device::Cpu, 0);
        Dino::new(&store, &config, space).unwrap();
        store.named_tensors()
    }

    /// Every parameter there is has a key, and that key leads back to it.
    #[test]
    fn all_our_parameters_have_keys_that_lead_back() {
        for (space, variant) in
            [(ClassSpace::Text(12), Variant::RichSem), (ClassSpace::Classes(7), Variant::Dino)]
        {
            let layout = Layout { variant, decoder_layers: LAYERS };
            let mut official = BTreeMap::new();
            for (path, tensor) in ours(space) {
                let keys = layout.keys_of(&path);
                assert_eq!(layout.fate(&keys[0]), Fate::Parameter(path.clone()));
                for key in &keys[1..] {
                    assert_eq!(layout.fate(key), Fate::Copy(path.clone()));
                }
                official.extend(keys.into_iter().map(|key| (key, tensor.copy())));
            }
            assert_eq!(Layout::of(official.keys().map(String::as_str)), Some(layout));
            let heads = official.keys().filter(|k| k.contains("bbox_embed.2.layers.1.bias"));
            assert_eq!(heads.count(), 2);
            let sorted = layout.sort(official);
            assert!(sorted.unequal.is_empty());
            assert_eq!(sorted.parameters, ours(space));
        }
    }

    #[test]
    fn keys_that_only_training_or_others_have_are_told_apart() {
        let layout = Layout { variant: Variant::RichSem, decoder_layers: 6 };
        let clip = "transformer.resblocks.0.ln_1.bias".to_owned();
        for (key, fate) in [
            ("backbone.0.body.bn1.num_batches_tracked", Fate::Counter),
            (
                "class_embed.clip.transformer.resblocks.0.ln_1.bias",
                Fate::Clip(ClipCopy::Decoder, clip.clone()),
            ),
            (
                "transformer.enc_out_class_embed.clip.transformer.resblocks.0.ln_1.bias",
                Fate::Clip(ClipCopy::Encoder, clip),
            ),
            (
                "class_embed.clip_visual_proj.weight",
                Fate::SemanticBranch("semantic_branch.clip_visual_proj.weight".into()),
            ),
            ("label_enc.weight", Fate::Training(LABEL_ENC)),
            ("transformer.enc_out_class_embed.label_proj.weight", Fate::Training(ENCODER_UNUSED)),
            ("bbox_embed.6.layers.0.weight", Fate::Unknown),
            ("optimizer.state.0.exp_avg", Fate::Unknown),
            ("query_embed.weight", Fate::NoPlace("learned queries with their positions")),
        ] {
            assert_eq!(layout.fate(key), fate, "{key}");
        }
    }

    /// Deformable DETR has one head more than decoder layers if it proposes in two stages: the
    /// encoder's.
    #[test]
    fn deformable_detrs_last_heads_are_ours() {
        let layout = Layout { variant: Variant::DeformableDetr, decoder_layers: 6 };
        for (key, fate) in [
            ("class_embed.4.bias", Fate::NoPlace(EACH_LAYER)),
            ("class_embed.5.bias", Fate::Parameter("class_embed.0.bias".into())),
            ("transformer.decoder.class_embed.5.bias", Fate::Copy("class_embed.0.bias".into())),
            (
                "bbox_embed.6.layers.2.bias",
                Fate::Parameter("transformer.enc_out_bbox_embed.layers.2.bias".into()),
            ),
        ] {
            assert_eq!(layout.fate(key), fate, "{key}");
        }
    }

    #[test]
    fn names_of_one_module_must_hold_the_same() {
        let layout = Layout { variant: Variant::Dino, decoder_layers: 2 };
        let head = normal(1, &[3, 2]);
        let tensors: BTreeMap<String, Tensor> = layout
            .keys_of("class_embed.0.weight")
            .into_iter()
            .map(|key| (key, head.copy()))
            .collect();
        assert!(
            layout
                .sort(tensors.iter().map(|(k, v)| (k.clone(), v.copy())).collect())
                .unequal
                .is_empty()
        );
        let _ = tensors["class_embed.1.weight"].get(0).fill_(7.0);
        let unequal = layout.sort(tensors).unequal;
        assert_eq!(unequal, [("class_embed.1.weight".into(), "class_embed.0.weight".into())]);
    }

    #[test]
    fn other_weights_are_no_detectors() {
        for keys in
            [&["conv1.weight", "layer1.0.conv1.weight"][..], &[], &["backbone.0.body.conv1.weight"]]
        {
            assert_eq!(Layout::of(keys.iter().copied()), None);
        }
    }
}
