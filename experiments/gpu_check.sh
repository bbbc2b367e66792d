#!/bin/sh
# Try everything that a GPU does, in 8 minutes at most: generated images, no network. Leaves OUT/gpu_check.md (and .json).
#
#   OUT=gpu_check sh experiments/gpu_check.sh
#
# Takes the variables PYTHON (the interpreter), OUT (a folder for the table and the log), DEVICE (cuda; cpu), BUDGET
# (seconds; what would not fit is skipped), TINY (1: small images and networks, a step or two: does it run at all),
# ONLY (names of parts with wildcards, comma-separated: ONLY='U-Net*,compile') and OVERRIDES (further settings of the
# families' trainings, as on a command line). Exit code 1: something failed. Without a GPU: DEVICE=cpu TINY=1.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" NO_ALBUMENTATIONS_UPDATE=1
exec "${PYTHON:-python}" "$root/experiments/gpu_check.py" --out "${OUT:-gpu_check}" --device "${DEVICE:-cuda}" \
    --budget "${BUDGET:-480}" --tiny "${TINY:-0}" --only "${ONLY:-*}" --overrides "${OVERRIDES:-}"
