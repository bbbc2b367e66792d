#!/bin/sh
# The best pipeline so far without a GPU, see LOG.md (2026-11-21, where all networks started from nothing; they start from
# ImageNet now): U-Nets fed in several ways, one of them begun on generated images, joined; every cell segmented anew in
# its box. Retrains everything and predicts a folder of images. About 20 minutes of a core for each U-Net and fold.
# `tune` prints what other thresholds gain on images that were not tuned on; TUNED=1 takes them, which on 32 images
# helped once and hurt twice.
#
#   DATA=FOLDER IMAGES=FOLDER OUT=best FOLDS=3 sh experiments/best.sh [overrides of the U-Nets' training]
#
# A stopped script goes on after the last command that ended well.
set -eu

python=${PYTHON:-python}
data=${DATA:?DATA=FOLDER, in the layout of the competition}
images=${IMAGES:?IMAGES=FOLDER, of images to predict}
out=${OUT:-best}
folds=${FOLDS:-3}
trials=${TRIALS:-100} # of a search for thresholds
ways=${WAYS:-plain pasted uncleaned multiscale rotated pretrained}
generated=${GENERATED:-cort: 24, shsy5y: 14, astro: 22} # images that `pretrained` begins with
crops=${CROPS:-}      # overrides of the crop segmenter's training

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
    pretrained) echo "copy_paste=default copy_paste.until=1.0 model.weights=$out/generated/checkpoints/best.ckpt" ;;
    multiscale | rotated) echo "transform=$1 transform.crop.height=128 transform.crop.width=128" ;;
    *) echo "WAYS: no way '$1'" >&2 && exit 1 ;;
    esac
}

members() { # {way: FOLDER,...} of a fold's out-of-fold detections, or with "new" those of the new images
    list=
    for name in $ways; do
        list=$list${list:+, }$name$fold:\ $out/$1$name$fold/detections
    done
    printf '%s' "$list"
}

case " $ways " in
*" pretrained "*)
    step "$out/prepared" sartorius.prepare source=synthetic "paths.synthetic_dir=$out/images" \
        "source.images={$generated}" source.unlabelled=0 source.test=1 seed=11 "output=$out/prepared"
    step "$out/generated" sartorius.train experiment=unet_cpu "data.root=$out/images" data.n_folds=10 data.fold=0 \
        data.train_repeats=8 trainer.max_epochs=40 trainer.check_val_every_n_epoch=40 \
        "hydra.run.dir=$out/generated" "leaderboard=$out/leaderboard.csv" "$@"
    ;;
esac

oof= every= second=
fold=0
while [ "$fold" -lt "$folds" ]; do
    for name in $ways; do
        changes=$(way "$name")
        # shellcheck disable=SC2086  # several words, or none
        step "$out/$name$fold" sartorius.train experiment=unet_cpu "data.root=$data" "data.n_folds=$folds" \
            "data.fold=$fold" "hydra.run.dir=$out/$name$fold" "leaderboard=$out/leaderboard.csv" $changes "$@"
        step "$out/new_$name$fold" sartorius.predict "checkpoint=$out/$name$fold/checkpoints/best.ckpt" \
            "images=$images" "write=[]" "output=$out/new_$name$fold"
    done
    # shellcheck disable=SC2086
    step "$out/crops$fold" sartorius.train experiment=cropseg_cpu "data.root=$data" "data.n_folds=$folds" \
        "data.fold=$fold" "hydra.run.dir=$out/crops$fold" $crops
    step "$out/joined$fold" sartorius.ensemble "members={$(members "")}" fusion=wbf "output=$out/joined$fold"

    # the second stage sees the images of this fold, which none of its models was trained on
    mkdir -p "$out/held_back$fold"
    for found in "$out/joined$fold"/detections/*.npz; do
        image=$(basename "$found" .npz).png
        cp "$data/train/$image" "$out/held_back$fold/$image"
    done
    step "$out/second$fold" sartorius.predict model=two_stage "model.first=$out/joined$fold/detections" \
        "model.second=$out/crops$fold/checkpoints/best.ckpt" "images=$out/held_back$fold" "output=$out/second$fold"
    oof=$oof${oof:+,}$out/second$fold/detections
    every=$every${every:+, }$(members new_)
    fold=$((fold + 1))
done

step "$out/tuned" sartorius.tune "detections=[$oof]" "data.root=$data" search=unet "trials=$trials" accept_loss=true \
    "output=$out/tuned"
thresholds=${TUNED:+postprocess.file=$out/tuned/postprocess.yaml}
# shellcheck disable=SC2086  # one word, or none
step "$out/score" sartorius.evaluate "detections=[$oof]" "data.root=$data" "output=$out/score" $thresholds

step "$out/new_joined" sartorius.ensemble "members={$every}" fusion=wbf "output=$out/new_joined"
fold=0
while [ "$fold" -lt "$folds" ]; do
    step "$out/new_second$fold" sartorius.predict model=two_stage "model.first=$out/new_joined/detections" \
        "model.second=$out/crops$fold/checkpoints/best.ckpt" "images=$images" "output=$out/new_second$fold"
    second=$second${second:+, }fold$fold:\ $out/new_second$fold/detections
    fold=$((fold + 1))
done
step "$out/new" sartorius.ensemble "members={$second}" fusion=wbf "output=$out/new"
# shellcheck disable=SC2086
"$python" -m sartorius.submit "detections=$out/new/detections" "data.root=$data" "output=$out/submission.csv" $thresholds
