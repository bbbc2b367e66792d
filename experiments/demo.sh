#!/bin/sh
# From images to a submission in one go: generated images, a small network, no GPU. `make demo` runs it.
# Takes the variables PYTHON (the interpreter) and OUT (the folder for everything but the images; made anew).
set -eu

python=${PYTHON:-python}
# one thread: two wait for each other where anything else runs, and the sums come out alike on any number of cores
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
out=${OUT:-demo}
data=data/synthetic

step() { # what it is, then a command of the package
    printf '\n%s\n$ python -m' "$1"
    shift
    printf ' %s' "$@"
    printf '\n'
    "$python" -m "$@"
}

rm -rf "$out"
step "1/6 draw images, look through them, deal folds" sartorius.prepare source=synthetic "output=$out/prepare"
step "2/6 train" sartorius.train experiment=demo "hydra.run.dir=$out/train" "leaderboard=$out/leaderboard.csv"
step "3/6 score the validation images, Otsu + watershed beside it" \
    sartorius.evaluate "detections=[$out/train/detections]" baseline=otsu_watershed "data.root=$data" "output=$out/score"
step "4/6 make a page of the run" sartorius.report "run=$out/train"
step "5/6 predict the test images" \
    sartorius.predict "checkpoint=$out/train/checkpoints/best.ckpt" "images=$data/test" "output=$out/predict"
step "6/6 make a submission" \
    sartorius.submit "detections=$out/predict/detections" "data.root=$data" "output=$out/submission.csv"

printf '\nDone. The files:\n'
printf '  %-34s %s\n' \
    "$data/" "the images, in the competition's layout" \
    "$out/prepare/audit.txt" "what is in them" \
    "$out/train/" "the run: config, checkpoints, metrics, detections" \
    "$out/train/report.html" "the run as a page, for any browser" \
    "$out/score/metrics.json" "its score beside the baseline's" \
    "$out/predict/overlays/" "the test images with their cells" \
    "$out/submission.csv" "one row a cell"
