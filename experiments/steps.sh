# Sourced by scripts that can be stopped: runs a command of the package unless it has ended well before.

python=${PYTHON:-python}
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

step() { # the folder that it fills, then a command of the package
    folder=$1
    shift
    if [ -e "$folder/done" ]; then return; fi
    printf '\n$ python -m'
    printf ' %s' "$@"
    printf '\n'
    "$python" -m "$@"
    mkdir -p "$folder"
    touch "$folder/done"
}

fit() { # the folder of a run, then overrides of its training; goes on with one that was stopped
    fitted=$1
    shift
    if [ -e "$fitted/checkpoints/last.ckpt" ]; then set -- "$@" "ckpt_path=$fitted/checkpoints/last.ckpt"; fi
    step "$fitted" sartorius.train "hydra.run.dir=$fitted" "$@"
}
