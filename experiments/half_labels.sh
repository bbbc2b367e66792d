#!/bin/sh
# What partial labels cost: each image labelled in one half, the rest `ignored`, against training on all labels (`full`)
# and against taking the rest for background although cells are there (`dense`). Trains the U-Net of experiment=unet_cpu
# on each fold three times, and scores all of them out of fold against all labels. About 20 minutes of a core for each
# of 3 x FOLDS trainings. The bar: `ignored` reaches 90 % of `full`, and is above `dense`.
#
#   DATA=FOLDER OUT=half FOLDS=3 SEED=0 sh experiments/half_labels.sh [overrides of the trainings]
#
# A stopped script goes on after the last command that ended well, and within a training.
set -eu

here=$(dirname "$0")
. "$here/steps.sh"
data=${DATA:?DATA=FOLDER, in the layout of the competition}
out=${OUT:-half}
folds=${FOLDS:-3}
seed=${SEED:-0} # of the halves
mkdir -p "$out"

step "$out/folds" sartorius.prepare "data.root=$data" "output=$out/folds" "n_folds=$folds"
if [ ! -e "$out/halves" ]; then
    "$python" "$here/half_labels.py" "$data" "$out" "$seed"
    touch "$out/halves"
fi

for kind in full ignored dense; do
    root=$out/$kind found='' fold=0
    if [ "$kind" = full ]; then root=$data; fi
    while [ "$fold" -lt "$folds" ]; do
        run=$out/$kind$fold
        fit "$run" experiment=unet_cpu "data.root=$root" "data.fold_file=$out/folds/folds.csv" "data.fold=$fold" \
            "leaderboard=$out/leaderboard.csv" "$@"
        found=$found${found:+,}$run/detections
        fold=$((fold + 1))
    done
    eval "$kind=\$found"
done

# shellcheck disable=SC2154  # set by eval
step "$out/score_full" sartorius.evaluate "detections=[$full]" "data.root=$data" "output=$out/score_full"
# shellcheck disable=SC2154
step "$out/score_dense" sartorius.evaluate "detections=[$dense]" "data.root=$data" "output=$out/score_dense" \
    "against=$out/score_full"
# shellcheck disable=SC2154
step "$out/score_ignored" sartorius.evaluate "detections=[$ignored]" "data.root=$data" "output=$out/score_ignored" \
    "against=$out/score_full"
step "$out/gain" sartorius.evaluate "detections=[$ignored]" "data.root=$data" "output=$out/gain" \
    "against=$out/score_dense"

"$python" - "$out" <<'END'
import json
import sys
from pathlib import Path

out = Path(sys.argv[1])
full, dense, ignored = (
    json.loads((out / f"score_{kind}" / "metrics.json").read_text())["competition_map"]
    for kind in ("full", "dense", "ignored")
)
share = f", {ignored / full:.1%} of it" if full else ""
print(f"mAP out of fold: all labels {full:.4f}; half of the labels, the rest ignored {ignored:.4f}{share}; dense {dense:.4f}")
END
