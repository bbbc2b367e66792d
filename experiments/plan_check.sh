#!/bin/sh
# Compares what `plan` writes with the experiment made by hand, `unet_cpu`, on generated images at half, normal and
# double cell size and on real ones: each trains every fold on the same images, as many samples (those of the plan:
# data.train_repeats times trainer.max_epochs of each image), and is scored out of fold; the paired difference has an
# interval. About 40 minutes of a core for each set and fold at MINUTES=20.
#
#   [DATA=FOLDER] OUT=plan_check FOLDS=3 MINUTES=20 SETS="half normal double real" sh experiments/plan_check.sh [overrides]
#
# The overrides are of all trainings. Without DATA, in the layout of the competition, the set `real` is left out. A
# stopped script goes on after the last command that ended well, and within a training.
set -eu

here=$(dirname "$0")
. "$here/steps.sh"
out=${OUT:-plan_check}
folds=${FOLDS:-3}
minutes=${MINUTES:-20}
sets=${SETS:-half normal double real}
images=${IMAGES:-"{cort: 18, shsy5y: 6, astro: 10}"} # to draw
mkdir -p "$out"
out=$(cd "$out" && pwd)
conf=$out/conf

step "$out/prepared" sartorius.prepare source=synthetic "paths.synthetic_dir=$out/normal" "source.images=$images" \
    source.unlabelled=0 source.test=1 seed=21 "n_folds=$folds" "output=$out/prepared"

resample() { # the set, its factor
    if [ -e "$out/$1/train.csv" ]; then return; fi
    "$python" "$here/resampled.py" "$out/normal" "$2" "$out/$1"
}

planned() { # a setting of the plan in $file
    sed -n "s/^ *$1: \([0-9]*\).*/\1/p" "$file"
}

for set in $sets; do
    root=$out/$set
    case $set in
    half) resample half 0.5 ;;
    normal) ;;
    double) resample double 2 ;;
    real)
        if [ -z "${DATA:-}" ]; then continue; fi
        root=$DATA
        ;;
    *) echo "SETS: no set '$set'" >&2 && exit 1 ;;
    esac
    file=$conf/experiment/planned_$set.yaml
    if [ ! -e "$file" ]; then
        "$python" -m sartorius.plan "data.root=$root" "minutes=$minutes" network=unet "measure=${MEASURE:-true}" \
            "output=$file"
    fi
    epochs=$(planned max_epochs)
    for way in made planned; do
        found=
        fold=0
        while [ "$fold" -lt "$folds" ]; do
            run=$out/${set}_$way$fold
            if [ "$way" = made ]; then
                fit "$run" experiment=unet_cpu "data.root=$root" "data.n_folds=$folds" \
                    "data.fold=$fold" "data.train_repeats=$(planned train_repeats)" "trainer.max_epochs=$epochs" \
                    "trainer.check_val_every_n_epoch=$epochs" "scheduler.warmup_steps=$(planned warmup_steps)" \
                    "leaderboard=$out/leaderboard.csv" "$@"
            else
                fit "$run" "hydra.searchpath=['file://$conf']" "experiment=planned_$set" "data.n_folds=$folds" \
                    "data.fold=$fold" "leaderboard=$out/leaderboard.csv" "$@"
            fi
            found=$found${found:+,}$run/detections
            fold=$((fold + 1))
        done
        against=null
        if [ "$way" = planned ]; then against=$out/${set}_made_score/per_image.csv; fi
        step "$out/${set}_${way}_score" sartorius.evaluate "detections=[$found]" "data.root=$root" \
            "against=$against" "output=$out/${set}_${way}_score"
    done
done
