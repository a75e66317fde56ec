//! Images as the network sees them, in a file. With it, two programs can be compared number by number: decoding,
//! resizing and normalising, which may differ, are done already.

use std::path::{Path, PathBuf};

use tch::{Kind, Tensor};

use crate::{
    checkpoint_io::safetensors,
    error::{Error, Result},
    models::network::Network,
};

/// A normalised, padded batch, read from a safetensors file.
#[derive(Debug)]
pub struct StoredBatch {
    /// `[B, 3, H, W]` f32, normalised, zero in the padding.
    pub images: Tensor,
    /// `[B, H, W]` bool, true = padding.
    pub mask: Tensor,
    /// `[B, Q]` i64: the encoder tokens that propose boxes, in order. None: the detector chooses them.
    pub tokens: Option<Tensor>,
    path: PathBuf,
}

const NAMES: &str = "expected `images` [B, 3, H, W] f32 and, if wanted, `mask` [B, H, W] bool (true = \
                     padding) and `tokens` [B, Q] i64 (which encoder tokens propose)";

impl StoredBatch {
    /// Reads a safetensors file with `images`, and perhaps `mask` and `tokens`. Without a mask nothing is
    /// padding.
    ///
    /// # Errors
    /// A file without images or with other tensors, other shapes and kinds, numbers that are not
    /// finite, an image that is padding all over, padding that is not at the right and below, or not
    /// zero.
    pub fn read(path: &Path) -> Result<Self> {
        let (mut tensors, _) = safetensors::read(path)?;
        let wrong = |(field, problem): Wrong| Error::invalid(path, field, problem).with_hint(NAMES);
        let images = checked_images(tensors.remove("images")).map_err(wrong)?;
        let size = images.size();
        let [b, h, w] = [size[0], size[2], size[3]];
        let mask = match tensors.remove("mask") {
            None => Tensor::f_zeros([b, h, w], (Kind::Bool, images.device()))?,
            Some(mask) => mask,
        };
        if let Some(problem) = problem_of_mask(&mask, &images)? {
            return Err(wrong(problem));
        }
        let tokens = tensors.remove("tokens");
        if let Some(problem) = tokens.as_ref().and_then(|tokens| problem_of_tokens(tokens, b)) {
            return Err(wrong(problem));
        }
        if let Some(name) = tensors.keys().next() {
            return Err(wrong((name, "unexpected".into())));
        }
        Ok(Self { images, mask, tokens, path: path.to_owned() })
    }

    /// Checks that the sides of the images are multiples of so many pixels: what a backbone would leave over, an image
    /// would lose.
    ///
    /// # Errors
    /// They are not.
    pub(crate) fn check_sides(&self, multiple: u32) -> Result<()> {
        let size = self.images.size();
        if size[2..].iter().all(|side| side % i64::from(multiple) == 0) {
            return Ok(());
        }
        let problem = format!(
            "expected sides that are multiples of {multiple}, as the detector's backbone needs it, got {}×{}",
            size[2], size[3]
        );
        Err(Error::invalid(&self.path, "images", problem)
            .with_hint("pad the images with zeros at the right and below, and give a mask"))
    }

    /// Checks that a network can take the tokens that propose, if there are some.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn check_proposals(&self, network: &Network) -> Result<()> {
        let Some(tokens) = &self.tokens else { return Ok(()) };
        let size = self.images.size();
        network
            .check_proposals(tokens, [size[2], size[3]])
            .map_err(|problem| Error::invalid(&self.path, "tokens", problem))
    }
}

/// A tensor's name, and what is wrong with it.
type Wrong<'a> = (&'a str, String);

fn checked_images(images: Option<Tensor>) -> std::result::Result<Tensor, Wrong<'static>> {
    let wrong = |problem: String| Err(("images", problem));
    let Some(images) = images else { return wrong("missing".into()) };
    let size = images.size();
    let &[b, 3, h, w] = size.as_slice() else {
        return wrong(format!("expected [B, 3, H, W], got {size:?}"));
    };
    if images.kind() != Kind::Float {
        return wrong(format!("expected [B, 3, H, W] f32, got {size:?} {:?}", images.kind()));
    }
    if b * h * w == 0 {
        return wrong(format!("expected at least one image, [B, 3, H, W] f32, got {size:?}"));
    }
    if images.isfinite().all().int64_value(&[]) == 0 {
        return wrong("holds NaN or infinite values".into());
    }
    Ok(images)
}

/// Padding is at the right and below alone, and zero in the images.
fn problem_of_mask(mask: &Tensor, images: &Tensor) -> Result<Option<Wrong<'static>>> {
    let size = images.size();
    let [b, h, w] = [size[0], size[2], size[3]];
    if mask.size() != [b, h, w] || mask.kind() != Kind::Bool {
        let (size, kind) = (mask.size(), mask.kind());
        return Ok(Some(("mask", format!("expected [{b}, {h}, {w}] Bool, got {size:?} {kind:?}"))));
    }
    // An image lies at the top left: one that does not begin there is padding all over.
    let corner = mask.narrow(1, 0, 1).narrow(2, 0, 1);
    if corner.any().int64_value(&[]) != 0 {
        return Ok(Some(("mask", "an image's first pixel is padding".into())));
    }
    let along = |axis: i64, side: i64| {
        let cells = Tensor::arange(side, (Kind::Int64, mask.device()));
        let valid = mask.select(3 - axis, 0).logical_not();
        let count = valid.sum_dim_intlist([1i64].as_slice(), true, Kind::Int64); // [B, 1]
        cells.unsqueeze(0).ge_tensor(&count) // [B, side]
    };
    let rectangles = along(1, h).unsqueeze(2).logical_or(&along(2, w).unsqueeze(1));
    let first = |wrong: &Tensor| -> Result<Option<usize>> {
        let images = Vec::<bool>::try_from(wrong.flatten(1, -1).any_dim(1, false))?;
        Ok(images.iter().position(|wrong| *wrong))
    };
    if let Some(i) = first(&rectangles.not_equal_tensor(mask))? {
        let expected = "expected padding at the right and below alone";
        return Ok(Some(("mask", format!("image {i}: {expected}"))));
    }
    if let Some(i) = first(&images.ne(0.0).logical_and(&mask.unsqueeze(1)))? {
        return Ok(Some(("images", format!("image {i}: expected zeros in the padding"))));
    }
    Ok(None)
}

/// Tokens are numbers from 0, as many for each of the `b` images.
fn problem_of_tokens(tokens: &Tensor, b: i64) -> Option<Wrong<'static>> {
    let (size, kind) = (tokens.size(), tokens.kind());
    if !(size.len() == 2 && size[0] == b && size[1] > 0 && kind == Kind::Int64) {
        return Some(("tokens", format!("expected [{b}, Q] Int64, got {size:?} {kind:?}")));
    }
    if tokens.min().int64_value(&[]) < 0 {
        return Some(("tokens", "expected numbers of tokens, got a negative one".into()));
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::models::dino::DinoConfig;
    use std::collections::BTreeMap;
    use tch::Device;

    fn read(tensors: &[(&str, Tensor)]) -> Result<StoredBatch> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in.safetensors");
        let tensors: BTreeMap<String, Tensor> =
            tensors.iter().map(|(k, v)| ((*k).to_owned(), v.shallow_clone())).collect();
        safetensors::write(&path, &tensors, &safetensors::Metadata::new()).unwrap();
        StoredBatch::read(&path)
    }

    fn zeros(shape: &[i64], kind: Kind) -> Tensor {
        Tensor::zeros(shape, (kind, Device::Cpu))
    }

    #[test]
    fn a_mask_is_optional_and_means_no_padding() {
        let batch = read(&[("images", zeros(&[2, 3, 4, 6], Kind::Float))]).unwrap();
        assert_eq!(batch.mask, zeros(&[2, 4, 6], Kind::Bool));
        assert!(batch.tokens.is_none());
    }

    #[test]
    fn sides_are_what_the_backbone_needs() {
        let batch = read(&[("images", zeros(&[1, 3, 56, 84], Kind::Float))]).unwrap();
        assert!(batch.check_sides(1).is_ok() && batch.check_sides(28).is_ok());
        let error = batch.check_sides(32).unwrap_err().to_string();
        assert!(error.contains("images: expected sides that are multiples of 32"), "{error}");
        assert!(error.contains("got 56×84"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let images = || ("images", zeros(&[1, 3, 4, 6], Kind::Float));
        let of = |value: f64| Tensor::full([1, 3, 4, 6], value, (Kind::Float, Device::Cpu));
        let tokens = |values: &[i64]| ("tokens", Tensor::from_slice(values).view([1, -1]));
        let masked = |rows: i64, columns: i64| {
            let mask = zeros(&[1, 4, 6], Kind::Bool);
            let _ = mask.narrow(1, 4 - rows, rows).narrow(2, 6 - columns, columns).fill_(1);
            mask
        };
        let (hole, below) = (|| masked(1, 1), || masked(2, 6));
        assert!(read(&[images(), ("mask", below())]).is_ok());
        let far = read(&[images(), tokens(&[1, 4])]).unwrap();
        let long = read(&[images(), tokens(&[0; 901])]).unwrap();
        let check = |batch: &StoredBatch| {
            let size = batch.images.size();
            let tokens = batch.tokens.as_ref().unwrap();
            let checked = DinoConfig::default().check_tokens(tokens, [size[2], size[3]]);
            Error::invalid(&batch.path, "tokens", checked.unwrap_err())
        };
        let cases = [
            (read(&[]).unwrap_err(), "images: missing"),
            (read(&[("images", zeros(&[3, 4, 6], Kind::Float))]).unwrap_err(), "got [3, 4, 6]"),
            (read(&[("images", zeros(&[1, 3, 4, 6], Kind::Half))]).unwrap_err(), "Half"),
            (
                read(&[("images", zeros(&[1, 3, 0, 6], Kind::Float))]).unwrap_err(),
                "expected at least one image",
            ),
            (read(&[("images", of(f64::NAN))]).unwrap_err(), "NaN"),
            (read(&[images(), ("mask", zeros(&[1, 4, 5], Kind::Bool))]).unwrap_err(), "[1, 4, 6]"),
            (
                read(&[images(), ("mask", zeros(&[1, 4, 6], Kind::Bool).logical_not())])
                    .unwrap_err(),
                "first pixel is padding",
            ),
            (
                read(&[images(), ("mask", hole())]).unwrap_err(),
                "mask: image 0: expected padding at",
            ),
            (
                read(&[("images", of(0.5)), ("mask", below())]).unwrap_err(),
                "images: image 0: expected zeros in the padding",
            ),
            (read(&[images(), tokens(&[1, -1])]).unwrap_err(), "negative"),
            (read(&[images(), ("token", zeros(&[1], Kind::Int64))]).unwrap_err(), "unexpected"),
            (check(&long), "expected at most 900, the detector's queries, got 901"),
            // One token a level.
            (check(&far), "expected numbers below 4"),
        ];
        for (error, part) in cases {
            let message = error.to_string();
            assert!(message.contains("in.safetensors") && message.contains(part), "{message}");
        }
    }
}
