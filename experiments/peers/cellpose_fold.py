"""Cellpose 3 from nothing on all folds but one, for a budget of CPU time; predicts the fold left out.

Its own network, loss, augmentation, optimiser (AdamW, 0.005, batches of 2 crops of 224 px) and rescaling of each
image to a diameter of 30 px. The loop of `cellpose.train.train_seg` is repeated here, because that one counts epochs:
the learning rate keeps its shape (warm-up, constant, ten halvings), over CPU time, so that the whole schedule fits.
After training, not counted: its two thresholds and its diameter are chosen on training images. The diameter is their
mean, its default, or measured in each image in a first pass: the second half of what its size model does. The first
half, a regression from an image's style, is left out: a fold has some 20 images to fit 256 numbers to.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from cellpose import dynamics, metrics, models, train, transforms, utils
from competition_folder import THRESHOLDS, Budget, Sample, arguments, read_fold, write_submission

LEARNING_RATE, WEIGHT_DECAY, BATCH, CROP = 0.005, 1e-5, 2, 224  # defaults of train_seg but for the batch, 8:
# within minutes on a CPU four times the steps were worth more (loss 0.83 against 1.06 after 90 s)
GREY = [0, 0]  # cellpose's channels of a grey image
TUNED_ON = 6  # training images
CELL_THRESHOLDS, FLOW_THRESHOLDS = (-2.0, -1.0, 0.0, 1.0), (0.4, 0.7, 1.0)  # defaults 0 and 0.4
Decoder = Callable[..., np.ndarray]


def learning_rate(spent: float) -> float:
    """train_seg's schedule of 300 epochs: 10 of warm-up, and in the last 50 it is halved every 5."""
    return LEARNING_RATE * min(1.0, 30 * spent) * 0.5 ** max(0, math.ceil(60 * (spent - 250 / 300)))


def fit(model: models.CellposeModel, samples: list[Sample], minutes: float, seed: int) -> None:
    """Train the network until the CPU time is used up; prints the loss."""
    images = [transforms.convert_image(sample.image, channels=GREY).transpose(2, 0, 1) for sample in samples]
    images = [transforms.normalize_img(image, axis=0) for image in images]
    flows = dynamics.labels_to_flows([sample.labels for sample in samples], device=model.device)
    diameters = np.maximum([utils.diameters(sample.labels)[0] for sample in samples], 5.0)
    net = model.net.to(memory_format=torch.channels_last)  # an eighth faster on a CPU, the same numbers
    net.diam_labels.data = torch.tensor([diameters.mean()], dtype=torch.float32)
    model.diam_labels = float(diameters.mean())
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    order: list[int] = []
    losses: list[float] = []
    np.random.seed(seed)  # noqa: NPY002 - cellpose draws from the global generator
    net.train()
    budget = Budget(minutes)
    while (spent := budget.spent) < 1:
        if len(order) < BATCH:
            order += np.random.permutation(len(images)).tolist()  # noqa: NPY002
        chosen, order = order[:BATCH], order[BATCH:]
        crops, targets, _ = transforms.random_rotate_and_resize(
            [images[k] for k in chosen],
            Y=[flows[k][1:] for k in chosen],
            rescale=diameters[chosen] / net.diam_mean.item(),
            scale_range=0.5,
            xy=(CROP, CROP),
        )
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(spent)
        loss = train._loss_fn_seg(targets, net(torch.from_numpy(crops))[0], model.device)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if len(losses) % 20 == 0:
            print(f"{spent:6.1%}  step {len(losses)}  loss {np.mean(losses[-20:]):.4f}", flush=True)
    print(f"{len(losses)} steps in {budget.spent * budget.seconds:.0f} s of CPU time", flush=True)
    net.eval()


def decoder(model: models.CellposeModel, image: np.ndarray, diameter: float) -> Decoder:
    """Run the network once; what comes back makes a label map of two thresholds, as `CellposeModel.eval` does."""
    _, (_, flow, probability), _ = model.eval(image, channels=GREY, diameter=diameter, compute_masks=False)

    def decode(cell_threshold: float, flow_threshold: float) -> np.ndarray:
        return dynamics.resize_and_compute_masks(
            flow,
            probability,
            niter=200 * diameter / model.diam_mean,
            cellprob_threshold=cell_threshold,
            flow_threshold=flow_threshold,
            device=model.device,
        )

    return decode


def diameter_of(model: models.CellposeModel, sample: Sample, limits: tuple[float, float]) -> float:
    """The median diameter of the cells found at the training images' mean diameter, px; kept within `limits`."""
    labels = decoder(model, sample.image, model.diam_labels)(0.0, 0.4)
    return float(np.clip(utils.diameters(labels)[0] if labels.any() else model.diam_labels, *limits))


def choose(
    model: models.CellposeModel, samples: list[Sample], limits: tuple[float, float]
) -> tuple[bool, tuple[float, float]]:
    """(whether each image's diameter is measured, thresholds of cell and flow): the best on training images."""
    found = {}
    for measured in (False, True):
        diameters = [diameter_of(model, p, limits) if measured else model.diam_labels for p in samples]
        decoders = [decoder(model, p.image, diameter) for p, diameter in zip(samples, diameters, strict=True)]
        for pair in itertools.product(CELL_THRESHOLDS, FLOW_THRESHOLDS):
            maps = [decode(*pair) for decode in decoders]
            precision = metrics.average_precision([p.labels for p in samples], maps, threshold=THRESHOLDS)[0]
            found[measured, pair] = float(precision.mean())
            print(f"measured {measured}, cell {pair[0]}, flow {pair[1]}: {found[measured, pair]:.4f}", flush=True)
    return max(found, key=lambda key: found[key])


def main() -> None:
    """Train, choose, predict, write."""
    args = arguments(__doc__)
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    samples, left_out = read_fold(args.root, args.folds, args.fold)
    model = models.CellposeModel(gpu=False, pretrained_model=False, mkldnn=False)
    fit(model, samples, args.minutes, args.seed)
    sizes = [utils.diameters(sample.labels)[0] for sample in samples]
    limits = (min(sizes), max(sizes))
    tuned_on = np.random.default_rng(args.seed).permutation(len(samples))[:TUNED_ON]
    measured, thresholds = choose(model, [samples[k] for k in tuned_on], limits)
    print(f"chosen: measured {measured}, cell and flow threshold {thresholds}", flush=True)
    predicted = {}
    for sample in left_out:
        diameter = diameter_of(model, sample, limits) if measured else model.diam_labels
        predicted[sample.id] = decoder(model, sample.image, diameter)(*thresholds)
        print(f"{sample.id}: diameter {diameter:.1f}, {predicted[sample.id].max()} cells", flush=True)
    write_submission(args.output, predicted)


if __name__ == "__main__":
    main()
