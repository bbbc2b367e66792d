#!/bin/sh
# Cellpose 3, StarDist and our U-Net, trained from nothing on the same folds for the same CPU minutes, scored alike.
#
#   DATA=FOLDER sh experiments/peers/compare.sh
#
# Takes the variables DATA (the competition's folder), OUT (for all that is written), MINUTES (of CPU time for training a
# fold, in one thread), FOLDS (folds.csv; dealt anew without it), PYTHON (with
# sartorius in it) and NEW_PYTHON (3.11 or so, makes the peers' environments). Two processes run side by side.
# Counted is training, with whatever it warms up; not reading, targets, the choice of thresholds on training images
# (each peer's own search) or predicting. Each prediction keeps what the peer's own defaults keep, no cell twice.
set -eu

data=${DATA:-data/sartorius}
out=${OUT:-runs/peers}
minutes=${MINUTES:-10}
folds=${FOLDS:-$out/folds/folds.csv}
python=${PYTHON:-python}
new_python=${NEW_PYTHON:-python3.11}
here=$(dirname "$0")
mkdir -p "$out"

# One thread a process. The last two keep freed memory: without them a quarter of Cellpose's CPU time is page faults.
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NUMBA_NUM_THREADS=1
export MALLOC_MMAP_THRESHOLD_=4000000000 MALLOC_TRIM_THRESHOLD_=8000000000
export TF_CPP_MIN_LOG_LEVEL=2

[ -f "$folds" ] ||
    "$python" -m sartorius.prepare source=competition "data.root=$data" n_folds=3 "output=$(dirname "$folds")"

environment() { # name, then packages
    [ -x "$out/env_$1/bin/python" ] && return
    "$new_python" -m venv "$out/env_$1"
    name=$1
    shift
    "$out/env_$name/bin/pip" install --quiet "$@"
}
environment cellpose 'cellpose<4' pillow
environment stardist stardist tensorflow-cpu pillow

for fold in 0 1 2; do
    for peer in cellpose stardist; do
        printf '%s %s\n' "$peer" "$fold"
    done
done | xargs -P 2 -L 1 sh -c '
    [ -f "$2/$5_$6.csv" ] || "$2/env_$5/bin/python" "$0/$5_fold.py" --root "$1" --folds "$3" --fold "$6" \
        --minutes "$4" --seed 0 --output "$2/$5_$6.csv" >"$2/$5_$6.log" 2>&1
' "$here" "$data" "$out" "$folds" "$minutes"

printf '%s\n' 0 1 2 | xargs -P 2 -I FOLD sh -c '
    [ -f "$0/unet_FOLD/metrics.json" ] || "$1" -m sartorius.train experiment=unet_cpu "data.root=$2" \
        "model.network.encoder={name: resnet18, weights: none, levels: 4}" "model.network.channels=[96,64,48]" \
        "data.fold_file=$3" data.fold=FOLD "hydra.run.dir=$0/unet_FOLD" leaderboard=null >"$0/unet_FOLD.log" 2>&1
' "$out" "$python" "$data" "$folds"
grep cpu_seconds "$out"/unet_[012]/metrics.json # of ours; trainer.max_epochs sets it

for peer in cellpose stardist; do
    { echo id,predicted && tail -q -n +2 "$out/$peer"_[012].csv; } >"$out/$peer.csv"
    "$python" -m sartorius.evaluate "predictions=$out/$peer.csv" "data.root=$data" only_predicted=true \
        "output=$out/score_$peer"
    "$python" -m sartorius.evaluate "detections=[$out/unet_0/detections,$out/unet_1/detections,$out/unet_2/detections]" \
        "data.root=$data" "against=$out/score_$peer" "output=$out/unet_against_$peer"
done
