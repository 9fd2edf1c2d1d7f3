"""The order of pictures: a pure function of seed and step."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lorablend.train.data.buckets import assign
from lorablend.train.order import Order, Pick

SIZES = [(100, 100)] * 5 + [(200, 100)] * 3 + [(100, 200)]
CROPS = assign(SIZES, 128, 32)
REPEATS = [1, 2, 1, 1, 3, 1, 1, 2, 1]


def order(**changes: Any) -> Order:
    settings: dict[str, Any] = {"batch": 2, "seed": 7, "flip": True, "dropout": 0.3, **changes}
    return Order(CROPS, REPEATS, [1, 2, 3, 1, 4, 1, 1, 1, 2], **settings)


@given(st.integers(1, 5), st.integers(0, 3))
def test_an_epoch_has_every_picture_as_often_as_its_repeats(batch: int, epoch: int) -> None:
    it = order(batch=batch)
    steps = range(epoch * it.batches_per_epoch, (epoch + 1) * it.batches_per_epoch)
    batches = [it.batch_at(step) for step in steps]
    assert Counter(pick.example for picks in batches for pick in picks) == dict(enumerate(REPEATS))
    for picks in batches:
        assert 1 <= len(picks) <= batch
        assert len({CROPS[pick.example].bucket for pick in picks}) == 1


@given(st.lists(st.integers(0, 60), max_size=20))
def test_any_step_at_any_time_is_the_same(steps: list[int]) -> None:
    straight = order()
    all_of_them = [straight.batch_at(step) for step in range(61)]
    jumping = order()
    assert [jumping.batch_at(step) for step in steps] == [all_of_them[step] for step in steps]


def test_the_first_batches_of_seed_7() -> None:
    """A literal expectation, so that no later version changes a run that will be resumed."""
    assert [order().batch_at(step) for step in range(2)] == [
        [Pick(1, 1, flip=True, dropout=False), Pick(4, 2, flip=True, dropout=True)],
        [Pick(3, 0, flip=False, dropout=False), Pick(0, 0, flip=False, dropout=True)],
    ]


def test_epochs_and_seeds_differ() -> None:
    it, other = order(), order(seed=8)
    epoch = [it.batch_at(step) for step in range(it.batches_per_epoch)]
    assert epoch != [it.batch_at(step + it.batches_per_epoch) for step in range(it.batches_per_epoch)]
    assert epoch != [other.batch_at(step) for step in range(it.batches_per_epoch)]


def test_chances_are_what_they_say() -> None:
    it = order(batch=1)
    picks = [pick for step in range(4000) for pick in it.batch_at(step)]
    # 4,000 draws of p have a deviation of at most 0.008; four of them
    assert abs(sum(pick.flip for pick in picks) / len(picks) - 0.5) < 0.032
    assert abs(sum(pick.dropout for pick in picks) / len(picks) - 0.3) < 0.032
    captions = Counter(pick.caption for pick in picks if pick.example == 4)
    assert max(captions.values()) - min(captions.values()) <= 3  # they come in turn
    still = order(flip=False, dropout=0.0)
    assert not any(pick.flip or pick.dropout for step in range(50) for pick in still.batch_at(step))
