"""`python -m tests.smoke.toy_train`: the train command, also for the models of tests.doubles."""

from sartorius import train
from sartorius.networks import checkpoints

if __name__ == "__main__":
    checkpoints.TRUSTED = (*checkpoints.TRUSTED, "tests.doubles.")
    train.main()
