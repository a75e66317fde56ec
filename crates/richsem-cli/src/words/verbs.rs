//! Verbs of other programs, and what is typed in the place of one.

/// Verbs of other programs.
pub(super) const VERBS: &[(&[&str], &str)] = &[
    (
        &["detect", "infer", "inference", "demo", "visualize", "run"],
        "it is `predict` here: richsem predict IMAGE --weights runs/mine",
    ),
    (
        &["test", "validate", "validation", "evaluate", "evaluation", "eval-only"],
        "it is `eval` here (or `val`): richsem eval --weights runs/mine --annotations mine",
    ),
    (
        &["fit", "learn", "learning", "training", "trainer", "train_net", "main"],
        "it is `train` here: richsem init DATA, then richsem train -c DATA.toml",
    ),
    (
        &["rename", "remap", "merge", "combine", "filter"],
        "sets are not changed here: `richsem dataset convert IN OUT --to coco` writes a file that you can change",
    ),
    (
        &["finetune", "fine-tune", "transfer"],
        "that is training from weights: richsem train -c mine.toml --init FILE (richsem init writes mine.toml)",
    ),
    (
        &["resume", "continue", "restart"],
        "that is a flag of train: richsem train --resume runs/mine",
    ),
    (
        &[
            "export", "onnx", "tensorrt", "openvino", "coreml", "tflite", "compile", "deploy",
            "serve",
        ],
        "it is not there: weights run in `richsem predict`, and in a Rust program (docs/library.md)",
    ),
    (&["benchmark", "speed", "profile"], "it is `bench` here: richsem bench -c preset:tiny"),
    (
        &["tune", "hpo", "sweep", "ablate", "cross-validate", "kfold"],
        "several settings over several seeds are compared by `study`: richsem study study.toml",
    ),
    (
        &[
            "inspect",
            "viewer",
            "view",
            "browse",
            "browse-dataset",
            "explore",
            "visualize-data",
            "visualize-dataset",
            "draw",
        ],
        "the boxes of a set are drawn by `dataset show`: richsem dataset show DATA looks",
    ),
    (
        &["yolo", "rfdetr", "mmdet", "detectron2"],
        "this program is `richsem`: richsem init DATA, then richsem train -c DATA.toml (docs/coming-from.md)",
    ),
    (
        &["track", "segment", "pose", "classify", "obb", "count", "solutions"],
        "this program detects objects in images, and nothing else: richsem predict IMAGE --weights runs/mine",
    ),
    (
        &["cfg", "copy-cfg", "config", "options", "params"],
        "all settings are listed by `settings`: richsem settings train.lr",
    ),
    (
        &["download", "pull", "fetch", "hub", "zoo", "models"],
        "public weights are listed by `weights`: richsem weights fetch resnet50-v2",
    ),
    (&["presets", "recipes"], "presets are listed by train: richsem train --preset list"),
    (&["split", "partition", "divide"], "it is a verb of dataset: richsem dataset split IN OUT"),
    (
        &["stats", "analyze", "analyse", "describe"],
        "it is a verb of dataset: richsem dataset stats DATA",
    ),
    (
        &["healthcheck", "lint", "verify", "check", "clean", "deduplicate", "labels"],
        "faults of a set are found by `doctor` (this machine is looked at by `checks`): richsem doctor DATA",
    ),
    (
        &["convert-dataset", "coco2yolo", "yolo2coco", "voc2coco", "import"],
        "sets are converted by `dataset convert`: richsem dataset convert IN OUT --to coco",
    ),
    (
        &["convert-weights", "convert-checkpoint", "export-weights"],
        "it is `convert` here: richsem convert IN OUT",
    ),
    (
        &["new", "create", "setup", "start", "quickstart", "wizard", "autotrain"],
        "settings for a set and this machine are written by `init`: richsem init DATA",
    ),
    (
        &["env", "doctor-env", "collect-env", "collect_env", "system"],
        "it is `checks` here: richsem checks",
    ),
    (
        &["pretrain", "distill"],
        "a teacher is trained by `pretrain-teacher`: richsem pretrain-teacher captions.jsonl",
    ),
    (
        &["precompute", "cache", "extract"],
        "a teacher's labels are kept by `prepare`: richsem prepare -c rich.toml --out labels",
    ),
    (
        &["plot", "plots", "show", "dashboard"],
        "a run is shown by `report` (a set by `dataset show`): richsem report runs/mine",
    ),
    (
        &["generate", "toy", "synthetic"],
        "a set to try things on is drawn by `synth`: richsem synth shapes",
    ),
    (
        &["compare", "diff", "versus"],
        "two runs are compared by `report`: richsem report runs/new --compare runs/old",
    ),
    (
        &["metrics", "results", "score", "scores", "numbers", "ap", "map50"],
        "a run's numbers are in its report, and in a table: richsem report runs/mine --csv metrics.csv",
    ),
    (
        &[
            "logs",
            "log",
            "history",
            "curves",
            "tensorboard",
            "wandb",
            "mlflow",
            "comet",
            "clearml",
            "neptune",
        ],
        "nothing is sent anywhere; curves are in the report (and runs/mine/tensorboard): richsem report runs/mine",
    ),
    (
        &[
            "docs",
            "documentation",
            "manual",
            "man",
            "readme",
            "about",
            "license",
            "licence",
            "guide",
            "tutorial",
            "tutorials",
        ],
        "each verb explains itself, as richsem train --help (pages: docs/start.md and its neighbours)",
    ),
    (
        &["example", "examples", "usage", "commands"],
        "each verb has examples, as richsem train --help; a set to try them on: richsem synth shapes",
    ),
    (
        &["update", "upgrade", "self-update"],
        "it is built anew from its newer sources (README.md); what is here is shown by richsem checks",
    ),
    (
        &["install", "uninstall", "pip", "conda", "docker"],
        "it is installed; what it finds on this machine is shown by richsem checks",
    ),
    (
        &["python", "python3", "py", "script", "api", "notebook", "colab"],
        "there is no Python: verbs are typed, as richsem train -c DATA.toml (a Rust library: docs/library.md)",
    ),
    (
        &["ui", "gui", "web", "webui", "gradio", "app", "studio"],
        "there are no windows; a run is shown as a page by richsem report runs/mine",
    ),
    (
        &[
            "label",
            "labeling",
            "labelling",
            "labelme",
            "labelimg",
            "annotate",
            "annotation",
            "auto-annotate",
        ],
        "boxes are drawn by other tools; a detector's are written by richsem predict IMAGE --weights runs/mine --formats yolo",
    ),
    (
        &["quantize", "quantise", "quantization", "prune", "int8"],
        "it is not there; bf16 is faster on a GPU: richsem predict IMAGE --weights runs/mine --precision bf16",
    ),
    (
        &["video", "webcam", "camera", "stream", "screen", "live"],
        "there is no video: ffmpeg -i film.mp4 frames/%05d.jpg, then richsem predict frames --weights runs/mine",
    ),
    (
        &["list", "ls", "runs"],
        "runs are the folders below runs/; one is shown by richsem report runs/mine, weights by richsem weights",
    ),
    (
        &["lr-find", "lr-finder", "find-lr", "auto-lr"],
        "learning rates are chosen by `init`, with the reason: richsem init DATA",
    ),
    (
        &["augment", "augmentation", "augmentations", "transforms", "mosaic", "mixup"],
        "how images are changed is a setting: richsem settings data.augment",
    ),
    (&["anchors", "autoanchor"], "a DETR has no anchors; sizes of boxes: richsem doctor DATA"),
    (
        &["explain", "heatmap", "gradcam", "embed", "feature-maps"],
        "it is not there; a run's worst mistakes are in its report: richsem report runs/mine",
    ),
    (
        &["gpu", "gpus", "cuda", "devices"],
        "what can be computed on is shown by richsem checks; a verb takes --device cuda:0",
    ),
    (
        &["threshold", "thresholds", "calibrate"],
        "the best of each class: richsem eval --weights runs/mine --annotations mine --save-thresholds t.toml",
    ),
    (
        &["data", "datasets", "set", "sets"],
        "sets have the verbs of `dataset`, and `doctor`: richsem dataset stats DATA",
    ),
    (&["classes", "names"], "it is a verb of dataset: richsem dataset stats DATA --per-class"),
    (
        &["model", "summary", "architecture"],
        "what a file of weights holds is shown by `info`: richsem info FILE",
    ),
    (
        &["login", "logout", "signup"],
        "there are no accounts, and nothing is sent anywhere: richsem init DATA begins",
    ),
];

/// Words that stand for what a verb does not take, in the place of its files: of `train`, `train resume`.
pub(super) const INSTEAD: &[(&str, &[&str], &str)] = &[
    (
        "train",
        &["resume", "continue"],
        "a run goes on by its folder: richsem train --resume runs/mine",
    ),
    (
        "predict",
        &["0", "1", "screen", "webcam", "camera", "video"],
        "there is no video: ffmpeg -i film.mp4 frames/%05d.jpg, then richsem predict frames --weights runs/mine",
    ),
];
