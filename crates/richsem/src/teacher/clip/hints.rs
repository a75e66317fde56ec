//! What the tensors of a CLIP do not tell: its activation, and how many heads its attention has. The file
//! may say it, or a settings file that its authors put beside it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tch::Tensor;

use crate::{
    checkpoint_io::{safetensors::Metadata, weight_names},
    error::{Error, Result},
};

/// What is between the two layers of a block's MLP. Models of one shape were trained with either; run
/// with the other one, they see badly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x · sigmoid(1.702 x)`: OpenAI's, MetaCLIP's and DFN's models.
    #[default]
    QuickGelu,
    /// `x · Φ(x)`: LAION's and DataComp's models.
    Gelu,
}

impl Activation {
    /// The name in settings files, as `quick_gelu`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::QuickGelu => "quick_gelu",
            Self::Gelu => "gelu",
        }
    }

    pub(super) fn forward(self, x: &Tensor) -> Tensor {
        match self {
            Self::QuickGelu => x * (x * 1.702).sigmoid(),
            Self::Gelu => x.gelu("none"),
        }
    }
}

/// What is known of a CLIP besides its tensors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hints {
    /// Activation of both encoders' transformers. ResNets have none of these.
    pub activation: Option<Activation>,
    /// Attention of the image encoder.
    pub visual: Attention,
    /// Attention of the text encoder.
    pub text: Attention,
    /// Where this comes from, as the subject of a sentence.
    #[serde(skip)]
    pub source: Option<String>,
}

/// Sizes of the attention in one encoder's transformer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attention {
    /// Number of attention heads.
    pub heads: Option<i64>,
    /// Features of a token. If they differ from the weights', the settings are another model's.
    pub width: Option<i64>,
}

/// Metadata of a safetensors file that this program wrote: the hints as JSON.
const METADATA: &str = "richsem.clip";
/// Metadata of what `richsem pretrain-teacher` wrote, by which older files are known.
const PRETRAINED: &str = "pretraining";
const HUGGING_FACE: &str = "config.json";
const OPEN_CLIP: &str = "open_clip_config.json";

impl Hints {
    /// The hints of a weights file and of the settings beside it. An activation that is `given` counts
    /// before theirs.
    ///
    /// # Errors
    /// A file that cannot be read; settings that are no JSON, or name an activation that is not known.
    pub fn of(path: &Path, given: Option<Activation>) -> Result<Self> {
        let found = Self::found(path, given)?;
        Ok(Self { activation: given.or(found.activation), ..found })
    }

    fn found(path: &Path, given: Option<Activation>) -> Result<Self> {
        let (names, metadata) = weight_names(path)?;
        if let Some(text) = metadata.get(METADATA) {
            let hints: Self = serde_json::from_str(text).map_err(|e| {
                Error::invalid(path, METADATA, e.to_string())
                    .with_hint("the file was edited: convert the original weights again")
            })?;
            return Ok(Self { source: Some("the file".to_owned()), ..hints });
        }
        if metadata.contains_key(PRETRAINED) {
            return Ok(Self::known(Activation::QuickGelu, "the file, of `pretrain-teacher`,"));
        }
        if names.iter().any(|name| name == "input_resolution") {
            return Ok(Self::known(Activation::QuickGelu, "the file, one of OpenAI's,"));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        // Repositories of LAION's hold both; each describes its own file of weights.
        let hugging_face = names.iter().any(|name| name.contains("vision_model."));
        let mut files = [OPEN_CLIP, HUGGING_FACE];
        if hugging_face {
            files.reverse();
        }
        for file in files {
            let path = folder.join(file);
            if !path.is_file() {
                continue;
            }
            let bytes = fs_err::read(&path)?;
            let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
            let value: Value = serde_json::from_slice(bytes).map_err(|e| {
                Error::invalid(&path, "JSON", e.to_string()).with_hint(
                    "this file may say what the weights need: repair it, or move it away",
                )
            })?;
            let found = match file {
                HUGGING_FACE => of_hugging_face(&value, &path, given)?,
                _ => of_open_clip(&value),
            };
            if let Some(hints) = found {
                return Ok(Self { source: Some(format!("{file} beside the weights")), ..hints });
            }
        }
        Ok(Self::default())
    }

    fn known(activation: Activation, by: &str) -> Self {
        Self { activation: Some(activation), source: Some(by.to_owned()), ..Self::default() }
    }

    /// The hints as metadata of a file that is written. Empty if nothing is known.
    pub(crate) fn metadata(&self) -> Metadata {
        if self.activation.is_none() {
            return Metadata::new();
        }
        let text = serde_json::to_string(self).expect("names and numbers are JSON");
        Metadata::from([(METADATA.to_owned(), text)])
    }
}

fn activation(value: &Value, path: &Path, field: &str) -> Result<Activation> {
    Activation::deserialize(value).map_err(|_| {
        Error::invalid(path, field, format!("expected \"quick_gelu\" or \"gelu\", got {value}"))
            .with_hint("CLIPs with another activation are not supported; set teacher.activation to use one of these")
    })
}

/// `transformers`: what a file leaves out is the library's default.
fn of_hugging_face(
    config: &Value,
    path: &Path,
    given: Option<Activation>,
) -> Result<Option<Hints>> {
    let is_clip = match config["model_type"].as_str() {
        Some(kind) => kind.starts_with("clip"),
        // Written by hand: it is as good.
        None => config["vision_config"].is_object() || config["text_config"].is_object(),
    };
    if !is_clip {
        return Ok(None);
    }
    let encoder = |name: &str| -> Result<(Activation, Attention)> {
        let nested = &config[name];
        // `CLIPVisionModel` alone has its settings at the top.
        let (settings, field) = if nested.is_object() {
            (nested, format!("{name}.hidden_act"))
        } else {
            (config, "hidden_act".to_owned())
        };
        let activation = match (given, &settings["hidden_act"]) {
            (Some(given), _) => given,
            (None, Value::Null) => Activation::QuickGelu,
            (None, value) => activation(value, path, &field)?,
        };
        // What is left out has the library's default: heads of 64 channels, as without such a file.
        let number = |key: &str| settings[key].as_i64();
        let attention =
            Attention { heads: number("num_attention_heads"), width: number("hidden_size") };
        Ok((activation, attention))
    };
    let ((activation, visual), (of_text, text)) =
        (encoder("vision_config")?, encoder("text_config")?);
    if activation != of_text && !config["text_config"].is_null() {
        let problem =
            format!("expected the image encoder's, {}, got {}", activation.name(), of_text.name());
        return Err(Error::invalid(path, "text_config.hidden_act", problem)
            .with_hint("CLIPs whose encoders have different activations are not supported"));
    }
    // The settings of an image encoder alone say nothing of a text encoder.
    let text = if config["text_config"].is_null() { Attention::default() } else { text };
    Ok(Some(Hints { activation: Some(activation), visual, text, source: None }))
}

fn of_open_clip(config: &Value) -> Option<Hints> {
    let model = config.get("model_cfg")?;
    let quick = model["quick_gelu"].as_bool().unwrap_or(false);
    let (vision, text) = (&model["vision_cfg"], &model["text_cfg"]);
    let of_head = vision["head_width"].as_i64().filter(|&width| width > 0);
    let width = vision["width"].as_i64();
    Some(Hints {
        activation: Some(if quick { Activation::QuickGelu } else { Activation::Gelu }),
        visual: Attention {
            heads: width.zip(of_head).map(|(width, of_head)| width / of_head),
            width,
        },
        text: Attention { heads: text["heads"].as_i64(), width: text["width"].as_i64() },
        source: None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use tch::{Device, Kind};

    use super::*;
    use crate::checkpoint_io::safetensors;

    fn hints(names: &[&str], metadata: &Metadata, beside: &[(&str, &str)]) -> Result<Hints> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let one = || Tensor::zeros([1], (Kind::Float, Device::Cpu));
        let tensors: BTreeMap<_, _> = names.iter().map(|n| ((*n).to_owned(), one())).collect();
        safetensors::write(&path, &tensors, metadata).unwrap();
        for (name, text) in beside {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Hints::of(&path, None)
    }

    const OPENAI: &str = "visual.class_embedding";
    const FACE: &str = "vision_model.embeddings.class_embedding";

    #[test]
    fn whoever_knows_the_activation_is_asked() {
        use Activation::{Gelu, QuickGelu};
        let none = Metadata::new();
        let face = r#"{"model_type": "clip", "text_config": {"hidden_act": "gelu"},
            "vision_config": {"hidden_act": "gelu", "num_attention_heads": 16}}"#;
        let defaults = r#"{"model_type": "clip", "text_config": {}, "vision_config": {}}"#;
        let open = r#"{"model_cfg": {"vision_cfg": {"width": 1280, "head_width": 80},
            "text_cfg": {"heads": 16}}}"#;
        let quick = r#"{"model_cfg": {"quick_gelu": true, "vision_cfg": {}, "text_cfg": {}}}"#;
        let ours = Hints::known(Gelu, "").metadata();
        for (names, metadata, beside, expected, source) in [
            (&[OPENAI][..], &none, &[][..], None, None),
            (&[OPENAI, "input_resolution"], &none, &[], Some(QuickGelu), Some("OpenAI")),
            (&[OPENAI], &ours, &[], Some(Gelu), Some("the file")),
            (&[FACE], &none, &[(HUGGING_FACE, face)], Some(Gelu), Some("config.json")),
            (&[FACE], &none, &[(HUGGING_FACE, defaults)], Some(QuickGelu), Some("config.json")),
            (&[OPENAI], &none, &[(OPEN_CLIP, open)], Some(Gelu), Some("open_clip_config.json")),
            (&[OPENAI], &none, &[(OPEN_CLIP, quick)], Some(QuickGelu), Some("open_clip_config")),
            // Each file of settings describes the weights of its own names.
            (
                &[OPENAI],
                &none,
                &[(OPEN_CLIP, quick), (HUGGING_FACE, face)],
                Some(QuickGelu),
                Some("open"),
            ),
            (
                &[FACE],
                &none,
                &[(OPEN_CLIP, quick), (HUGGING_FACE, face)],
                Some(Gelu),
                Some("config"),
            ),
            // Without the kind of model, but with what only a CLIP has; sizes that it leaves out are none.
            (
                &[FACE],
                &none,
                &[(HUGGING_FACE, r#"{"vision_config": {"hidden_act": "gelu"}}"#)],
                Some(Gelu),
                Some("config.json"),
            ),
            // Of something else, or nothing.
            (&[OPENAI], &none, &[(HUGGING_FACE, r#"{"model_type": "vit"}"#)], None, None),
        ] {
            let found = hints(names, metadata, beside).unwrap();
            assert_eq!(found.activation, expected, "{beside:?}");
            let by = found.source.unwrap_or_default();
            assert!(by.contains(source.unwrap_or_default()), "{by}");
        }
        let found = hints(&[OPENAI], &none, &[(OPEN_CLIP, open)]).unwrap();
        assert_eq!((found.visual.heads, found.text.heads), (Some(16), Some(16)));
        let found = hints(&[FACE], &none, &[(HUGGING_FACE, face)]).unwrap();
        assert_eq!((found.visual.heads, found.text.heads), (Some(16), None));
        // All of it comes along into a file that is written.
        assert_eq!(hints(&[FACE], &found.metadata(), &[]).unwrap().visual, found.visual);
        let error = hints(&[OPENAI], &none, &[(HUGGING_FACE, "not JSON")]).unwrap_err();
        assert!(error.to_string().contains("config.json: JSON: "), "{error}");
    }

    #[test]
    fn another_activation_is_refused_by_name() {
        let both =
            r#"{"model_type": "clip", "text_config": {"hidden_act": "gelu"}, "vision_config": {}}"#;
        let error = hints(&[FACE], &Metadata::new(), &[(HUGGING_FACE, both)]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("text_config.hidden_act: expected the image encoder's, quick_gelu"),
            "{error}"
        );
        let mixed = r#"{"text_config": {"hidden_act": "gelu"},
            "vision_config": {"hidden_act": "quick_gelu", "hidden_size": 64}}"#;
        let error = hints(&[OPENAI], &Metadata::new(), &[(HUGGING_FACE, mixed)]).unwrap_err();
        assert!(error.to_string().contains("text_config.hidden_act: expected the"), "{error}");
        let found = hints(
            &[FACE],
            &Metadata::new(),
            &[(HUGGING_FACE, r#"{"model_type": "clip", "vision_config": {}}"#)],
        );
        assert_eq!(found.unwrap().visual, Attention::default());
        let config = r#"{"model_type": "clip", "vision_config": {"hidden_act": "gelu_new"}}"#;
        let error = hints(&[FACE], &Metadata::new(), &[(HUGGING_FACE, config)]).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("config.json: vision_config.hidden_act: expected")
                && error.contains("gelu_new"),
            "{error}"
        );
    }

    /// Φ by its series, in f64.
    #[test]
    fn the_two_are_what_their_names_say() {
        let normal = |x: f64| {
            let (mut term, mut sum) = (x, x);
            for n in 1..80 {
                term *= -x * x / (2.0 * f64::from(n));
                sum += term / f64::from(2 * n + 1);
            }
            0.5 + sum / (2.0 * std::f64::consts::PI).sqrt()
        };
        for x in [-3.0, -1.0, -0.1, 0.0, 0.5, 2.0] {
            let input = Tensor::from_slice(&[x]);
            let at = |a: Activation| a.forward(&input).double_value(&[0]);
            assert!((at(Activation::Gelu) - x * normal(x)).abs() < 1e-12, "{x}");
            let quick = x / (1.0 + (-1.702 * x).exp());
            assert!((at(Activation::QuickGelu) - quick).abs() < 1e-12, "{x}");
        }
    }
}
