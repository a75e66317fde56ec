//! Backbones and CLIPs alone.

use richsem::{
    checkpoint_io::{pth, safetensors},
    convert::Form,
    models::{
        backbone::{Resnet, ResnetConfig, Swin, SwinConfig, Vit, VitConfig, VitName},
        parameters::ParameterStore,
    },
    testing::normal,
};
use tch::{Device, Kind, Tensor};

use crate::support::*;

/// A small Swin Transformer, as Hugging Face's files have it.
fn swin_of_hugging_face(own: &Tensors) -> Tensors {
    let mut theirs = Tensors::new();
    for (name, tensor) in own.iter().filter(|(name, _)| !name.starts_with("norm")) {
        let name = name
            .replace("patch_embed.proj", "embeddings.patch_embeddings.projection")
            .replace("patch_embed.norm", "embeddings.norm")
            .replace("layers.", "encoder.layers.")
            .replace(".norm1.", ".layernorm_before.")
            .replace(".norm2.", ".layernorm_after.")
            .replace(".mlp.fc1.", ".intermediate.dense.")
            .replace(".mlp.fc2.", ".output.dense.")
            .replace(".attn.proj.", ".attention.output.dense.")
            .replace(".attn.relative_", ".attention.self.relative_");
        let name = format!("swin.{name}");
        if !name.contains(".attn.qkv.") {
            theirs.insert(name, tensor.copy());
            continue;
        }
        for (part, values) in ["query", "key", "value"].iter().zip(tensor.chunk(3, 0)) {
            theirs.insert(name.replace("attn.qkv", &format!("attention.self.{part}")), values);
        }
    }
    theirs
}

#[test]
fn other_backbones_get_our_names_and_what_is_wrong_is_named() {
    let folder = Folder::new();
    let config = SwinConfig {
        width: Some(8),
        head_width: 4,
        window: Some(3),
        layers: vec![1, 2, 1, 1],
        ..Default::default()
    };
    let store = ParameterStore::new(Device::Cpu, 1);
    let _ = Swin::new(&store.root(), &config, &[]);
    let own = store.named_tensors();
    let mut theirs = swin_of_hugging_face(&own);
    theirs.insert("classifier.weight".into(), normal(1, &[5, 64]));
    theirs.insert("swin.layernorm.weight".into(), normal(2, &[64]));
    let index = "swin.encoder.layers.0.blocks.0.attention.self.relative_position_index";
    theirs.insert(index.into(), Tensor::zeros([9, 9], (Kind::Int64, Device::Cpu)));
    let path = folder.path("model.safetensors");
    let write = |tensors: &Tensors| {
        safetensors::write(&path, tensors, &safetensors::Metadata::new()).unwrap();
        converted(&path, Form::Safetensors, &options(None)).unwrap()
    };
    let conversion = write(&theirs);
    assert_eq!(problems(&conversion), [""; 0]);
    let output = folder.path("swin.safetensors");
    conversion.write(&output).unwrap();
    assert_same(&safetensors::read(&output).unwrap().0, &own);
    assert_eq!(conversion.rest.len(), 2);
    let notes = conversion.report.notes.join("; ");
    assert!(
        notes.contains("norms of the outputs") && notes.contains("swin_t, window 3"),
        "{notes}"
    );
    let facts = richsem::info::info(&path).unwrap();
    let what = ("what".to_owned(), "a Swin Transformer with Hugging Face's names".to_owned());
    assert!(facts.contains(&what), "{facts:?}");
    assert!(facts.iter().any(|(name, value)| name == "sizes" && value.contains("window 3")));
    // Half a joined layer, a shape of another size, and a name that nobody knows.
    let key = "swin.encoder.layers.1.blocks.0.attention.self.key.bias";
    theirs.remove(key);
    theirs.insert("swin.encoder.layers.2.downsample.norm.bias".into(), normal(3, &[7]));
    theirs.insert("swin.encoder.adapter.weight".into(), normal(4, &[7]));
    let told = problems(&write(&theirs)).join("; ");
    for part in [
        "missing layers.1.blocks.0.attn.qkv.bias",
        "unexpected encoder.layers.1.blocks.0.attention.self.query.bias",
        "layers.2.downsample.norm.bias: shape [7] in the file, [128] here",
        "unexpected adapter.weight",
    ] {
        assert!(told.contains(part), "no `{part}` in {told}");
    }
}

/// DINOv3's own file: the keys' bias is hidden by a mask, rotary positions are a buffer.
#[test]
fn a_vision_transformer_gets_our_names_and_all_else_is_told() {
    let folder = Folder::new();
    let config = VitConfig {
        name: VitName::Dinov3SPlus,
        width: Some(64),
        depth: Some(2),
        heads: Some(1),
        ..Default::default()
    };
    let store = ParameterStore::new(Device::Cpu, 1);
    let _ = Vit::new(&store.root(), &config, &[]);
    let own = store.named_tensors();
    let mut theirs = Tensors::new();
    for (name, tensor) in &own {
        let name = name.strip_prefix("net.").unwrap().replace("register_tokens", "storage_tokens");
        if name.contains("w12") {
            for (part, values) in ["w1", "w2"].iter().zip(tensor.chunk(2, 0)) {
                theirs.insert(name.replace("w12", part), values);
            }
            continue;
        }
        if name.ends_with("attn.qkv.bias") {
            theirs.insert(format!("{name}_mask"), tensor.ones_like());
        }
        theirs.insert(name, tensor.copy());
    }
    theirs.insert("mask_token".into(), normal(1, &[1, 64]));
    theirs.insert("rope_embed.periods".into(), normal(2, &[16]));
    let path = folder.path("dinov3.pth");
    pth::write(&path, None, &theirs).unwrap();
    let conversion = converted(&path, Form::Safetensors, &options(None)).unwrap();
    assert_eq!(problems(&conversion), [""; 0]);
    assert_eq!(conversion.rest.len(), 4);
    let output = folder.path("dinov3.safetensors");
    conversion.write(&output).unwrap();
    assert_same(&safetensors::read(&output).unwrap().0, &own);
    // What was written is known again.
    for (file, whose) in [(&path, "official"), (&output, "official")] {
        let facts = richsem::info::info(file).unwrap();
        let what = ("what".to_owned(), format!("DINOv3 with the {whose} code's names"));
        assert!(facts.contains(&what), "{facts:?}");
        let sizes = ("sizes".to_owned(), "dinov3_s_plus, width 64, depth 2, heads 1".to_owned());
        assert!(facts.contains(&sizes), "{facts:?}");
    }
    theirs.remove("blocks.1.mlp.w3.weight");
    theirs.insert("blocks.1.mlp.w4.weight".into(), normal(3, &[7]));
    pth::write(&path, None, &theirs).unwrap();
    let told = problems(&converted(&path, Form::Safetensors, &options(None)).unwrap()).join("; ");
    for part in ["missing net.blocks.1.mlp.w3.weight", "unexpected net.blocks.1.mlp.w4.weight"] {
        assert!(told.contains(part), "no `{part}` in {told}");
    }
}

#[test]
fn backbones_and_clips_are_checked_and_cut() {
    let folder = Folder::new();
    let store = ParameterStore::new(Device::Cpu, 1);
    let config = ResnetConfig { width: 8, ..Default::default() };
    let _ = Resnet::new(&store.root(), &config);
    let backbone = store.named_tensors();
    let mut whole = backbone.iter().map(|(k, v)| (k.clone(), v.copy())).collect::<Tensors>();
    // MIIL's 21k, as timm names it.
    whole.insert("fc.weight".into(), normal(1, &[11221, 4]));
    whole.insert("bn1.num_batches_tracked".into(), Tensor::from(7i64));
    let path = folder.path("backbone.pth");
    pth::write(&path, Some("model"), &whole).unwrap();
    let conversion = converted(&path, Form::Safetensors, &options(None)).unwrap();
    assert_eq!(problems(&conversion), [""; 0]);
    let output = folder.path("backbone.safetensors");
    conversion.write(&output).unwrap();
    assert_same(&safetensors::read(&output).unwrap().0, &backbone);
    assert_eq!(conversion.rest.len(), 2);
    // ResNet-50-D has another stem.
    whole.remove("layer1.0.downsample.1.bias");
    whole.insert("layer1.0.downsample.2.bias".into(), normal(1, &[32]));
    pth::write(&path, None, &whole).unwrap();
    let told = problems(&converted(&path, Form::Safetensors, &options(None)).unwrap());
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("unexpected layer1.0.downsample.2.bias"), "{told:?}");
    assert!(told[1].contains("missing layer1.0.downsample.1.bias"), "{told:?}");

    let clip = small_clip().named_tensors();
    let mut backbone = clip.iter().map(|(k, v)| (k.clone(), v.copy())).collect::<Tensors>();
    backbone.retain(|key, _| key.starts_with("visual.") && !key.contains("attnpool"));
    pth::write(&path, None, &backbone).unwrap();
    let conversion = converted(&path, Form::Safetensors, &options(None)).unwrap();
    assert_eq!(problems(&conversion), [""; 0]);
    conversion.write(&output).unwrap();
    let plain = |(k, v): (String, Tensor)| (k["visual.".len()..].to_owned(), v);
    let backbone: Tensors = backbone.into_iter().map(plain).collect();
    assert_same(&safetensors::read(&output).unwrap().0, &backbone);

    let mut half: Tensors = clip.iter().map(|(k, v)| (k.clone(), v.to_kind(Kind::Half))).collect();
    half.insert("input_resolution".into(), Tensor::from(64i64));
    pth::write(&path, None, &half).unwrap();
    let conversion = converted(&path, Form::Safetensors, &options(None)).unwrap();
    conversion.write(&output).unwrap();
    half.remove("input_resolution");
    assert_same(&safetensors::read(&output).unwrap().0, &half);

    for (tensors, part) in [
        (Tensors::from([("a.b".to_owned(), normal(1, &[1]))]), "none of the known kinds"),
        (
            Tensors::from([("visual.class_embedding".to_owned(), normal(1, &[1]))]),
            "visual.conv1.weight: missing",
        ),
    ] {
        pth::write(&path, None, &tensors).unwrap();
        let error = converted(&path, Form::Safetensors, &options(None)).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}
