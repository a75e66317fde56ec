use tch::{Device, Kind};

use super::*;
use crate::{models::parameters::ParameterStore, teacher::clip::Clip};

/// ViT-H, g and bigG of open_clip: heads of 80, 88 and 104 channels.
#[test]
fn wider_published_models_have_wider_heads() {
    for (width, heads) in [(1024, 16), (1280, 16), (1408, 16), (1664, 16)] {
        let shape =
            |sides: &[i64]| Tensor::zeros(sides, (Kind::Float, Device::Cpu)).shallow_clone();
        let weights: BTreeMap<String, Tensor> = [
            ("visual.conv1.weight", vec![width, 3, 14, 14]),
            ("visual.class_embedding", vec![width]),
            ("visual.positional_embedding", vec![257, width]),
            ("visual.proj", vec![width, 1024]),
            ("visual.transformer.resblocks.0.mlp.c_fc.weight", vec![4 * width, 1]),
        ]
        .into_iter()
        .map(|(name, sides)| (name.to_owned(), shape(&sides)))
        .collect();
        let config = ClipConfig::from_weights(&weights, &Hints::default(), "w".as_ref()).unwrap();
        let VisualConfig::Vit { heads: got, .. } = config.visual else { panic!("no ViT") };
        assert_eq!(got, heads, "{width}");
    }
}

/// Width, depth and resolution of OpenAI's models are found again in the shapes of their tensors.
#[test]
fn published_sizes_are_read_off_the_shapes() {
    let resnet = |width, layers: [i64; 4], resolution| VisualConfig::Resnet {
        backbone: ResnetConfig {
            name: ResnetName::ClipResnet,
            width,
            layers: layers.to_vec(),
            norm: Norm::FrozenBn,
            frozen_stages: -1,
            ..ResnetConfig::default()
        },
        resolution,
        heads: width / 2,
    };
    let vit = |width, layers, patch, resolution| VisualConfig::Vit {
        width,
        layers,
        patch,
        resolution,
        heads: width / 64,
        hidden: 4 * width,
        activation: Activation::QuickGelu,
    };
    // Sizes and counts are open_clip 3.3's: `get_model_config(name)`, and the parameters of
    // `create_model(name).visual` with the running statistics of its batch norms.
    for (name, visual, embed_dim, count) in [
        ("RN50", resnet(64, [3, 4, 6, 3], 224), 1024, 38_370_144),
        ("RN101", resnet(64, [3, 4, 23, 3], 224), 512, 56_365_408),
        ("RN50x4", resnet(80, [4, 6, 10, 6], 288), 640, 87_246_840),
        ("RN50x16", resnet(96, [6, 8, 18, 8], 384), 768, 167_522_832),
        ("RN50x64", resnet(128, [3, 15, 36, 10], 448), 1024, 420_790_976),
        ("ViT-B/32", vit(768, 12, 32, 224), 512, 87_849_216),
        ("ViT-B/16", vit(768, 12, 16, 224), 512, 86_192_640),
        ("ViT-L/14", vit(1024, 24, 14, 224), 768, 303_966_208),
    ] {
        let text = TextConfig {
            context_length: 77,
            vocabulary: 99,
            width: 64,
            layers: 1,
            heads: 1,
            hidden: 256,
            activation: Activation::QuickGelu,
        };
        let config = ClipConfig { visual, text: Some(text), embed_dim };
        let store = ParameterStore::to_be_loaded(Device::Cpu);
        let _ = Clip::new(&store.root(), &config);
        let weights = store.named_tensors();
        assert_eq!(
            ClipConfig::from_weights(&weights, &Hints::default(), name.as_ref()).unwrap(),
            config,
            "{name}"
        );
        let of_image = weights.iter().filter(|(name, _)| name.starts_with("visual."));
        assert_eq!(of_image.map(|(_, t)| t.numel()).sum::<usize>(), count, "{name}");
    }
}
