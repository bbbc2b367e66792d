from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchmetrics.functional.classification import binary_accuracy, binary_f1_score, binary_jaccard_index

from sartorius.metrics import pixels
from sartorius.metrics.pixels import PixelScores, per_image_table, pixel_row, print_table, scores_per_image, summary

NONE, ALL = torch.zeros(3, 4), torch.ones(3, 4)
LEFT = (torch.arange(4) < 2).float().expand(3, 4)  # 6 of 12 pixels


def scored(*pairs: tuple[torch.Tensor, torch.Tensor], threshold: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Rows and cross-entropies of (foreground, truth) pairs."""
    rows, bce = zip(*(pixel_row(k, f, t.bool(), threshold) for k, (f, t) in enumerate(pairs)), strict=True)
    return torch.stack(rows).numpy(), torch.stack(bce).double().numpy()


def test_counts_and_scores_of_one_image() -> None:
    rows, bce = scored((0.8 * LEFT + 0.1, (torch.arange(4) < 3).float().expand(3, 4)))
    np.testing.assert_array_equal(rows, [[0, 6, 0, 3, 3]])
    values = {name: value.item() for name, value in scores_per_image(rows, bce).items()}
    assert values == pytest.approx(
        {
            "accuracy": 9 / 12,
            "iou": 6 / 9,
            "dice": 12 / 15,
            "bce": -(6 * math.log(0.9) + 3 * math.log(0.1) + 3 * math.log(0.9)) / 12,
            "confluence_true": 9 / 12,
            "confluence_predicted": 6 / 12,
        }
    )


def test_agrees_with_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(0)
    foreground = torch.rand(5, 40, 30, generator=generator)
    truth = torch.rand(5, 40, 30, generator=generator) < torch.linspace(0.1, 0.9, 5)[:, None, None]
    for threshold in (0.5, 0.3):
        rows, bce = scored(*zip(foreground, truth, strict=True), threshold=threshold)
        ours = scores_per_image(rows, bce)
        for name, reference in (
            ("accuracy", binary_accuracy),
            ("iou", binary_jaccard_index),
            ("dice", binary_f1_score),
        ):
            values = [reference(p, t.int(), threshold).item() for p, t in zip(foreground, truth, strict=True)]
            np.testing.assert_allclose(ours[name], values, rtol=1e-6)
            pooled = reference(foreground, truth.int(), threshold).item()
            assert summary(rows, bce)[f"pooled_{name}"] == pytest.approx(pooled)
        entropy = F.binary_cross_entropy(foreground, truth.float(), reduction="none").mean(dim=(1, 2))
        np.testing.assert_allclose(ours["bce"], entropy.numpy(), rtol=1e-5)


@pytest.mark.parametrize(
    ("foreground", "truth", "overlap"), [(NONE, NONE, 1), (ALL, NONE, 0), (NONE, ALL, 0), (ALL, ALL, 1)]
)
def test_extremes(foreground: torch.Tensor, truth: torch.Tensor, overlap: int) -> None:
    rows, bce = scored((foreground, truth))
    values = scores_per_image(rows, bce)
    assert (values["iou"], values["dice"], values["accuracy"]) == (overlap, overlap, overlap)
    reference = F.binary_cross_entropy(foreground, truth).item()
    assert values["bce"].item() == pytest.approx(reference) == pytest.approx(100 * (1 - overlap))


def test_a_probability_at_the_threshold_is_background() -> None:
    assert scored((0.5 * ALL, ALL))[0].tolist() == [[0, 0, 0, 12, 0]]


def test_half_precision_counts_alike() -> None:
    probability = torch.linspace(0, 1, 12).reshape(3, 4)
    half, full = scored((probability.bfloat16(), LEFT)), scored((probability.bfloat16().float(), LEFT))
    np.testing.assert_array_equal(half[0], full[0])
    np.testing.assert_array_equal(half[1], full[1])


def test_different_sizes() -> None:
    with pytest.raises(ValueError, match=r"foreground \(3, 4\) and truth \(4, 3\)"):
        pixel_row(0, NONE, NONE.T.bool(), 0.5)


def test_pooled_pixels_are_not_the_mean_over_images() -> None:
    one = torch.zeros(3, 4)
    one[0, 0] = 1
    rows, bce = scored((one, one), (NONE, LEFT))
    values = summary(rows, bce)
    assert values["iou"] == (1 + 0) / 2
    assert values["pooled_iou"] == 1 / 7
    assert values["pooled_dice"] == 2 / 8
    assert values["accuracy"] == values["pooled_accuracy"] == (12 + 6) / 24
    assert values["bce"] == pytest.approx(values["pooled_bce"])
    assert values["confluence_error"] == (0 + 6 / 12) / 2
    assert (values["confluence_true"], values["confluence_predicted"]) == ((1 + 6) / 24, 1 / 24)


def test_over_and_underestimated_confluence_does_not_cancel() -> None:
    values = summary(*scored((ALL, LEFT), (NONE, LEFT)))
    assert values["confluence_true"] == values["confluence_predicted"] == 1 / 2
    assert values["confluence_error"] == 1 / 2


def test_nothing_scored() -> None:
    metric = PixelScores(0.5)
    assert summary(*metric.gathered()) == {}
    assert metric.gathered()[0].shape == (0, 5)
    assert list(per_image_table(*metric.gathered(), [], []).columns) == [
        "image_id", "cell_type", "accuracy", "iou", "dice", "bce", "confluence_true", "confluence_predicted",
    ]  # fmt: skip


def test_the_table_has_a_line_for_all_and_each_type(capsys: pytest.CaptureFixture[str]) -> None:
    table = per_image_table(*scored((LEFT, LEFT), (NONE, LEFT), (NONE, NONE)), ["a", "b", "c"], ["x", "x", "y"])
    assert table.image_id.tolist() == ["a", "b", "c"]
    print_table("val", table)
    lines = {line.split("│")[1].strip(): line for line in capsys.readouterr().out.splitlines() if "│" in line}
    assert list(lines) == ["all", "x", "y"]
    cells = [text.strip() for text in lines["x"].split("│")[2:-1]]
    assert cells == ["2", "75.00", "25.0000", "0.5000", "0.5000", "50.00 / 25.00"]
    assert [text.strip() for text in lines["all"].split("│")[2:4]] == ["3", f"{100 * (1 + 0.5 + 1) / 3:.2f}"]


def test_the_state_sorts_images_and_counts_each_once() -> None:
    metric = PixelScores(0.5)
    for index, found in ((4, LEFT), (1, NONE), (4, ALL)):
        metric.update(index, found, LEFT.bool())
    rows, bce = metric.gathered()
    assert rows.tolist() == [[1, 0, 0, 6, 6], [4, 6, 0, 0, 6]]
    assert (rows.dtype, bce.dtype) == (np.int64, np.float64)
    assert bce.tolist() == [600, 0]
    assert metric.compute()["iou"] == 1 / 2
    metric.reset()
    assert len(metric.gathered()[0]) == 0


def test_processes_that_repeat_images_count_once() -> None:
    others = {pixels.ROW_LENGTH: torch.tensor([[0, 6, 0, 0, 6], [1, 0, 0, 6, 6]]), 1: torch.tensor([0.0, 600.0])}

    def gather(state: torch.Tensor, group: object = None) -> list[torch.Tensor]:
        return [state, others[state.shape[-1] if state.ndim == 2 else 1]]

    metric = PixelScores(0.5, distributed_available_fn=lambda: True, dist_sync_fn=gather)
    metric.update(0, LEFT, LEFT.bool())
    metric.update(2, NONE, LEFT.bool())
    rows, bce = metric.gathered()
    assert rows[:, 0].tolist() == [0, 1, 2]
    assert bce.tolist() == [0, 600, 600]
    assert math.isclose(metric.compute()["dice"], 1 / 3)
    assert len(metric.rows) == 2, "the process keeps its own rows"


def test_a_process_without_images_takes_part() -> None:
    sent: list[tuple[torch.dtype, tuple[int, ...]]] = []

    def gather(state: torch.Tensor, group: object = None) -> list[torch.Tensor]:
        sent.append((state.dtype, tuple(state.shape)))
        return [state, torch.tensor([[3, 6, 0, 0, 6]]) if state.ndim == 2 else torch.tensor([0.0])]

    metric = PixelScores(0.5, distributed_available_fn=lambda: True, dist_sync_fn=gather)
    rows, bce = metric.gathered()
    assert (rows.tolist(), bce.tolist()) == ([[3, 6, 0, 0, 6]], [0])
    assert sorted(sent, key=str) == [(torch.float32, (0,)), (torch.int64, (0, 5))]
