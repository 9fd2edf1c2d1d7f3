"""The pictures of each batch: a pure function of the seed and the step, so that a resumed run continues exactly."""

from collections.abc import Sequence
from dataclasses import dataclass

from lorablend.train.chance import chance, shuffled
from lorablend.train.data.buckets import Crop

__all__ = ["Order", "Pick"]


@dataclass(frozen=True)
class Pick:
    """One picture of a batch.

    Attributes:
        example: Index of the picture.
        caption: Index of its text.
        flip: Whether it is mirrored.
        dropout: Whether the empty text replaces its own.
    """

    example: int
    caption: int
    flip: bool
    dropout: bool


class Order:
    """The endless sequence of batches of a training.

    In each epoch every picture comes as often as its repeats say, in a new order. A batch has pictures of one bucket
    only, so the last batch of a bucket in an epoch may be smaller.

    Args:
        crops: One per example, as are repeats and variants, the numbers of texts.
        flip: Mirror half of the pictures.
        dropout: Fraction of the pictures that get the empty text.
    """

    def __init__(
        self,
        crops: Sequence[Crop],
        repeats: Sequence[int],
        variants: Sequence[int],
        *,
        batch: int,
        seed: int,
        flip: bool,
        dropout: float,
    ) -> None:
        self._buckets: dict[tuple[int, int], list[tuple[int, int]]] = {}  # lists of (example, repeat)
        for example, (crop, count) in enumerate(zip(crops, repeats, strict=True)):
            self._buckets.setdefault(crop.bucket, []).extend((example, turn) for turn in range(count))
        self._buckets = {bucket: items for bucket, items in sorted(self._buckets.items()) if items}
        self._repeats, self._variants = tuple(repeats), tuple(variants)
        self._batch, self._seed, self._flip, self._dropout = batch, seed, flip, dropout
        self.batches_per_epoch = sum(-(-len(items) // batch) for items in self._buckets.values())
        self._last: tuple[int, list[list[tuple[int, int]]]] = (-1, [])

    def batch_at(self, step: int) -> list[Pick]:
        """The pictures of batch `step`, counted from 0.

        With A batches per optimizer step and W processes, process r takes `batch_at((step * A + a) * W + r)`.
        """
        epoch, place = divmod(step, self.batches_per_epoch)
        return [self._pick(epoch, example, turn) for example, turn in self._epoch(epoch)[place]]

    def _epoch(self, epoch: int) -> list[list[tuple[int, int]]]:
        if self._last[0] != epoch:
            batches: list[list[tuple[int, int]]] = []
            for (width, height), items in self._buckets.items():
                order = shuffled(items, self._seed, "pictures", epoch, width, height)
                batches += [order[start : start + self._batch] for start in range(0, len(order), self._batch)]
            self._last = epoch, shuffled(batches, self._seed, "batches", epoch)
        return self._last[1]

    def _pick(self, epoch: int, example: int, turn: int) -> Pick:
        # The texts come in turn, from a random start, so that all are seen equally often.
        count = self._variants[example]
        start = int(chance(self._seed, "caption", example) * count)
        return Pick(
            example,
            (start + epoch * self._repeats[example] + turn) % count,
            self._flip and chance(self._seed, "flip", epoch, example, turn) < 0.5,
            chance(self._seed, "dropout", epoch, example, turn) < self._dropout,
        )
