//! Translates the key names of open_clip and Hugging Face to OpenAI's.

use std::{collections::BTreeMap, path::Path};

use tch::Tensor;

use crate::{
    checkpoint_io::prefix::{self, Known},
    error::{Error, Result},
};

/// Prefixes of Hugging Face's names (`transformers`, `CLIPModel`) and OpenAI's for the same.
const PREFIXES: [(&str, &str); 12] = [
    ("text_model.embeddings.token_embedding.", "token_embedding."),
    ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
    ("text_model.encoder.layers.", "transformer.resblocks."),
    ("text_model.final_layer_norm.", "ln_final."),
    ("vision_model.embeddings.class_embedding", "visual.class_embedding"),
    ("vision_model.embeddings.patch_embedding.", "visual.conv1."),
    ("vision_model.embeddings.position_embedding.weight", "visual.positional_embedding"),
    ("vision_model.encoder.layers.", "visual.transformer.resblocks."),
    // Sic: the library's own spelling.
    ("vision_model.pre_layrnorm.", "visual.ln_pre."),
    ("vision_model.post_layernorm.", "visual.ln_post."),
    ("text_projection.weight", "text_projection"),
    ("visual_projection.weight", "visual.proj"),
];

/// Parts of names inside a block.
const PARTS: [(&str, &str); 5] = [
    (".layer_norm1.", ".ln_1."),
    (".layer_norm2.", ".ln_2."),
    (".mlp.fc1.", ".mlp.c_fc."),
    (".mlp.fc2.", ".mlp.c_proj."),
    (".self_attn.out_proj.", ".attn.out_proj."),
];

/// Not weights: settings in OpenAI's archives, counters, positions.
const BESIDE: [&str; 6] = [
    "input_resolution",
    "context_length",
    "vocab_size",
    "num_batches_tracked",
    "position_ids",
    "attn_mask",
];

/// Whether a tensor is not a weight, but a setting, a counter or positions.
pub(crate) fn is_beside(name: &str) -> bool {
    BESIDE.iter().any(|b| name.rsplit('.').next() == Some(b))
}

/// The tensors under OpenAI's names, from OpenAI's, open_clip's or Hugging Face's, wherever in the file
/// they are. What is no weight is left out; what is unknown keeps its name.
///
/// # Errors
/// More than one CLIP in the file; an attention without all of its projections q, k and v, or whose
/// projections do not fit together.
pub fn to_openai(
    weights: BTreeMap<String, Tensor>,
    path: &Path,
) -> Result<BTreeMap<String, Tensor>> {
    let weights = prefix::find(weights, &[Known::Clip], path)?.tensors;
    let hugging_face = weights.keys().any(|k| k.starts_with("vision_model."));
    let mut renamed = BTreeMap::new();
    // "prefix.attn.in_proj_weight" → its q, k, v.
    let mut split: BTreeMap<String, [Option<Tensor>; 3]> = BTreeMap::new();
    for (name, tensor) in weights {
        if is_beside(&name) {
            continue;
        }
        if !hugging_face {
            // open_clip's CustomTextCLIP keeps the text encoder under a name of its own.
            let name = name.strip_prefix("text.").map(str::to_owned).unwrap_or(name);
            renamed.insert(name, tensor);
            continue;
        }
        let transposed = matches!(&*name, "text_projection.weight" | "visual_projection.weight");
        let mut name = name;
        if let Some((old, new)) = PREFIXES.iter().find(|(old, _)| name.starts_with(old)) {
            name = format!("{new}{}", &name[old.len()..]);
        }
        for (old, new) in PARTS {
            name = name.replace(old, new);
        }
        let part = ["q", "k", "v"].iter().enumerate().find_map(|(i, p)| {
            let (block, rest) = name.split_once(&format!(".self_attn.{p}_proj."))?;
            Some((i, format!("{block}.attn.in_proj_{rest}")))
        });
        match part {
            Some((i, whole)) => split.entry(whole).or_default()[i] = Some(tensor),
            None if transposed && tensor.dim() == 2 => {
                renamed.insert(name, tensor.transpose(0, 1));
            }
            None => {
                renamed.insert(name, tensor);
            }
        }
    }
    for (whole, parts) in split {
        let [Some(q), Some(k), Some(v)] = parts else {
            let problem = "expected the projections q, k and v, got some of them";
            return Err(Error::invalid(path, whole, problem).with_hint("the file is incomplete"));
        };
        let joined = Tensor::f_cat(&[q, k, v], 0)
            .map_err(|_| Error::invalid(path, whole.clone(), "q, k and v have other shapes"))?;
        renamed.insert(whole, joined);
    }
    Ok(renamed)
}
