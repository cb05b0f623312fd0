"""Windows that hide a wild value wherever nothing was observed: it must not reach what is trained on them."""

from collections.abc import Iterator

from stgcn_lab.windows import Batch, WindowDataset


class Hiding:
    """Windows with another value in the targets wherever nothing was observed. They know of no stretches."""

    def __init__(self, windows: WindowDataset, hidden: float):
        self.windows, self.hidden = windows, hidden

    def batches(self, *options) -> Iterator[Batch]:
        for batch in self.windows.batches(*options):
            yield batch._replace(y=batch.y.masked_fill(~batch.y_mask, self.hidden))
