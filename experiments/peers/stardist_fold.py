"""StarDist from nothing on all folds but one, for a budget of CPU time; predicts the fold left out.

Its own network (U-Net, 32 rays, a grid of 2 pixels: cells of 17 px are still 8 grid points across, for a quarter of the
cost), losses, Adam, batches of 4, and the augmentation of its examples. Crops of 128 px, not its 256: more steps in the
same time, as ours has. The learning rate is constant and then halved at every tenth of the CPU time, in place of
waiting for plateaus that a short run never sees. After training, not counted: its thresholds are optimised on training
images.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from competition_folder import THRESHOLDS, Budget, arguments, read_fold, write_submission
from csbdeep.utils import normalize
from stardist import fill_label_holes
from stardist.models import Config2D, StarDist2D

LEARNING_RATE = 0.001  # StarDist's default is 0.0003; after two minutes that had found no cell
CONSTANT = 0.6  # share of the budget before the first halving
STEPS_AN_EPOCH = 100  # after which the loss is printed
TUNED_ON = 8  # training images


class WithinBudget(keras.callbacks.Callback):
    """Sets the learning rate by the CPU time that is spent, and stops training when all of it is."""

    def __init__(self, budget: Budget) -> None:
        super().__init__()
        self.budget, self.steps = budget, 0

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        """Called by Keras after each step."""
        spent = self.budget.spent
        self.steps += 1
        halvings = max(0, int(np.floor((spent - CONSTANT) / 0.1)) + 1)
        self.model.optimizer.learning_rate.assign(LEARNING_RATE * 0.5**halvings)
        self.model.stop_training = spent >= 1

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Called by Keras after each epoch."""
        loss = (logs or {}).get("loss", float("nan"))
        print(f"{self.budget.spent:6.1%}  step {self.steps}  loss {loss:.4f}", flush=True)


def augment(image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flips, quarter turns, intensity and noise, as in StarDist's training example."""
    turns, flip = np.random.randint(4), np.random.rand() < 0.5  # noqa: NPY002 - StarDist draws from the global one
    image, labels = np.rot90(image, turns), np.rot90(labels, turns)
    if flip:
        image, labels = image[::-1], labels[::-1]
    image = image * np.random.uniform(0.6, 2) + np.random.uniform(-0.2, 0.2)  # noqa: NPY002
    noise = 0.02 * np.random.uniform(0, 1)  # noqa: NPY002
    return image + noise * np.random.normal(0, 1, image.shape), labels  # noqa: NPY002


def fit(images: list[np.ndarray], labels: list[np.ndarray], minutes: float) -> StarDist2D:
    """A network trained until the CPU time is used up; prints the loss. Building it is counted."""
    budget = Budget(minutes)
    config = Config2D(
        n_rays=32,
        grid=(2, 2),
        train_learning_rate=LEARNING_RATE,
        train_patch_size=(128, 128),
        train_reduce_lr=None,
        train_tensorboard=False,
    )
    model = StarDist2D(config, name="stardist", basedir=None)
    model.prepare_for_training()
    counter = WithinBudget(budget)
    model.callbacks.append(counter)
    # Training asks for validation data: one patch of a training image, which nothing is decided on.
    unchecked = images[:1], labels[:1]
    model.train(images, labels, unchecked, augmenter=augment, epochs=10**6, steps_per_epoch=STEPS_AN_EPOCH)
    print(f"{counter.steps} steps in {budget.spent * budget.seconds:.0f} s of CPU time", flush=True)
    return model


def main() -> None:
    """Train, choose the thresholds, predict, write."""
    args = arguments(__doc__)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    keras.utils.set_random_seed(args.seed)
    samples, left_out = read_fold(args.root, args.folds, args.fold)
    images = [normalize(sample.image, 1, 99.8) for sample in samples]
    labels = [fill_label_holes(sample.labels) for sample in samples]
    model = fit(images, labels, args.minutes)
    tuned_on = np.random.default_rng(args.seed).permutation(len(samples))[:TUNED_ON]
    model.optimize_thresholds(
        [images[k] for k in tuned_on], [labels[k] for k in tuned_on], iou_threshs=THRESHOLDS.tolist()
    )
    predicted = {}
    for sample in left_out:
        predicted[sample.id] = model.predict_instances(normalize(sample.image, 1, 99.8))[0]
        print(f"{sample.id}: {predicted[sample.id].max()} cells", flush=True)
    write_submission(args.output, predicted)


if __name__ == "__main__":
    main()
