#!/bin/sh
# Makes the model that comes along: a U-Net from what ImageNet taught (Apache-2.0), trained on generated images only, so
# that nobody's images are in it. About 45 minutes of a core. With DATA=FOLDER, in the layout of the competition, it is
# scored beside Otsu + watershed on those images, none of which it was trained on. See LOG.md (2026-11-30).
#
#   OUT=builtin [DATA=FOLDER] sh experiments/builtin.sh
#
# A stopped script goes on after the last command that ended well, and within a training.
set -eu

. "$(dirname "$0")/steps.sh"
out=${OUT:-builtin}

step "$out/prepared" sartorius.prepare source=synthetic "paths.synthetic_dir=$out/images" \
    "source.images={cort: 110, shsy5y: 60, astro: 90}" source.unlabelled=0 source.test=1 seed=12 "output=$out/prepared"
fit "$out/run" experiment=unet_cpu data=synthetic "data.root=$out/images" data.n_folds=10 data.fold=0 \
    data.train_repeats=4 trainer.max_epochs=40 trainer.check_val_every_n_epoch=40 "leaderboard=$out/leaderboard.csv"
score=
if [ -n "${DATA:-}" ]; then
    step "$out/predicted" sartorius.predict "checkpoint=$out/run/checkpoints/best.ckpt" "images=$DATA/train" \
        "write=[]" "output=$out/predicted"
    step "$out/score" sartorius.evaluate "detections=[$out/predicted/detections]" baseline=otsu_watershed \
        "data.root=$DATA" "output=$out/score"
    score=score=$out/score
fi
"$python" -m sartorius.export "checkpoint=$out/run/checkpoints/best.ckpt" format=bundle weights=float16 name=builtin \
    "description='A U-Net for phase-contrast images of cortical neurons, astrocytes and SH-SY5Y cells'" \
    "intended_use='It was trained on generated images only, so that nobody owns a part of it: a start for a training on \
annotated images of your own, and a first look at your images. Check what it finds before you use it.'" \
    license=Apache-2.0 ${score:+"$score"} "output=$out/builtin.zip"
echo "the model that comes along: cp $out/builtin.zip sartorius/networks/builtin.zip"
