#!/bin/sh
# The best pipeline so far without a GPU, see LOG.md (2026-11-30): U-Nets fed in several ways, one of them begun with
# the model that comes along, each predicting eight views, joined; every cell segmented anew in its box. Retrains all of
# them and predicts a folder of images. About 20 minutes of a core for each network and fold; JOBS=2 trains two folds side by side.
# `tune` prints what other thresholds gain on images that were not tuned on; TUNED=1 takes them, which on 32 images
# helped once and hurt three times.
#
#   DATA=FOLDER IMAGES=FOLDER OUT=best FOLDS=3 JOBS=2 sh experiments/best.sh [overrides of the U-Nets' training]
#
# A stopped script goes on after the last command that ended well.
set -eu

python=${PYTHON:-python}
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
data=${DATA:?DATA=FOLDER, in the layout of the competition}
images=${IMAGES:?IMAGES=FOLDER, of images to predict}
out=${OUT:-best}
folds=${FOLDS:-3}
jobs=${JOBS:-1}       # folds at a time
trials=${TRIALS:-100} # of a search for thresholds
ways=${WAYS:-plain builtin scale2}
tta=${TTA:-d4}
crops=${CROPS:-}      # overrides of the crop segmenter's training
overrides=$*
mkdir -p "$out"

step() { # the folder that it fills, then a command of the package
    folder=$1
    shift
    if [ -e "$folder/done" ]; then return; fi
    printf '\n$ python -m'
    printf ' %s' "$@"
    printf '\n'
    "$python" -m "$@"
    touch "$folder/done"
}

way() { # what a way of feeding changes
    case $1 in
    plain) ;;
    pasted) echo copy_paste=default copy_paste.until=1.0 ;;
    uncleaned) echo cleaning=null ;;
    builtin) echo copy_paste=default copy_paste.until=1.0 model.weights=builtin ;;
    scale2) echo "model.network.scale=2.0 model.network.channels=[128,96,64] data.batch_size=4 data.train_repeats=8 trainer.max_epochs=42 trainer.check_val_every_n_epoch=42" ;;
    multiscale | rotated) echo "transform=$1 transform.crop.height=128 transform.crop.width=128" ;;
    *) echo "WAYS: no way '$1'" >&2 && exit 1 ;;
    esac
}

members() { # {way: FOLDER,...} of the detections that a fold's models made of the images `held_back` or `new`
    list=
    for name in $ways; do
        list=$list${list:+, }$name$2:\ $out/$1_$name$2/detections
    done
    printf '%s' "$list"
}

one_fold() { # trains the models of a fold, and predicts what they were not trained on
    for name in $ways; do
        changes=$(way "$name")
        # shellcheck disable=SC2086  # several words, or none
        step "$out/$name$1" sartorius.train experiment=unet_cpu "data.root=$data" "data.n_folds=$folds" "data.fold=$1" \
            "hydra.run.dir=$out/$name$1" "leaderboard=$out/leaderboard.csv" $changes $overrides
        mkdir -p "$out/images$1"
        for found in "$out/$name$1"/detections/*.npz; do
            image=$(basename "$found" .npz).png
            cp "$data/train/$image" "$out/images$1/$image"
        done
        for kind in held_back new; do
            shown=$images
            if [ "$kind" = held_back ]; then shown=$out/images$1; fi
            step "$out/${kind}_$name$1" sartorius.predict "checkpoint=$out/$name$1/checkpoints/best.ckpt" \
                "images=$shown" "tta=$tta" "write=[]" "output=$out/${kind}_$name$1"
        done
    done
    # shellcheck disable=SC2086
    step "$out/crops$1" sartorius.train experiment=cropseg_cpu "data.root=$data" "data.n_folds=$folds" \
        "data.fold=$1" "hydra.run.dir=$out/crops$1" $crops
    step "$out/joined$1" sartorius.ensemble "members={$(members held_back "$1")}" fusion=wbf "output=$out/joined$1"
    step "$out/second$1" sartorius.predict model=two_stage "model.first=$out/joined$1/detections" \
        "model.second=$out/crops$1/checkpoints/best.ckpt" "images=$out/images$1" "write=[]" "output=$out/second$1"
}

wait_all() { # for the folds in `running`; ends with the first that failed
    for process in $running; do wait "$process"; done
    running=
}

oof= every= second= running= fold=0
while [ "$fold" -lt "$folds" ]; do
    if [ "$jobs" -gt 1 ]; then
        one_fold "$fold" >"$out/fold$fold.log" 2>&1 &
        running="$running $!"
        echo "fold $fold: see $out/fold$fold.log"
        if [ $(((fold + 1) % jobs)) -eq 0 ]; then wait_all; fi
    else
        one_fold "$fold"
    fi
    oof=$oof${oof:+,}$out/second$fold/detections
    every=$every${every:+, }$(members new "$fold")
    fold=$((fold + 1))
done
wait_all

step "$out/tuned" sartorius.tune "detections=[$oof]" "data.root=$data" search=unet "trials=$trials" accept_loss=true \
    "output=$out/tuned"
thresholds=${TUNED:+postprocess.file=$out/tuned/postprocess.yaml}
# shellcheck disable=SC2086  # one word, or none
step "$out/score" sartorius.evaluate "detections=[$oof]" "data.root=$data" "output=$out/score" $thresholds

step "$out/new_joined" sartorius.ensemble "members={$every}" fusion=wbf "output=$out/new_joined"
fold=0
while [ "$fold" -lt "$folds" ]; do
    step "$out/new_second$fold" sartorius.predict model=two_stage "model.first=$out/new_joined/detections" \
        "model.second=$out/crops$fold/checkpoints/best.ckpt" "images=$images" "write=[]" "output=$out/new_second$fold"
    second=$second${second:+, }fold$fold:\ $out/new_second$fold/detections
    fold=$((fold + 1))
done
step "$out/new" sartorius.ensemble "members={$second}" fusion=wbf "output=$out/new"
# shellcheck disable=SC2086
"$python" -m sartorius.submit "detections=$out/new/detections" "data.root=$data" "output=$out/submission.csv" $thresholds
