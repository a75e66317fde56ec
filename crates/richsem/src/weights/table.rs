//! The public files of weights that this program reads.
//!
//! Addresses, sizes and checksums are those that their publishers state: torchvision in its `WeightsEnum`s, timm
//! in its `pretrained_cfg`s, Meta in DINOv3's `backbones.py` (all have the first 8 digits of the file's SHA-256 in its
//! name), OpenAI in CLIP's `clip.py` (the whole SHA-256, in the address). DINOv2's addresses are those of its
//! `backbones.py`, EVA-02's those of its read-me. What nobody states is unknown.

/// What a file of weights is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// A backbone: `model.dino.backbone.weights`, `richsem init --weights`.
    Backbone,
    /// A teacher, with its text encoder: `teacher.weights`.
    Teacher,
    /// A whole detector: `--init`, `richsem convert`.
    Detector,
}

impl Use {
    /// Where it is named.
    #[must_use]
    pub fn setting(self) -> &'static str {
        match self {
            Self::Backbone => "model.dino.backbone.weights",
            Self::Teacher => "teacher.weights",
            Self::Detector => "init.weights",
        }
    }
}

/// Where a file can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// Its own.
    Direct(&'static str),
    /// A page, where it is to be fetched by hand.
    Page(&'static str),
    /// Nowhere: it was announced there and not published.
    Unpublished(&'static str),
}

/// A public file of weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry {
    /// What `richsem weights fetch` calls it.
    pub name: &'static str,
    /// The file's own name.
    pub file: &'static str,
    /// What it is, in a few words.
    pub what: &'static str,
    /// What it is for.
    pub used: Use,
    /// Where it can be had.
    pub address: Address,
    /// As its publisher states it.
    pub licence: &'static str,
    /// Size in MiB, to a tenth, as its publisher states it.
    pub mib: Option<f32>,
    /// SHA-256, or its first digits, as its publisher states it.
    pub sha256: Option<&'static str>,
}

macro_rules! torchvision {
    ($name:literal, $resnet:literal, $hash:literal, $mib:literal, $what:literal) => {
        Entry {
            name: $name,
            file: concat!($resnet, "-", $hash, ".pth"),
            what: $what,
            used: Use::Backbone,
            address: Address::Direct(concat!(
                "https://download.pytorch.org/models/",
                $resnet,
                "-",
                $hash,
                ".pth"
            )),
            licence: "BSD-3-Clause",
            mib: Some($mib),
            sha256: Some($hash),
        }
    };
}

macro_rules! timm {
    ($name:literal, $stem:literal, $hash:literal, $what:literal) => {
        Entry {
            name: $name,
            file: concat!($stem, "-", $hash, ".pth"),
            what: $what,
            used: Use::Backbone,
            address: Address::Direct(concat!(
                "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-rsb-weights/",
                $stem,
                "-",
                $hash,
                ".pth"
            )),
            licence: "Apache-2.0",
            mib: None,
            sha256: Some($hash),
        }
    };
}

macro_rules! openai {
    ($name:literal, $file:literal, $hash:literal, $what:literal) => {
        Entry {
            name: $name,
            file: $file,
            what: $what,
            used: Use::Teacher,
            address: Address::Direct(concat!(
                "https://openaipublic.azureedge.net/clip/models/",
                $hash,
                "/",
                $file
            )),
            licence: "MIT",
            mib: None,
            sha256: Some($hash),
        }
    };
}

macro_rules! dinov2 {
    ($name:literal, $model:literal, $registers:literal, $what:literal) => {
        Entry {
            name: $name,
            file: concat!($model, $registers, "_pretrain.pth"),
            what: $what,
            used: Use::Backbone,
            address: Address::Direct(concat!(
                "https://dl.fbaipublicfiles.com/dinov2/",
                $model,
                "/",
                $model,
                $registers,
                "_pretrain.pth"
            )),
            licence: "Apache-2.0",
            mib: None,
            sha256: None,
        }
    };
}

/// Meta sends the addresses to those who accept the licence.
macro_rules! dinov3 {
    ($name:literal, $model:literal, $hash:literal, $what:literal) => {
        Entry {
            name: $name,
            file: concat!("dinov3_", $model, "_pretrain_lvd1689m-", $hash, ".pth"),
            what: $what,
            used: Use::Backbone,
            address: Address::Page(
                "https://ai.meta.com/resources/models-and-libraries/dinov3-downloads/",
            ),
            licence: "DINOv3 License",
            mib: None,
            sha256: Some($hash),
        }
    };
}

macro_rules! eva02 {
    ($name:literal, $file:literal, $what:literal) => {
        Entry {
            name: $name,
            file: $file,
            what: $what,
            used: Use::Backbone,
            address: Address::Direct(concat!(
                "https://huggingface.co/Yuxin-CV/EVA-02/resolve/main/eva02/pt/",
                $file
            )),
            licence: "MIT",
            mib: None,
            sha256: None,
        }
    };
}

const DINO: Address =
    Address::Page("https://drive.google.com/drive/folders/1qD5m1NmK0kjE5hh-G17XUX751WsEG-h_");

/// All of them.
pub(super) const TABLE: &[Entry] = &[
    torchvision!("resnet18", "resnet18", "f37072fd", 44.7, "torchvision, ImageNet-1k"),
    torchvision!("resnet34", "resnet34", "b627a593", 83.3, "torchvision, ImageNet-1k"),
    torchvision!("resnet50", "resnet50", "0676ba61", 97.8, "torchvision, ImageNet-1k (V1)"),
    torchvision!("resnet50-v2", "resnet50", "11ad3fa6", 97.8, "torchvision, ImageNet-1k (V2)"),
    torchvision!("resnet101", "resnet101", "63fe2227", 170.5, "torchvision, ImageNet-1k (V1)"),
    torchvision!("resnet101-v2", "resnet101", "cd907fc2", 170.5, "torchvision, ImageNet-1k (V2)"),
    timm!("resnet18-a1", "resnet18_a1_0", "d63eafa0", "timm, ImageNet-1k (A1)"),
    timm!("resnet34-a1", "resnet34_a1_0", "46f8f793", "timm, ImageNet-1k (A1)"),
    timm!("resnet50-a1", "resnet50_a1_0", "14fe96d1", "timm, ImageNet-1k (A1)"),
    timm!("resnet101-a1", "resnet101_a1_0", "cdcb52a9", "timm, ImageNet-1k (A1)"),
    Entry {
        name: "resnet50-21k",
        file: "resnet50_miil_21k.pth",
        what: "MIIL, ImageNet-21k: RichSem's better backbone",
        used: Use::Backbone,
        address: Address::Direct(
            "https://miil-public-eu.oss-eu-central-1.aliyuncs.com/model-zoo/ImageNet_21K_P/models/resnet50_miil_21k.pth",
        ),
        licence: "unknown",
        mib: None,
        sha256: None,
    },
    dinov2!("dinov2-s", "dinov2_vits14", "", "DINOv2, ViT-S/14"),
    dinov2!("dinov2-b", "dinov2_vitb14", "", "DINOv2, ViT-B/14"),
    dinov2!("dinov2-l", "dinov2_vitl14", "", "DINOv2, ViT-L/14"),
    dinov2!("dinov2-g", "dinov2_vitg14", "", "DINOv2, ViT-g/14"),
    dinov2!("dinov2-s-reg4", "dinov2_vits14", "_reg4", "DINOv2, ViT-S/14, 4 registers"),
    dinov2!("dinov2-b-reg4", "dinov2_vitb14", "_reg4", "DINOv2, ViT-B/14, 4 registers"),
    dinov2!("dinov2-l-reg4", "dinov2_vitl14", "_reg4", "DINOv2, ViT-L/14, 4 registers"),
    dinov2!("dinov2-g-reg4", "dinov2_vitg14", "_reg4", "DINOv2, ViT-g/14, 4 registers"),
    dinov3!("dinov3-s", "vits16", "08c60483", "DINOv3, ViT-S/16"),
    dinov3!("dinov3-s-plus", "vits16plus", "4057cbaa", "DINOv3, ViT-S+/16"),
    dinov3!("dinov3-b", "vitb16", "73cec8be", "DINOv3, ViT-B/16"),
    dinov3!("dinov3-l", "vitl16", "8aa4cbdd", "DINOv3, ViT-L/16"),
    dinov3!("dinov3-h-plus", "vith16plus", "7c1da9a5", "DINOv3, ViT-H+/16"),
    dinov3!("dinov3-7b", "vit7b16", "a955f4ea", "DINOv3, ViT-7B/16"),
    eva02!("eva02-b", "eva02_B_pt_in21k_p14to16.pt", "EVA-02-B, ImageNet-21k, for detectors"),
    eva02!("eva02-l", "eva02_L_pt_in21k_p14to16.pt", "EVA-02-L, ImageNet-21k, for detectors"),
    eva02!("eva02-l-m38m", "eva02_L_pt_m38m_p14to16.pt", "EVA-02-L, Merged-38M, for detectors"),
    openai!(
        "clip-rn50",
        "RN50.pt",
        "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
        "CLIP, ResNet-50: RichSem's teacher"
    ),
    openai!(
        "clip-rn101",
        "RN101.pt",
        "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599",
        "CLIP, ResNet-101"
    ),
    openai!(
        "clip-rn50x4",
        "RN50x4.pt",
        "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd",
        "CLIP, ResNet-50x4"
    ),
    openai!(
        "clip-rn50x16",
        "RN50x16.pt",
        "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa",
        "CLIP, ResNet-50x16"
    ),
    openai!(
        "clip-rn50x64",
        "RN50x64.pt",
        "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c",
        "CLIP, ResNet-50x64"
    ),
    openai!(
        "clip-vit-b32",
        "ViT-B-32.pt",
        "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
        "CLIP, ViT-B/32"
    ),
    openai!(
        "clip-vit-b16",
        "ViT-B-16.pt",
        "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
        "CLIP, ViT-B/16"
    ),
    openai!(
        "clip-vit-l14",
        "ViT-L-14.pt",
        "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
        "CLIP, ViT-L/14"
    ),
    openai!(
        "clip-vit-l14-336",
        "ViT-L-14-336px.pt",
        "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
        "CLIP, ViT-L/14 at 336 pixels"
    ),
    Entry {
        name: "dino-r50-coco",
        file: "checkpoint0011_4scale.pth",
        what: "DINO-4scale, ResNet-50, COCO, 12 epochs: box AP 49.0",
        used: Use::Detector,
        address: DINO,
        licence: "Apache-2.0",
        mib: None,
        sha256: None,
    },
    Entry {
        name: "richsem-r50",
        file: "unknown",
        what: "RichSem, ResNet-50, LVIS: box AP 37.1",
        used: Use::Detector,
        address: Address::Unpublished("https://github.com/MengLcool/RichSem"),
        licence: "unknown",
        mib: None,
        sha256: None,
    },
    Entry {
        name: "richsem-r50-21k",
        file: "unknown",
        what: "RichSem, ResNet-50 of ImageNet-21k, LVIS: box AP 40.1",
        used: Use::Detector,
        address: Address::Unpublished("https://github.com/MengLcool/RichSem"),
        licence: "unknown",
        mib: None,
        sha256: None,
    },
];
