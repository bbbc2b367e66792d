"""Rules of the groups of a fit: optimizer, scheduler, trainer, callbacks, logger, averaging and compile."""

from sartorius.running.settings.shared_rules import COUNT, EMPTY_OR_PATH, FOLD, SEED, Table
from sartorius.structures.rules import (
    anything,
    built,
    flag,
    fraction,
    list_of,
    matching,
    nothing,
    number,
    one_of,
    part,
    path,
    text,
    whole,
)  # fmt: skip

_STEPS = whole(1, 1_000_000_000)
_BELOW_1 = number(0, 0.999999)
_BATCHES = whole(1, 1_000_000) | number(above=0, high=1)  # so many, or a share of them
_FACTOR = number(above=0, high=1)
_SCALE = whole(1, 16)  # enlargement of drawings

RULES: Table = {
    "optimizer": {
        "lr": number(above=0, high=1000),
        "weight_decay eps": number(0, 1000),
        "momentum dampening": _BELOW_1,
        "betas": list_of(_BELOW_1, 2),
        "nesterov amsgrad": flag,
    },
    "scheduler": {
        "warmup_steps": whole(0, 1_000_000_000) | nothing,
        "final_fraction warmup_fraction start_fraction": fraction,
        "milestones": list_of(fraction),
        "gamma": number(0, 10),
        "momentum": list_of(_BELOW_1, 2) | nothing,
    },
    "lr_decay": {"": part, "per_stage backbone": _FACTOR},
    "averaging": {"decay": _BELOW_1, "warmup": number(1, 1e9)},
    "compile": {"part": text | nothing, "mode": text, "dynamic": flag | nothing, "fullgraph": flag},
    "trainer": {
        "max_epochs": whole(1, 1_000_000) | one_of(-1),
        "max_steps": _STEPS | one_of(-1),
        "max_time": matching(r"\d+:\d\d:\d\d:\d\d", "a time DD:HH:MM:SS") | nothing,
        "accelerator": one_of("auto", "cpu", "gpu", "cuda", "mps"),
        "devices": whole(1, 4096) | list_of(whole(0, 4096)) | one_of("auto", -1),
        "num_nodes": whole(1, 65_536),
        "strategy": built | text,
        "precision": one_of("auto", "32-true", "bf16-mixed", "16-mixed", "bf16", 16, 32),
        "accumulate_grad_batches check_val_every_n_epoch log_every_n_steps": COUNT,
        "gradient_clip_val": number(0, 1e9) | nothing,
        "gradient_clip_algorithm": one_of("norm", "value", None),
        "limit_train_batches limit_val_batches limit_test_batches limit_predict_batches": _BATCHES,
        "num_sanity_val_steps": whole(-1, 1_000_000),
        "deterministic": flag | one_of("warn", None),
        "enable_model_summary enable_checkpointing enable_progress_bar sync_batchnorm": flag,
        "logger": anything,
        "plugins": list_of(built, least=0) | nothing,
        "strategy.find_unused_parameters strategy.gradient_as_bucket_view": flag,
        "strategy.process_group_backend": text | nothing,
    },
    "callbacks.*": {
        "": built | nothing,
        "folder dirpath detections": path,
        "monitor": text,
        "mode": one_of("max", "min"),
        "leaderboard": EMPTY_OR_PATH,
        "scale": _SCALE,
        "postprocess": built | nothing,
        "threshold": fraction,
        "images previews": COUNT | nothing,
    },
    "callbacks": {
        "artifacts.kinds": list_of(text, least=0),
        "batch_losses": {"rows": COUNT, "seconds": number(0, 1e6)},
        "best_checkpoint": {
            "filename": text,
            "enable_version_counter": flag,
            "save_top_k": whole(-1, 1_000_000),
        },
        "cells": {"formats": list_of(text, least=0), "overlaps": one_of("remove", "keep")},
        "competition_score": {"box_ap instance_scores": flag, "max_detections": whole(1, 65_535)},
        "early_stopping": {
            "patience": whole(0, 1_000_000),
            "min_delta": number(0, 1e6),
        },
        "fixed_images": {"images_per_type": whole(0, 1_000_000), "extremes": flag},
        "last_checkpoint.every_n_steps": whole(0, 1_000_000_000),
        "learning_rate.logging_interval": one_of("step", "epoch", None),
        "overlays.every_n_epochs": whole(0, 1_000_000),
        "progress": {"refresh_rate": whole(0, 1_000_000), "seconds": number(0, 1e6)},
        "pruning": {
            "study": path,
            "trial": whole(0, 1_000_000),
            "pruner": built,
            "pruner.n_startup_trials pruner.n_warmup_steps": whole(0, 1_000_000),
        },
        "run_record.about": {"": part, "experiment": text, "fold": FOLD, "seed": SEED},
    },
    "hydra": {"run.dir sweep.dir": path},
    "logger.*": built | nothing,
    "logger": {
        "csv.path": path,
        "tensorboard": {"folder": path, "flush_seconds": number(above=0, high=1e6), "scale": _SCALE},
        "wandb": {
            "project": text,
            "entity name id group job_type": text | nothing,
            "save_dir": path,
            "tags": list_of(text, least=0),
            "offline": flag,
            "init_timeout": number(above=0, high=1e6),
            "finish_timeout": number(0, 1e6),
            "boxes": whole(0, 65_535),
            "rim": whole(1, 64),
        },
    },
}
