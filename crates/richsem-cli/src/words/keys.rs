//! Keys of other programs' settings: detectron2's `SOLVER.BASE_LR`, MMDetection's `optimizer.lr`. They are
//! taken as `KEY=VALUE`, as `KEY VALUE`, and both after `--opts`.

use super::habits::{
    Answer::{Flag, Says, Set, Switch},
    DETECT, Habit,
};

const fn key(words: &'static [&'static str], answer: super::habits::Answer) -> Habit {
    Habit { words, verbs: &["train"], answer }
}

pub(super) const KEYS: &[Habit] = &[
    key(
        &["SOLVER.BASE_LR", "optimizer.lr", "optim_wrapper.optimizer.lr", "optimizer.params.lr"],
        Flag("--lr"),
    ),
    key(
        &[
            "SOLVER.IMS_PER_BATCH",
            "train_dataloader.batch_size",
            "data.samples_per_gpu",
            "dataloader.train.total_batch_size",
        ],
        Flag("--batch"),
    ),
    key(
        &["train_cfg.max_epochs", "runner.max_epochs", "total_epochs", "SOLVER.MAX_EPOCH"],
        Flag("--epochs"),
    ),
    key(
        &["SOLVER.MAX_ITER", "train.max_iter", "max_iter", "max_iters", "iterations"],
        Says("a run is counted in epochs, not in steps: --epochs N (train.epochs)"),
    ),
    key(
        &["SOLVER.STEPS", "lr_config.step", "lr_scheduler.milestones"],
        Says("the learning rate drops at epochs, not at steps: --set train.lr_drop=[20]"),
    ),
    key(&["SOLVER.GAMMA", "lr_config.gamma"], Set("train.lr_gamma")),
    key(
        &["SOLVER.MOMENTUM", "optimizer.momentum", "optim_wrapper.optimizer.momentum"],
        Set("train.momentum"),
    ),
    key(
        &["SOLVER.WEIGHT_DECAY", "optimizer.weight_decay", "optim_wrapper.optimizer.weight_decay"],
        Set("train.weight_decay"),
    ),
    key(&["SOLVER.WARMUP_ITERS", "lr_config.warmup_iters"], Set("train.warmup_steps")),
    key(&["SOLVER.WARMUP_FACTOR", "lr_config.warmup_ratio"], Set("train.warmup_factor")),
    key(
        &["SOLVER.OPTIMIZER", "optimizer.type", "optim_wrapper.optimizer.type", "optimizer.name"],
        Set("train.optimizer"),
    ),
    key(
        &["optimizer_config.grad_clip.max_norm", "optim_wrapper.clip_grad.max_norm"],
        Set("train.clip_max_norm"),
    ),
    key(
        &["optim_wrapper.accumulative_counts", "optimizer_config.cumulative_iters"],
        Set("train.accumulate"),
    ),
    key(
        &["SOLVER.CLIP_GRADIENTS.CLIP_VALUE", "SOLVER.CLIP_GRADIENTS.ENABLED"],
        Says("the norm of all gradients together is limited: --set train.clip_max_norm=0.1"),
    ),
    key(&["SOLVER.AMP.ENABLED"], Switch(&["--set", "train.precision=bf16"])),
    key(
        &["SOLVER.CHECKPOINT_PERIOD", "TEST.EVAL_PERIOD"],
        Says("it is counted in epochs: --set train.keep_every=1 and --set train.eval_every=1"),
    ),
    key(
        &["default_hooks.checkpoint.interval", "checkpoint_config.interval"],
        Set("train.keep_every"),
    ),
    key(&["train_cfg.val_interval", "evaluation.interval"], Set("train.eval_every")),
    key(&["MODEL.WEIGHTS"], Flag("--init")),
    key(
        &[
            "MODEL.ROI_HEADS.NUM_CLASSES",
            "MODEL.RETINANET.NUM_CLASSES",
            "MODEL.NUM_CLASSES",
            "model.bbox_head.num_classes",
            "model.roi_head.bbox_head.num_classes",
        ],
        Says("the classes are those of the annotations, whatever their ids: nothing need be said"),
    ),
    key(
        &["MODEL.BACKBONE.FREEZE_AT", "model.backbone.frozen_stages"],
        Says("see richsem settings model.dino.backbone.frozen_stages (-1: none is frozen)"),
    ),
    key(
        &[
            "INPUT.MIN_SIZE_TRAIN",
            "INPUT.MAX_SIZE_TRAIN",
            "INPUT.MIN_SIZE_TEST",
            "INPUT.MAX_SIZE_TEST",
        ],
        Says(
            "sizes of images: --imgsz N, or each by itself: richsem settings data.augment, data.resize",
        ),
    ),
    key(
        &["DATASETS.TRAIN", "DATASETS.TEST", "data_root"],
        Says("a set is its file or folder: --data DATA (data.train, data.val)"),
    ),
    key(
        &["DATALOADER.NUM_WORKERS", "train_dataloader.num_workers", "data.workers_per_gpu"],
        Set("data.workers"),
    ),
    key(&["MODEL.DEVICE"], Flag("--device")),
    key(&["OUTPUT_DIR", "work_dir"], Flag("--run")),
    Habit { words: &["MODEL.WEIGHTS"], verbs: DETECT, answer: Flag("--weights") },
    Habit { words: &["MODEL.DEVICE"], verbs: DETECT, answer: Flag("--device") },
    Habit { words: &["DATASETS.TEST"], verbs: &["eval"], answer: Flag("--annotations") },
    Habit {
        words: &["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "MODEL.RETINANET.SCORE_THRESH_TEST"],
        verbs: &["predict"],
        answer: Flag("--conf"),
    },
];
