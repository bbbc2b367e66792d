"""Rules of the options of `plan`: conf/plan.yaml."""

from sartorius.running.settings.shared_rules import COUNT, EMPTY_OR_PATH, Table
from sartorius.structures.rules import flag, fraction, list_of, nothing, number, one_of, part, path, text, whole

_NUMBERS: Table = {
    "": part,
    "images whole_pixels rotated_pixels epochs stride": whole(1, 2**40),
    "diameter": number(above=0, high=65_536),
    "scales": list_of(number(0.1, 16)),
    "anchor_ratios": list_of(number(0.01, 100)),
    "foreground": list_of(fraction, least=2),
    "crop_length spare passes": number(above=0, high=1e6),
    "crop_quantile tile_quantile small_quantile small_share shared shared_cells": fraction,
    "memory_share cache_share warmup_share anchor_gain brightness": fraction,
    "grey_mean mean_tolerance": number(0, 255),
    "grey_std": number(above=0, high=255),
    "std_factor diameter_factor": number(1, 1000),
    "folds": whole(2, 1_000_000),
    "builtin_images workers least_steps": whole(0, 1_000_000),
    "process_memory bytes_per_pixel cache_bytes": number(0, 1e9),
    "steps": whole(2, 1000),
}
_MODEL: Table = {
    "": part,
    "title experiment": text,
    "lengths areas second_stage.lengths second_stage.areas": list_of(text, least=0),
    "second_stage": part | nothing,
    "second_stage.experiment": text,
    "megapixel_seconds pixel_bytes": number(above=0, high=1e9),
    "least_batch validations": COUNT,
}

RULES: Table = {
    "plan": {
        "name": text | nothing,
        "output": EMPTY_OR_PATH,
        "data.root": path,
        "overwrite measure": flag,
        "network": one_of("auto", "unet", "maskrcnn"),
        "minutes": number(above=0, high=1e6),
        "accelerator": one_of("auto", "cpu", "gpu"),
        "rules": _NUMBERS,
        "models": {"": part, "*": _MODEL},
    },
}
