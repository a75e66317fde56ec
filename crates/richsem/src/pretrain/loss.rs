//! The contrastive loss of CLIP (arXiv 2103.00020, figure 3), for captions that may be equal.

use tch::{Kind, Tensor};

/// Symmetric cross-entropy between images and captions: each image should find its caption
/// among the batch's, each caption its image. Images with the same caption are each other's
/// positives, in equal shares (as in UniCL, arXiv 2204.03610, before its sum): told apart, they
/// would be false negatives. With n equal captions the least loss is therefore ln n, not 0.
///
/// # Shapes
/// `images` and `texts` `[N, D]`, of length one; `captions` `[N]` i64, equal where the captions are;
/// `logit_scale` a scalar, the logarithm of the factor on the cosines → a scalar
pub fn contrastive_loss(
    images: &Tensor,
    texts: &Tensor,
    captions: &Tensor,
    logit_scale: &Tensor,
) -> Tensor {
    let logits = images.matmul(&texts.transpose(0, 1)) * logit_scale.exp(); // [N, N]
    let same = captions.unsqueeze(0).eq_tensor(&captions.unsqueeze(1)).to_kind(logits.kind());
    // Symmetric, so that its rows sum to one as its columns do.
    let targets = &same / same.sum_dim_intlist([1i64].as_slice(), true, None);
    let one_way = |logits: &Tensor| {
        let log = logits.log_softmax(1, None::<Kind>);
        -(log * &targets).sum_dim_intlist([1i64].as_slice(), false, None).mean(None::<Kind>)
    };
    (one_way(&logits) + one_way(&logits.transpose(0, 1))) / 2.0
}
