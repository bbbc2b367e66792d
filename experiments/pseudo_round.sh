#!/bin/sh
# Rounds of pseudo-labelling: all folds are trained, their thresholds tuned out of fold, their models joined on the
# unlabelled images, and what they agree on is trained on in the next round beside the labelled images.
#
#   DATA=FOLDER OUT=rounds ROUNDS=2 FOLDS=5 EXPERIMENT=maskrcnn_r50 sh experiments/pseudo_round.sh [train overrides]
#
# A stopped script goes on after the last command that ended well. The ensemble holds networks that saw a fold's
# validation images, and they come back through its labels: its gain is an upper bound. OWN=1 labels for each fold
# with its own network alone, which has not seen them: a smaller gain, but an honest one.
set -eu

python=${PYTHON:-python}
data=${DATA:?DATA=FOLDER, in the layout of the competition}
out=${OUT:-rounds}
experiment=${EXPERIMENT:-maskrcnn_r50}
folds=${FOLDS:-5}
rounds=${ROUNDS:-1}
trials=${TRIALS:-300} # of a search for thresholds
tta=${TTA:-none}
own=${OWN:-}
predict=${PREDICT:-} # further overrides of predict
labels=${LABELS:-}   # thresholds, of writing and of reading: pseudo_labels.min_score.cort=0.6
unlabelled=$data/train_semi_supervised

step() { # a file that says it is done, the folder that it fills, then a command of the package
    done=$1 folder=$2
    shift 2
    if [ -e "$done" ]; then return; fi
    rm -rf "$folder"
    printf '\n$ python -m'
    printf ' %s' "$@"
    printf '\n'
    "$python" -m "$@"
    mkdir -p "$(dirname "$done")" && touch "$done"
}

each() { # [round/fold0ENDING,round/fold1ENDING,...]
    list= fold=0
    while [ "$fold" -lt "$folds" ]; do
        list=$list${list:+,}$here/fold$fold$1
        fold=$((fold + 1))
    done
    printf '[%s]' "$list"
}

label() { # the done file, detections, the csv
    # shellcheck disable=SC2086
    step "$1" "" sartorius.pseudo_label "detections=$2" "images=$unlabelled" "output=$3" $labels
}

round=0
while [ "$round" -le "$rounds" ]; do # round 0 knows the labelled images only
    here=$out/round$round
    before=$out/round$((round - 1))

    fold=0
    while [ "$fold" -lt "$folds" ]; do
        pseudo= against=
        if [ "$round" -gt 0 ]; then
            pseudo="data=pseudo_labelled pseudo_labels.file=$before/pseudo${own:+$fold}.csv $labels"
            against="against=$out/round0/score"
        fi
        # shellcheck disable=SC2086  # several words, or none
        step "$here/done/train$fold" "$here/fold$fold" sartorius.train "experiment=$experiment" "data.root=$data" \
            "data.n_folds=$folds" "data.fold=$fold" "hydra.run.dir=$here/fold$fold" \
            "leaderboard=$out/leaderboard.csv" $pseudo "$@"
        fold=$((fold + 1))
    done

    # each round takes its thresholds, whatever they gain, so that rounds can be compared
    step "$here/done/tune" "$here/tuned" sartorius.tune "detections=$(each /detections)" "data.root=$data" \
        "checkpoint=$(each /checkpoints/best.ckpt)" "trials=$trials" "folds=$folds" accept_loss=true \
        "output=$here/tuned"
    # shellcheck disable=SC2086
    step "$here/done/score" "$here/score" sartorius.evaluate "detections=$(each /detections)" "data.root=$data" \
        "postprocess.file=$here/tuned/postprocess.yaml" "output=$here/score" $against

    if [ "$round" -lt "$rounds" ]; then
        fold=0
        while [ "$fold" -lt "$folds" ]; do
            # shellcheck disable=SC2086
            step "$here/done/predict$fold" "$here/unlabelled$fold" sartorius.predict "images=$unlabelled" \
                "checkpoint=$here/fold$fold/checkpoints/best.ckpt" "tta=$tta" "write=[]" \
                "output=$here/unlabelled$fold" $predict
            if [ -n "$own" ]; then
                label "$here/done/label$fold" "$here/unlabelled$fold/detections" "$here/pseudo$fold.csv"
            fi
            fold=$((fold + 1))
        done
        if [ -z "$own" ]; then
            members=$(each /detections | sed "s|/fold\([0-9]*\)/detections|/unlabelled\1/detections|g")
            step "$here/done/ensemble" "" sartorius.ensemble "members=$members" "output=$here/ensemble"
            label "$here/done/label" "$here/ensemble/detections" "$here/pseudo.csv"
        fi
    fi
    round=$((round + 1))
done
printf '\n%s: each round'\''s out-of-fold score, and its difference from the first\n' "$out/round*/score/metrics.json"
