//! Backbones and CLIPs alone.

use richsem::{
    checkpoint_io::{pth, safetensors},
    convert::Form,
    models::{
        backbone::{Resnet, ResnetConfig},
        parameters::ParameterStore,
    },
    testing::normal,
};
use tch::{Device, Kind, Tensor};

use crate::support::*;

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
