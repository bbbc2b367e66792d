"""`python -m tests.smoke.toy_train`: the train command, also for the models of tests.doubles."""

from sartorius import train
from tests import doubles

if __name__ == "__main__":
    assert doubles.ToyModule  # a model outside the package is known once its module is imported
    train.main()
