//! The published plain vision transformers, and what sets each family apart.

use serde::{Deserialize, Serialize};

/// Plain vision transformers that were pretrained alike. A family has its own tokens, positions and names of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VitFamily {
    /// ViTDet (arXiv 2203.16527), pretrained by MAE: windows and relative positions.
    Vitdet,
    /// DINOv2 (arXiv 2304.07193), also with registers (arXiv 2309.16588).
    Dinov2,
    /// DINOv3 (arXiv 2508.10104): rotary positions, registers.
    Dinov3,
    /// EVA-02 (arXiv 2303.11331): windows and rotary positions.
    Eva02,
    /// CLIP's image encoder (arXiv 2103.00020).
    Clip,
}

impl VitFamily {
    /// Whether a class token, which sees and is seen by every patch, runs with the patches.
    pub(super) fn class_token(self) -> bool {
        matches!(self, Self::Dinov2 | Self::Dinov3 | Self::Clip)
    }

    /// Whether a table of positions is added to the patches.
    pub(super) fn table(self) -> bool {
        self != Self::Dinov3
    }

    /// Of all norms of the transformer.
    pub(super) fn eps(self) -> f64 {
        match self {
            Self::Dinov3 | Self::Clip => 1e-5,
            Self::Vitdet | Self::Dinov2 | Self::Eva02 => 1e-6,
        }
    }

    /// The initial scale of each branch, where branches are scaled channel by channel.
    pub(super) fn layer_scale(self) -> Option<f64> {
        matches!(self, Self::Dinov2 | Self::Dinov3).then_some(1e-5)
    }

    /// Whether a norm ends the transformer. Those who take DINOv2's and DINOv3's patches take them behind it;
    /// CLIP's is for the class token alone.
    pub(super) fn last_norm(self) -> bool {
        matches!(self, Self::Dinov2 | Self::Dinov3)
    }

    /// Whether keys have a bias, as queries and values have.
    pub(crate) fn key_bias(self) -> bool {
        !matches!(self, Self::Dinov3 | Self::Eva02)
    }

    /// Side of the windows, in patches; none where all patches see each other.
    pub(super) fn window(self) -> Option<i64> {
        match self {
            Self::Vitdet => Some(14),
            Self::Eva02 => Some(16),
            Self::Dinov2 | Self::Dinov3 | Self::Clip => None,
        }
    }

    /// Registers of the published models; none where there can be none.
    pub(super) fn registers(self) -> Option<i64> {
        match self {
            Self::Dinov2 => Some(0),
            Self::Dinov3 => Some(4),
            Self::Vitdet | Self::Eva02 | Self::Clip => None,
        }
    }

    /// Whether every block has the full rate of drop path; in others it rises from block to block.
    pub(super) fn uniform_drop_path(self) -> bool {
        self == Self::Dinov3
    }

    /// Side of the images of pretraining, in pixels: those that the table of positions is for.
    fn resolution(self) -> i64 {
        if self == Self::Dinov2 { 518 } else { 224 }
    }
}

/// Kind of vision transformer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VitName {
    /// 768 channels, 12 blocks, 12 heads.
    VitdetB,
    /// 1024 channels, 24 blocks, 16 heads.
    VitdetL,
    /// 1280 channels, 32 blocks, 16 heads.
    VitdetH,
    /// 384 channels, 12 blocks, 6 heads, patches of 14 pixels.
    Dinov2S,
    /// 768 channels, 12 blocks, 12 heads, patches of 14 pixels.
    Dinov2B,
    /// 1024 channels, 24 blocks, 16 heads, patches of 14 pixels.
    Dinov2L,
    /// 1536 channels, 40 blocks, 24 heads, patches of 14 pixels, gated.
    Dinov2G,
    /// 384 channels, 12 blocks, 6 heads.
    Dinov3S,
    /// 384 channels, 12 blocks, 6 heads, gated.
    Dinov3SPlus,
    /// 768 channels, 12 blocks, 12 heads.
    Dinov3B,
    /// 1024 channels, 24 blocks, 16 heads.
    Dinov3L,
    /// 1024 channels, 24 blocks, 16 heads, gated.
    Dinov3LPlus,
    /// 1280 channels, 32 blocks, 20 heads, gated.
    Dinov3HPlus,
    /// 4096 channels, 40 blocks, 32 heads, gated, without biases of queries and values.
    Dinov3_7b,
    /// 192 channels, 12 blocks, 3 heads.
    Eva02T,
    /// 384 channels, 12 blocks, 6 heads.
    Eva02S,
    /// 768 channels, 12 blocks, 12 heads.
    Eva02B,
    /// 1024 channels, 24 blocks, 16 heads.
    Eva02L,
    /// 768 channels, 12 blocks, 12 heads, patches of 32 pixels.
    ClipVitB32,
    /// 768 channels, 12 blocks, 12 heads.
    ClipVitB16,
    /// 1024 channels, 24 blocks, 16 heads, patches of 14 pixels.
    ClipVitL14,
}

impl VitName {
    /// All of them, by family, smallest first.
    pub const ALL: [Self; 21] = [
        Self::VitdetB,
        Self::VitdetL,
        Self::VitdetH,
        Self::Dinov2S,
        Self::Dinov2B,
        Self::Dinov2L,
        Self::Dinov2G,
        Self::Dinov3S,
        Self::Dinov3SPlus,
        Self::Dinov3B,
        Self::Dinov3L,
        Self::Dinov3LPlus,
        Self::Dinov3HPlus,
        Self::Dinov3_7b,
        Self::Eva02T,
        Self::Eva02S,
        Self::Eva02B,
        Self::Eva02L,
        Self::ClipVitB32,
        Self::ClipVitB16,
        Self::ClipVitL14,
    ];

    /// Name, family, and channels, blocks and attention heads.
    fn published(self) -> (&'static str, VitFamily, [i64; 3]) {
        use VitFamily::{Clip, Dinov2, Dinov3, Eva02, Vitdet};
        match self {
            Self::VitdetB => ("vitdet_b", Vitdet, [768, 12, 12]),
            Self::VitdetL => ("vitdet_l", Vitdet, [1024, 24, 16]),
            Self::VitdetH => ("vitdet_h", Vitdet, [1280, 32, 16]),
            Self::Dinov2S => ("dinov2_s", Dinov2, [384, 12, 6]),
            Self::Dinov2B => ("dinov2_b", Dinov2, [768, 12, 12]),
            Self::Dinov2L => ("dinov2_l", Dinov2, [1024, 24, 16]),
            Self::Dinov2G => ("dinov2_g", Dinov2, [1536, 40, 24]),
            Self::Dinov3S => ("dinov3_s", Dinov3, [384, 12, 6]),
            Self::Dinov3SPlus => ("dinov3_s_plus", Dinov3, [384, 12, 6]),
            Self::Dinov3B => ("dinov3_b", Dinov3, [768, 12, 12]),
            Self::Dinov3L => ("dinov3_l", Dinov3, [1024, 24, 16]),
            Self::Dinov3LPlus => ("dinov3_l_plus", Dinov3, [1024, 24, 16]),
            Self::Dinov3HPlus => ("dinov3_h_plus", Dinov3, [1280, 32, 20]),
            Self::Dinov3_7b => ("dinov3_7b", Dinov3, [4096, 40, 32]),
            Self::Eva02T => ("eva02_t", Eva02, [192, 12, 3]),
            Self::Eva02S => ("eva02_s", Eva02, [384, 12, 6]),
            Self::Eva02B => ("eva02_b", Eva02, [768, 12, 12]),
            Self::Eva02L => ("eva02_l", Eva02, [1024, 24, 16]),
            Self::ClipVitB32 => ("clip_vit_b32", Clip, [768, 12, 12]),
            Self::ClipVitB16 => ("clip_vit_b16", Clip, [768, 12, 12]),
            Self::ClipVitL14 => ("clip_vit_l14", Clip, [1024, 24, 16]),
        }
    }

    /// The name in settings files, as `vitdet_b`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.published().0
    }

    /// What it was pretrained as.
    #[must_use]
    pub fn family(self) -> VitFamily {
        self.published().1
    }

    /// Channels, blocks and attention heads of the published model.
    #[must_use]
    pub fn sizes(self) -> [i64; 3] {
        self.published().2
    }

    /// Side of a patch of the published model, in pixels. EVA-02's is that of its detectors.
    #[must_use]
    pub fn patch(self) -> i64 {
        match (self.family(), self) {
            (VitFamily::Dinov2, _) | (_, Self::ClipVitL14) => 14,
            (_, Self::ClipVitB32) => 32,
            _ => 16,
        }
    }

    /// Side of the square that the published table of positions is for, of such patches.
    pub(super) fn position_grid(self, patch: i64) -> i64 {
        self.family().resolution() / patch
    }

    /// Whether the MLP of a block is gated (SwiGLU).
    #[must_use]
    pub fn gated(self) -> bool {
        match self {
            Self::Dinov2G
            | Self::Dinov3SPlus
            | Self::Dinov3LPlus
            | Self::Dinov3HPlus
            | Self::Dinov3_7b => true,
            _ => self.family() == VitFamily::Eva02,
        }
    }

    /// Features within the MLP of a block of that width, as the published model has them.
    pub(crate) fn hidden(self, width: i64) -> i64 {
        match self {
            // Two thirds of four widths: as many numbers as without a gate. For DINOv2 rounded up to whole eights.
            Self::Dinov2G => (8 * width / 3 + 7) / 8 * 8,
            _ if self.family() == VitFamily::Eva02 => 8 * width / 3,
            Self::Dinov3_7b => 2 * width,
            _ => 4 * width,
        }
    }

    /// Whether a norm lies within the gated MLP.
    #[must_use]
    pub fn normed_mlp(self) -> bool {
        matches!(self, Self::Eva02B | Self::Eva02L)
    }

    /// Whether queries and values have a bias in the published model.
    pub(super) fn qkv_bias(self) -> bool {
        self != Self::Dinov3_7b
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_in_files_are_those_of_messages() {
        for name in VitName::ALL {
            let text = toml::Value::try_from(name).unwrap();
            assert_eq!(text.as_str(), Some(name.name()));
        }
    }

    /// HF's `config.json` files: `intermediate_size` of dinov3-vits16plus, -vith16plus and -vit7b16; timm's
    /// `eva02_large_patch14_448` (2730), `eva02_base` (2048), DINOv2's `SwiGLUFFNFused` of g (4096).
    #[test]
    fn gated_models_have_the_published_features() {
        for (name, hidden) in [
            (VitName::Dinov2G, 4096),
            (VitName::Dinov3SPlus, 1536),
            (VitName::Dinov3HPlus, 5120),
            (VitName::Dinov3_7b, 8192),
            (VitName::Eva02T, 512),
            (VitName::Eva02B, 2048),
            (VitName::Eva02L, 2730),
        ] {
            assert!(name.gated());
            assert_eq!(name.hidden(name.sizes()[0]), hidden, "{}", name.name());
        }
        assert_eq!(VitName::Dinov3B.hidden(768), 3072);
    }

    #[test]
    fn tables_of_positions_are_of_the_images_of_pretraining() {
        for (name, patch, grid) in [
            (VitName::VitdetB, 16, 14),
            (VitName::Dinov2B, 14, 37),
            (VitName::Eva02B, 16, 14),
            (VitName::Eva02B, 14, 16),
            (VitName::ClipVitB32, 32, 7),
            (VitName::ClipVitL14, 14, 16),
        ] {
            assert_eq!(name.position_grid(patch), grid, "{}", name.name());
        }
    }
}
