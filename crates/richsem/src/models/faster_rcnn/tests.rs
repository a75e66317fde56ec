//! Backbones whose maps have other strides than a ResNet's.

#![allow(clippy::unwrap_used)]

use tch::{Device, Kind, Tensor};

use super::*;
use crate::{
    models::backbone::{VitConfig, VitName},
    testing::normal,
};

/// Maps, anchors and pooled boxes of patches of 14 and 32 pixels.
#[test]
fn anchors_and_boxes_lie_where_the_backbones_strides_say() {
    for (name, finest, [h, w]) in
        [(VitName::Dinov2S, 3.5, [56i64, 84]), (VitName::ClipVitB32, 8.0, [64, 128])]
    {
        let vit = VitConfig {
            name,
            width: Some(16),
            depth: Some(1),
            heads: Some(2),
            position_grid: Some(3),
            pyramid_width: 8,
            ..VitConfig::default()
        };
        let config = FasterRcnnConfig {
            backbone: vit.into(),
            fpn_dim: 8,
            roi: RoiConfig { dim: 8, ..RoiConfig::default() },
            ..FasterRcnnConfig::default()
        };
        let store = ParameterStore::new(Device::Cpu, 3);
        let network = FasterRcnn::new(&store, &config, ClassSpace::Classes(3)).unwrap();
        let pixels = normal(1, &[1, 3, h, w]);
        let mask = Tensor::zeros([1, h, w], (Kind::Bool, Device::Cpu));
        let images = Images::new(&pixels, &mask);
        let features = network.features(images, false).unwrap();
        let output = network.rpn(&features).unwrap();
        let (mut from, mut stride) = (0, finest);
        for (level, map) in features.pyramid().iter().enumerate() {
            let sides = [h, w].map(|side| (side as f64 / stride).ceil() as i64);
            assert_eq!(map.size()[2..], sides, "{name:?} P{}", level + 2);
            // The second anchor of a cell is a square; of the last cell of the first row.
            let at = from + 3 * (sides[1] - 1) + 1;
            let corners =
                Vec::<f64>::try_from(output.anchors.get(at).to_kind(Kind::Double)).unwrap();
            let middle = [(corners[0] + corners[2]) / 2.0, (corners[1] + corners[3]) / 2.0];
            let expected = [stride * (sides[1] - 1) as f64, 0.0];
            assert!((middle[0] - expected[0]).abs() < 1e-4 && middle[1].abs() < 1e-4, "{middle:?}");
            from += output.counts[level];
            stride *= 2.0;
        }
        // Detections lie in the image.
        let found = network.infer(images, None).unwrap();
        let most = found.boxes.amax([0, 1], false);
        assert!(found.scores.isfinite().all().int64_value(&[]) == 1);
        assert!(most.max().double_value(&[]) <= w as f64 && most.double_value(&[3]) <= h as f64);
    }
}
