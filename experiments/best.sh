#!/bin/sh
# A whole pipeline without a GPU, see LOG.md (2026-11-30): U-Nets fed in several ways, one of them begun with
# the model that comes along, each predicting eight views, joined; every cell segmented anew in its box. Retrains all of
# them and predicts a folder of images. About 20 minutes of a core for each network and fold; JOBS=2 trains two folds
# side by side. `tune` prints what other thresholds gain on images that were not tuned on; TUNED=1 takes them, which on
# 32 images helped once and hurt four times.
#
#   DATA=FOLDER IMAGES=FOLDER OUT=best FOLDS=3 JOBS=2 sh experiments/best.sh [overrides of the U-Nets' training]
#
# A stopped script goes on after the last command that ended well, and within a training.
set -eu

. "$(dirname "$0")/steps.sh"
data=${DATA:?DATA=FOLDER, in the layout of the competition}
images=${IMAGES:?IMAGES=FOLDER, of images to predict}
out=${OUT:-best}
folds=${FOLDS:-3}
jobs=${JOBS:-1}       # folds at a time
trials=${TRIALS:-100} # of a search for thresholds
ways=${WAYS:-plain builtin scale2}
tta=${TTA:-d4}
crops=${CROPS:-}      # overrides of the crop segmenter's training, without blanks in them
mkdir -p "$out"

# the folder whose test images the submission must have, and no others; a missing IMAGES ends here, not after hours
expected=null
place=$(cd "$images" && pwd -P)
if [ "$place" = "$(cd "$data/test" 2>/dev/null && pwd -P)" ]; then expected=$data; fi

members() { # {way: FOLDER,...} of the detections that a fold's models made of the images `held_back` or `new`
    list=
    for name in $ways; do
        list=$list${list:+, }$name$2:\ $out/$1_$name$2/detections
    done
    printf '%s' "$list"
}

train() { # a way of feeding, the folder of the run, its fold, then overrides
    way=$1
    run=$2
    of=$3
    shift 3
    case $way in
    plain) ;;
    pasted) set -- copy_paste=default copy_paste.until=1.0 "$@" ;;
    uncleaned) set -- cleaning=null "$@" ;;
    builtin) set -- copy_paste=default copy_paste.until=1.0 model.weights=builtin "$@" ;;
    scale2)
        set -- model.network.scale=2.0 "model.network.channels=[128,96,64]" data.batch_size=4 data.train_repeats=8 \
            trainer.max_epochs=42 trainer.check_val_every_n_epoch=42 "$@"
        ;;
    multiscale | rotated) set -- "transform=$way" transform.crop.height=128 transform.crop.width=128 "$@" ;;
    *) echo "WAYS: no way '$way'" >&2 && exit 1 ;;
    esac
    fit "$run" experiment=unet_cpu "data.root=$data" "data.n_folds=$folds" "data.fold=$of" \
        "leaderboard=$out/leaderboard.csv" "$@"
}

one_fold() { # trains the models of a fold, and predicts what they were not trained on; then overrides
    number=$1
    shift
    for name in $ways; do
        train "$name" "$out/$name$number" "$number" "$@"
        mkdir -p "$out/images$number"
        for found in "$out/$name$number"/detections/*.npz; do
            image=$(basename "$found" .npz).png
            cp "$data/train/$image" "$out/images$number/$image"
        done
        for kind in held_back new; do
            shown=$images
            if [ "$kind" = held_back ]; then shown=$out/images$number; fi
            step "$out/${kind}_$name$number" sartorius.predict "checkpoint=$out/$name$number/checkpoints/best.ckpt" \
                "images=$shown" "tta=$tta" "write=[]" "output=$out/${kind}_$name$number"
        done
    done
    # shellcheck disable=SC2086  # several words, or none
    fit "$out/crops$number" experiment=cropseg_cpu "data.root=$data" "data.n_folds=$folds" "data.fold=$number" $crops
    step "$out/joined$number" sartorius.ensemble "members={$(members held_back "$number")}" fusion=wbf \
        "output=$out/joined$number"
    step "$out/second$number" sartorius.predict model=two_stage "model.first=$out/joined$number/detections" \
        "model.second=$out/crops$number/checkpoints/best.ckpt" "images=$out/images$number" "write=[]" \
        "output=$out/second$number"
}

stop() { # the folds that are still running, when the script ends early
    for process in $running; do kill "$process" 2>/dev/null || true; done
}

wait_all() { # for the folds in `running`; ends with the first that failed
    for process in $running; do
        if ! wait "$process"; then
            echo "a fold failed, see the end of $out/fold*.log:" >&2
            tail -n 3 "$out"/fold*.log >&2
            exit 1
        fi
    done
    running=
}

oof= every= second= running= fold=0
trap stop EXIT
trap 'exit 130' INT TERM
while [ "$fold" -lt "$folds" ]; do
    if [ "$jobs" -gt 1 ]; then
        one_fold "$fold" "$@" >"$out/fold$fold.log" 2>&1 &
        running="$running $!"
        echo "fold $fold: see $out/fold$fold.log"
        if [ $(((fold + 1) % jobs)) -eq 0 ]; then wait_all; fi
    else
        one_fold "$fold" "$@"
    fi
    oof=$oof${oof:+,}$out/second$fold/detections
    every=$every${every:+, }$(members new "$fold")
    fold=$((fold + 1))
done
wait_all

step "$out/tuned" sartorius.tune "detections=[$oof]" "data.root=$data" search=unet "trials=$trials" accept_loss=true \
    "output=$out/tuned"
set --
if [ -n "${TUNED:-}" ]; then set -- "postprocess.file=$out/tuned/postprocess.yaml"; fi
step "$out/score" sartorius.evaluate "detections=[$oof]" "data.root=$data" "output=$out/score" "$@"

step "$out/new_joined" sartorius.ensemble "members={$every}" fusion=wbf "output=$out/new_joined"
fold=0
while [ "$fold" -lt "$folds" ]; do
    step "$out/new_second$fold" sartorius.predict model=two_stage "model.first=$out/new_joined/detections" \
        "model.second=$out/crops$fold/checkpoints/best.ckpt" "images=$images" "write=[]" "output=$out/new_second$fold"
    second=$second${second:+, }fold$fold:\ $out/new_second$fold/detections
    fold=$((fold + 1))
done
step "$out/new" sartorius.ensemble "members={$second}" fusion=wbf "output=$out/new"
"$python" -m sartorius.submit "detections=$out/new/detections" "data.root=$expected" "output=$out/submission.csv" "$@"
