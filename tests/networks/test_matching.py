import pytest
import torch
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from sartorius.networks import matching
from sartorius.networks.matching import BACKGROUND, BETWEEN, match_images, nth_true, sample


def boxes(count: int, seed: int, extent: float = 200) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * extent
    return torch.cat((corner, corner + 4 + torch.rand(count, 2, generator=generator) * 30), dim=1)


def match_boxes(candidates, cells, foreground: float, background: float, rescue: bool) -> torch.Tensor:
    return match_images([candidates], [cells], foreground, background, rescue)[0]


@pytest.mark.parametrize("block", [7, 64, 10_000])
@pytest.mark.parametrize("rescue", [False, True])
def test_equals_torchvisions_matcher_over_the_full_matrix(monkeypatch, block: int, rescue: bool) -> None:
    monkeypatch.setattr(matching, "BLOCK", block)
    candidates, cells = boxes(500, 0), boxes(60, 1)
    candidates = candidates[candidates[:, 1].argsort()]
    match = match_boxes(candidates, cells, 0.5, 0.3, rescue)
    # -1 and -2 mean the same there; random boxes have no ties, so "the best" is one candidate for both
    expected = Matcher(0.5, 0.3, allow_low_quality_matches=rescue)(box_iou(cells, candidates))
    if rescue:  # torchvision gives a rescued candidate the cell it overlaps most, not the cell that it rescues
        iou = box_iou(cells, candidates)
        expected[iou.argmax(dim=1)[iou.amax(dim=1) > 0]] = torch.nonzero(iou.amax(dim=1) > 0).flatten()
    assert torch.equal(match, expected)


def test_without_cells_or_candidates() -> None:
    assert match_boxes(boxes(5, 0), torch.zeros(0, 4), 0.5, 0.3, True).tolist() == [BACKGROUND] * 5
    assert match_boxes(torch.zeros(0, 4), boxes(5, 0), 0.5, 0.3, True).tolist() == []


def test_a_cell_that_no_candidate_touches_is_not_rescued() -> None:
    far = torch.tensor([[500.0, 500.0, 510.0, 510.0]])
    assert (match_boxes(boxes(5, 0), far, 0.5, 0.3, True) == BACKGROUND).all()


def test_between_the_thresholds_is_neither() -> None:
    cell = torch.tensor([[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]])
    candidates = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 4.0], [0.0, 0.0, 10.0, 2.0]])
    assert match_boxes(candidates, cell, 0.5, 0.3, False).tolist() == [0, BETWEEN, BACKGROUND]


def test_sample_keeps_its_shares() -> None:
    match = torch.tensor([0] * 20 + [BACKGROUND] * 200 + [BETWEEN] * 30)
    ((positive, negative),) = sample([match], 64, 0.25)
    assert (len(positive), len(negative)) == (16, 48)
    assert (match[positive] >= 0).all()
    assert (match[negative] == BACKGROUND).all()
    (positive, negative), nothing = sample([match[15:60], match[:0]], 64, 0.5)
    assert (len(positive), len(negative)) == (5, 40)
    assert [len(x) for x in nothing] == [0, 0]


def test_nth_true_is_nonzero_of_ranks() -> None:
    mask = torch.rand(500, generator=torch.Generator().manual_seed(0)) < 0.2
    every = torch.nonzero(mask).flatten()
    ranks = torch.randperm(len(every), generator=torch.Generator().manual_seed(1))[:20]
    assert torch.equal(nth_true(mask, ranks), every[ranks])
    assert nth_true(mask, ranks[:0]).tolist() == nth_true(mask[:0], ranks[:0]).tolist() == []


def test_images_are_matched_each_by_itself(monkeypatch) -> None:
    monkeypatch.setattr(matching, "BLOCK", 16)
    cells = [boxes(60, 1), torch.zeros(0, 4), boxes(9, 2)]
    candidates = [boxes(100, 3), boxes(5, 4), boxes(16, 5)]
    found = match_images(candidates, cells, 0.5, 0.3, True)
    for k in range(3):
        assert torch.equal(found[k], match_boxes(candidates[k], cells[k], 0.5, 0.3, True)), k


def test_a_candidate_that_rescues_two_cells_gets_the_last() -> None:
    candidate = torch.tensor([[0.0, 0.0, 10.0, 10.0], [100.0, 100.0, 110.0, 110.0]])
    cells = torch.tensor([[0.0, 0.0, 2.0, 2.0], [5.0, 5.0, 7.0, 7.0]])
    assert match_boxes(candidate, cells, 0.5, 0.3, True).tolist() == [1, BACKGROUND]
