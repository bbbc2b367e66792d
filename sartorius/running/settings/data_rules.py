"""Rules of the data's groups: data, cleaning, copy_paste, pseudo_labels and transform, albumentations' too."""

from sartorius.running.settings.shared_rules import COUNT, EMPTY_OR_PATH, FOLD, MICROMETRES, PIXELS, SEED, SIZE, Table
from sartorius.structures.rules import (
    built,
    by_name,
    flag,
    fraction,
    list_of,
    map_of,
    nothing,
    number,
    one_of,
    part,
    path,
    span,
    text,
    whole,
)  # fmt: skip

_SCALE = number(above=0, high=100)
_DEGREES = number(-360, 360)
_FACTOR = number(0, 100)

RULES: Table = {
    "data": {
        "name": text,
        "fold": FOLD,
        "n_folds": whole(2, 1_000_000),
        "fold_seed limit_seed seed": SEED,
        "fold_file": EMPTY_OR_PATH,
        "images": whole(1, 1_000_000) | list_of(text) | nothing,
        "val_images": list_of(text) | nothing,
        "cleaning copy_paste pseudo_labels train_transform": built | nothing,
        "cell_type_names": list_of(text),
        "train_repeats cells_per_sample": COUNT,
        "batch_size val_batch_size": whole(1, 65_536),
        "num_workers": whole(0, 1024),
        "pin_memory drop_last drop_shared": flag,
        "cache_mb": SIZE,
        "annotation_files": map_of(path),
        "repeated": text,
        "levels": one_of("auto", "exact", "range", "standardise") | nothing,
        "mean_tolerance": number(0, 255) | nothing,
        "std_factor": number(1, 1000) | nothing,
        "pixel_size": MICROMETRES | nothing,
        "limits": map_of(COUNT | nothing) | nothing,
    },
    "cleaning": {
        "holes": flag,
        "piece_share": fraction,
        "min_area": number(0, 1e9),
        "drop_images": list_of(text, least=0),
    },
    "copy_paste": {
        "probability until mirror max_shared max_overlap min_visible": fraction,
        "epochs images rim tries": COUNT,
        "cells": span(whole(0, 65_535)),
        "rotate": span(_DEGREES),
        "scale": span(_SCALE),
    },
    "pseudo_labels": {
        "file thresholds": EMPTY_OR_PATH,
        "folder": path,
        "min_score doubtful_score min_agreement": by_name(fraction),
        "ratio weight": number(above=0, high=1000),
        "cache_mb": SIZE,
    },
    "transform": {
        "transforms after": part | list_of(built, least=0),
        "transforms.* after.*": built | nothing,
        "min_visible": fraction,
        "min_area": number(1, 1e9),
        "crop": {
            "": part | nothing,
            "height width": PIXELS | nothing,
            "size max_size": PIXELS,
            "overlap": whole(0, 65_535),
            "factor": number(1, 64),
            "on_cell mirror": fraction,
            "fill": number(0, 255),
            "scale": span(_SCALE),
            "angle": span(_DEGREES),
            "short_edges": list_of(PIXELS),
        },
    },
    "transforms.*.p after.*.p": fraction,
    "transforms.*.fill after.*.fill": number(0, 255),
    "affine": {
        "scale": _SCALE | span(_SCALE),
        "rotate": _DEGREES | span(_DEGREES),
    },
    "brightness": {
        "brightness contrast saturation": _FACTOR | span(_FACTOR),
        "hue": number(0, 0.5) | span(number(-0.5, 0.5)),
    },
    "elastic": {"alpha": number(0, 10_000), "sigma": number(1, 1000)},
    "gamma.gamma_limit": number(1, 10_000) | span(number(1, 10_000)),
    "blur": {
        "sigma_limit": number(0, 1000) | span(number(0, 1000)),
        "blur_limit": whole(0, 1001) | span(whole(0, 1001)),
    },
    "noise.std_range": span(fraction),
}
