"""In which order the trainer takes its rows: the same after a kill as without one, and, if asked, like with like."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler
from transformers import TrainerCallback

POOL = 16  # batches whose rows are sorted together: more pad less, fewer mix more


class LengthGroups(Sampler[int]):
    """Indices of rows; every `batch_size` of them are of like length, which pads little, and come in an order drawn
    anew for every epoch. Each row once; a last batch may be smaller. The order depends on seed and epoch alone.

    transformers' group_by_length takes such batches from the longest rows to the shortest, four times an epoch or
    more, so that what short rows teach is always the last. docs/results.md compares both with batches at random.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int):
        self.lengths, self.batch_size, self.seed = lengths, batch_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        rng = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self), generator=rng).tolist()
        size = self.batch_size * POOL
        pools = (order[start : start + size] for start in range(0, len(self), size))
        grouped = [row for pool in pools for row in sorted(pool, key=self.lengths.__getitem__)]
        whole = len(self) // self.batch_size
        for batch in torch.randperm(whole, generator=rng).tolist():
            yield from grouped[batch * self.batch_size : (batch + 1) * self.batch_size]
        yield from grouped[whole * self.batch_size :]


class OfEpoch(Sampler[int]):
    """A sampler that is told the epoch by whoever counts, as `epoch`, and by nobody else.

    accelerate (1.11) calls set_epoch(0) on what is read when a run goes on in the middle of any epoch, which would
    take the rows in the first epoch's order: some twice, others never. There is no set_epoch here to call.
    """

    def __init__(self, sampler: Sampler[int]):
        self.sampler, self.epoch = sampler, 0

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[int]:
        self.sampler.set_epoch(self.epoch)
        yield from self.sampler


class RowOrder(TrainerCallback):
    """Keeps the order of the rows when a run goes on; with length_groups it is that of LengthGroups.

    Samplers whose order is not drawn per epoch (group_by_length, disable_shuffling, streaming) stay as they are.
    """

    def __init__(self, length_groups: bool):
        self.length_groups = length_groups
        self.order: OfEpoch | None = None

    def on_train_begin(self, args, state, control, train_dataloader=None, **kwargs):
        batches = train_dataloader.batch_sampler
        sampler = getattr(getattr(batches, "batch_sampler", batches), "sampler", None)  # several processes wrap it
        if self.length_groups:
            lengths = [len(ids) for ids in train_dataloader.dataset["input_ids"]]
            seed = args.seed if args.data_seed is None else args.data_seed
            sampler = LengthGroups(lengths, args.train_batch_size, seed)
        if hasattr(sampler, "set_epoch"):
            self.order = OfEpoch(sampler)
            train_dataloader.set_sampler(self.order)

    def on_epoch_begin(self, args, state, control, **kwargs):
        if self.order is not None:
            self.order.epoch = int(state.epoch)  # a fraction where the run goes on within an epoch
