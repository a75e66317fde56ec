//! What people type who know other programs, and what it is here. All of it is in this table.

use Answer::{Argument, Flag, Lacks, Says, Set, Switch};

/// What becomes of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is that flag.
    Flag(&'static str),
    /// Its value is an argument without a name, as an image of `predict`.
    Argument,
    /// It is that setting.
    Set(&'static str),
    /// If it is on, it is these arguments.
    Switch(&'static [&'static str]),
    /// It is not done; one line says what to type, or that it is not there.
    Says(&'static str),
    /// The same of what is not there: a no to it, as `mosaic=0.0`, asks for what is so, and is taken.
    Lacks(&'static str),
}

/// A word, without dashes: `--batch-size`, `--batch_size 8` and `batch_size=8` are one.
pub(super) struct Habit {
    pub(super) words: &'static [&'static str],
    /// The verbs it is for; none: all.
    pub(super) verbs: &'static [&'static str],
    pub(super) answer: Answer,
}

const fn habit(
    verbs: &'static [&'static str],
    words: &'static [&'static str],
    answer: Answer,
) -> Habit {
    Habit { words, verbs, answer }
}

const TRAIN: &[&str] = &["train"];
const EVAL: &[&str] = &["eval"];
const PREDICT: &[&str] = &["predict"];
pub(super) const DETECT: &[&str] = &["eval", "predict"];

/// Flags of other programs (Ultralytics, YOLOv5, RF-DETR, detectron2, MMDetection, DETR and DINO).
pub(super) const FLAGS: &[Habit] = &[
    // Training.
    habit(TRAIN, &["batch-size", "bs", "ims-per-batch", "train-batch-size"], Flag("--batch")),
    habit(TRAIN, &["lr0", "learning-rate", "base-lr"], Flag("--lr")),
    habit(
        TRAIN,
        &["img", "img-size", "image-size", "imgsize", "size", "resolution"],
        Flag("--imgsz"),
    ),
    habit(TRAIN, &["max-epochs", "num-epochs", "num-train-epochs", "epoch"], Flag("--epochs")),
    habit(
        TRAIN,
        &[
            "dataset",
            "data-path",
            "dataset-dir",
            "coco-path",
            "data-dir",
            "train",
            "train-data",
            "annotations",
        ],
        Flag("--data"),
    ),
    habit(TRAIN, &["val-data", "val-set", "val-path", "validation", "test-data"], Flag("--val")),
    habit(
        TRAIN,
        &["img-dir", "image-dir", "images-dir", "image-folder", "img-prefix"],
        Flag("--images"),
    ),
    habit(TRAIN, &["config-file", "cfg"], Flag("--config")),
    habit(
        TRAIN,
        &["conf", "conf-thres", "iou", "score-thr"],
        Says(
            "that is for predictions, not for training: richsem predict IMAGE --weights runs/mine --conf 0.25",
        ),
    ),
    habit(TRAIN, &["output-dir", "work-dir", "save-dir", "output", "out", "logdir"], Flag("--run")),
    habit(TRAIN, &["options", "opts", "cfg-options", "override"], Flag("--set")),
    habit(
        TRAIN,
        &["load-from", "pretrain-model-path", "checkpoint", "ckpt", "weights"],
        Flag("--init"),
    ),
    habit(TRAIN, &["finetune-ignore"], Flag("--allow-missing")),
    habit(TRAIN, &["resume-from"], Flag("--resume")),
    habit(
        TRAIN,
        &["patience", "early-stopping-patience", "early-stopping", "early-stop"],
        Set("train.patience"),
    ),
    habit(TRAIN, &["workers", "num-workers", "dataloader-num-workers"], Set("data.workers")),
    habit(TRAIN, &["seed"], Set("seed")),
    habit(TRAIN, &["weight-decay"], Set("train.weight_decay")),
    habit(TRAIN, &["lr-backbone", "lr-encoder"], Set("train.lr_backbone")),
    habit(TRAIN, &["lr-drop"], Set("train.lr_drop")),
    habit(
        TRAIN,
        &[
            "clip-max-norm",
            "max-grad-norm",
            "grad-clip",
            "clip-grad",
            "clip-grad-norm",
            "gradient-clip-val",
        ],
        Set("train.clip_max_norm"),
    ),
    habit(TRAIN, &["warmup-iters", "warmup-steps"], Set("train.warmup_steps")),
    habit(TRAIN, &["warmup-factor"], Set("train.warmup_factor")),
    habit(
        TRAIN,
        &["accumulate", "grad-accum-steps", "update-freq", "gradient-accumulation-steps"],
        Set("train.accumulate"),
    ),
    habit(TRAIN, &["freeze", "frozen-stages"], Set("model.dino.backbone.frozen_stages")),
    habit(TRAIN, &["num-queries"], Set("model.dino.transformer.num_queries")),
    habit(
        TRAIN,
        &["save-period", "save-checkpoint-interval", "checkpoint-interval"],
        Set("train.keep_every"),
    ),
    habit(TRAIN, &["val-interval", "eval-interval", "eval-every"], Set("train.eval_every")),
    habit(TRAIN, &["amp", "half", "fp16", "bf16"], Switch(&["--set", "train.precision=bf16"])),
    habit(
        TRAIN,
        &["use-ema", "ema"],
        Says(
            "where train.ema is set, the average of the weights is what is evaluated; to set it: --set train.ema.decay=0.999",
        ),
    ),
    habit(
        TRAIN,
        &["model", "arch", "backbone"],
        Says(
            "the detector is in the settings: --preset NAME (`--preset list`), weights to start from are --init FILE",
        ),
    ),
    habit(
        TRAIN,
        &["pretrained"],
        Says(
            "weights to start from are --init FILE; richsem weights lists some; without, all is learnt anew",
        ),
    ),
    habit(
        TRAIN,
        &["project", "name", "exist-ok"],
        Says("a run's folder is --run runs/mine; without, it is runs/CONFIG-DATE-TIME"),
    ),
    habit(TRAIN, &["optimizer"], Set("train.optimizer")),
    habit(TRAIN, &["momentum"], Set("train.momentum")),
    habit(
        TRAIN,
        &["lr-scheduler", "lr-schedule", "scheduler", "lrf", "lr-decay"],
        Says("the learning rate drops at epochs: --set train.lr_drop=[20]"),
    ),
    habit(
        TRAIN,
        &["cos-lr", "cosine", "cosine-lr"],
        Lacks("the learning rate drops at epochs: --set train.lr_drop=[20]"),
    ),
    habit(
        TRAIN,
        &["warmup-epochs"],
        Says("the warm-up counts steps: --set train.warmup_steps=100"),
    ),
    habit(
        TRAIN,
        &[
            "mosaic",
            "mixup",
            "copy-paste",
            "close-mosaic",
            "hsv-h",
            "hsv-s",
            "hsv-v",
            "color-jitter",
            "degrees",
            "shear",
            "perspective",
            "flipud",
            "erasing",
        ],
        Lacks("images are changed as DETR does it: richsem settings data.augment"),
    ),
    habit(
        TRAIN,
        &[
            "translate",
            "scale",
            "fliplr",
            "flip",
            "hyp",
            "augment",
            "augmentation",
            "augmentations",
        ],
        Says("images are changed as DETR does it: richsem settings data.augment"),
    ),
    habit(
        TRAIN,
        &["eval-only", "test-only", "evaluate"],
        Lacks("that is a verb: richsem eval --weights runs/mine --annotations mine"),
    ),
    habit(
        TRAIN,
        &["num-gpus", "ngpus", "nproc-per-node", "launcher", "num-machines", "dist-url"],
        Says(
            "several GPUs of this machine: --gpus N; several machines: torchrun or srun (docs/gpus.md)",
        ),
    ),
    habit(
        TRAIN,
        &["num-classes", "nc", "names", "classes"],
        Says("the classes are those of the annotations, whatever their ids: nothing need be said"),
    ),
    habit(
        TRAIN,
        &["single-cls"],
        Lacks("rename the classes in the annotations: nothing here makes one of several"),
    ),
    habit(
        TRAIN,
        &["multi-scale", "fraction", "plots", "deterministic", "time"],
        Says("there is no such choice here: richsem settings lists what there is"),
    ),
    habit(
        TRAIN,
        &["rect", "cache", "profile", "dropout", "compile"],
        Lacks("there is no such choice here: richsem settings lists what there is"),
    ),
    habit(TRAIN, &["save", "tensorboard"], Switch(&[])),
    habit(
        TRAIN,
        &["wandb", "use-wandb", "wandb-project", "mlflow", "comet", "clearml", "neptune"],
        Lacks("nothing is sent anywhere; TensorBoard's files are always written: RUN/tensorboard"),
    ),
    habit(TRAIN, &["list-presets", "presets"], Switch(&["--preset", "list"])),
    habit(
        TRAIN,
        &[
            "box",
            "cls",
            "dfl",
            "box-loss-coef",
            "cls-loss-coef",
            "giou-loss-coef",
            "bbox-loss-coef",
        ],
        Says("the weights of the losses are settings: richsem settings loss"),
    ),
    habit(
        TRAIN,
        &["auto-scale-lr", "scale-lr"],
        Lacks("rates do not follow the batch by themselves: name one with --lr 0.0001"),
    ),
    habit(
        &["train", "init"],
        &[
            "val-split",
            "val-ratio",
            "val-size",
            "train-size",
            "test-size",
            "test-split",
            "test-ratio",
        ],
        Says("divide the set first: richsem dataset split DATA mine, then richsem init mine"),
    ),
    // Evaluation and detection.
    habit(
        DETECT,
        &[
            "model",
            "ckpt",
            "checkpoint",
            "checkpoint-file",
            "resume",
            "pretrain-model-path",
            "w",
            "m",
        ],
        Flag("--weights"),
    ),
    habit(DETECT, &["batch-size", "bs"], Flag("--batch")),
    habit(DETECT, &["half", "amp", "fp16", "bf16"], Switch(&["--precision", "bf16"])),
    habit(
        DETECT,
        &["imgsz", "img", "img-size", "resolution"],
        Says("images are resized as in training; that is in the weights: richsem train --imgsz N"),
    ),
    habit(DETECT, &["augment", "tta"], Lacks("there is no test-time augmentation")),
    habit(
        DETECT,
        &["workers", "num-workers"],
        Says(
            "there is no such choice: images are read by as many threads as there are cores, at most 8",
        ),
    ),
    habit(
        DETECT,
        &["cfg", "config", "config-file"],
        Says("the settings are in the weights: richsem predict IMAGE --weights runs/mine"),
    ),
    habit(
        EVAL,
        &["project", "name", "exist-ok", "save-dir", "work-dir", "output", "out-dir"],
        Says("the numbers are printed; files of them are --json FILE and --report FILE.html"),
    ),
    habit(
        EVAL,
        &["save-txt", "save-crop", "save-conf", "show"],
        Lacks(
            "boxes are written by `predict`: richsem predict IMAGE --weights runs/mine --formats yolo",
        ),
    ),
    habit(
        EVAL,
        &["source"],
        Says(
            "images without annotations are for `predict`: richsem predict IMAGE --weights runs/mine",
        ),
    ),
    habit(
        EVAL,
        &["max-det", "max-dets"],
        Says("there is no such choice: the numbers are COCO's or LVIS's own (docs/evaluate.md)"),
    ),
    habit(
        EVAL,
        &["rect", "dnn", "visualize", "single-cls"],
        Lacks("there is no such choice: the numbers are COCO's or LVIS's own (docs/evaluate.md)"),
    ),
    habit(EVAL, &["data", "dataset", "ann", "ann-file", "gt", "coco-path"], Flag("--annotations")),
    habit(EVAL, &["plots"], Lacks("it writes a page: --report report.html")),
    habit(EVAL, &["html", "report-html"], Flag("--report")),
    habit(
        EVAL,
        &["conf", "conf-thres", "score-thr"],
        Says("every detection counts for AP, whatever its score; a threshold would only lower it"),
    ),
    habit(
        PREDICT,
        &["source", "input", "images", "img-path", "image", "path", "file", "i", "s"],
        Argument,
    ),
    habit(
        PREDICT,
        &[
            "conf-thres",
            "confidence",
            "score",
            "confidence-threshold",
            "score-thr",
            "threshold",
            "pred-score-thr",
            "min-score",
        ],
        Flag("--conf"),
    ),
    habit(DETECT, &["iou-thres", "nms", "nms-thr", "nms-threshold"], Flag("--iou")),
    habit(PREDICT, &["out-dir", "output-dir", "save-dir", "out"], Flag("--output")),
    habit(PREDICT, &["project", "name", "exist-ok"], Says("results go to --output FOLDER")),
    habit(PREDICT, &["output-format", "out-format"], Flag("--formats")),
    habit(PREDICT, &["save-txt"], Switch(&["--formats", "images,json,yolo"])),
    habit(PREDICT, &["save-crop"], Switch(&["--formats", "images,json,crops"])),
    habit(PREDICT, &["nosave", "no-save"], Switch(&["--no-images"])),
    habit(PREDICT, &["save", "save-img", "save-conf", "save-json"], Switch(&[])),
    habit(DETECT, &["slice", "sahi", "slice-size", "slice-height", "slice-width"], Flag("--tiles")),
    habit(
        DETECT,
        &["overlap-ratio", "overlap-height-ratio", "overlap-width-ratio"],
        Flag("--overlap"),
    ),
    habit(
        PREDICT,
        &["show", "view-img", "stream", "webcam", "save-frames", "stream-buffer"],
        Lacks(
            "there are no windows and no video: cut frames first (ffmpeg -i film.mp4 frames/%05d.jpg)",
        ),
    ),
    habit(
        PREDICT,
        &["vid-stride"],
        Says("there is no video: cut frames first (ffmpeg -i film.mp4 frames/%05d.jpg)"),
    ),
    habit(
        DETECT,
        &["classes", "class", "filter-classes"],
        Says("classes cannot be chosen; --formats json,csv has all of them by name"),
    ),
    habit(
        PREDICT,
        &["max-det", "max-detections"],
        Says("a detector keeps 300 boxes of an image (eval.max_detections); fewer: raise --conf"),
    ),
    habit(
        PREDICT,
        &["agnostic-nms", "agnostic", "class-agnostic"],
        Lacks("--iou suppresses within a class; across classes nothing does"),
    ),
    habit(
        PREDICT,
        &["line-width", "line-thickness", "show-labels", "show-conf", "show-boxes"],
        Says("what is drawn cannot be chosen; --formats json has the numbers"),
    ),
    habit(
        PREDICT,
        &["hide-labels", "hide-conf"],
        Lacks("what is drawn cannot be chosen; --formats json has the numbers"),
    ),
    habit(
        PREDICT,
        &["visualize", "embed", "retina-masks", "dnn"],
        Lacks("there is no such choice: boxes alone are found, and the classes are in the weights"),
    ),
    habit(PREDICT, &["data"], Says("the classes are in the weights: nothing need be said")),
    habit(&["report"], &["html", "out", "save", "report"], Flag("--output")),
    habit(
        &["init", "synth", "dataset show", "dataset convert", "dataset split"],
        &["force", "f", "exist-ok", "replace"],
        Switch(&["--overwrite"]),
    ),
    // Anywhere.
    habit(
        &[],
        &["verbose", "quiet", "v", "q"],
        Lacks(
            "there is no such choice: results go to stdout, all else to stderr (2>/dev/null hides it)",
        ),
    ),
    habit(
        &[],
        &["version"],
        Says("the version is shown by richsem checks, or by --version without a verb"),
    ),
];
