#!/bin/sh
# A loop of labelling, simulated with the truth as the corrector: train on 4 images, predict the others, label the 4 that
# `review` names, train again; beside it the same with 4 at random. A third of the images is held back and scored in
# every round. Writes OUT/curve.csv, OUT/curve.png, and prints the means over the seeds.
#
#   DATA=FOLDER OUT=rounds SEEDS='0 1 2' ROUNDS=5 COUNT=4 STEPS=300 START=previous sh experiments/rounds.sh [overrides]
#
# START=previous begins each training with the weights of the round before, START=builtin with the model that comes
# along, which begins the first round in any case. Overrides are of the trainings. A stopped script goes on where it was.
set -eu

here=$(dirname "$0")
. "$here/steps.sh"
data=${DATA:?DATA=FOLDER, in the layout of the competition}
out=${OUT:-rounds}
seeds=${SEEDS:-0 1 2}
rounds=${ROUNDS:-5}
count=${COUNT:-4}   # images labelled in a round
steps=${STEPS:-300} # of a training
start=${START:-previous}
predict=${PREDICT:-} # overrides of the predictions, without blanks in them

one_round() { # its folder, its labelled images, the weights to begin with, then overrides: trains, predicts, scores
    place=$1
    labelled=$2
    weights=$3
    shift 3
    fit "$place/run" experiment=unet_cpu "data.root=$labelled" data.fold=all "model.weights=$weights" "seed=$seed" \
        trainer.max_epochs=-1 "trainer.max_steps=$steps" leaderboard=null "$@"
    for part in evaluation pool; do
        # shellcheck disable=SC2086  # several words, or none
        step "$place/$part" sartorius.predict "checkpoint=$place/run/checkpoints/last.ckpt" "images=$out/$part" \
            "write=[]" "output=$place/$part" $predict
    done
    step "$place/score" sartorius.evaluate "detections=[$place/evaluation/detections]" "data.root=$data" \
        "output=$place/score"
}

"$python" "$here/rounds.py" split "$data" "$out"
for seed in $seeds; do
    first=$out/seed$seed
    "$python" "$here/rounds.py" shuffle "$out/pool" "$first/random.csv" "$seed"
    "$python" "$here/rounds.py" label "$data" "$first/first" "$first/random.csv" "$count"
    one_round "$first/round0" "$first/first" builtin "$@"
    for order in review random; do
        before=$first/round0 had=$first/first round=1
        while [ "$round" -lt "$rounds" ]; do
            list=$first/random.csv
            if [ "$order" = review ]; then
                list=$before/review/review.csv
                step "$before/review" sartorius.review "detections=$before/pool/detections" "data.root=$had" \
                    "output=$before/review"
            fi
            labelled=$first/$order/images$round
            "$python" "$here/rounds.py" label "$data" "$labelled" "$list" $((count * (round + 1))) --before "$had"
            weights=builtin
            if [ "$start" = previous ]; then weights=$before/run/checkpoints/last.ckpt; fi
            before=$first/$order/round$round had=$labelled
            one_round "$before" "$had" "$weights" "$@"
            round=$((round + 1))
        done
    done
done
"$python" "$here/rounds.py" curve "$out"
