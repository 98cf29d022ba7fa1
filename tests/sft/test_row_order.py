"""Batches of like rows: every row once, little padding, another order each epoch. The same order after a kill."""

import random
import shutil
from pathlib import Path

import pytest
import torch
from torch.utils.data import BatchSampler

from mimigenrec.sft.add_sids import AddSidsConfig, add_sids
from mimigenrec.sft.row_order import POOL, LengthGroups
from mimigenrec.sft.train import SftConfig, train
from tests.sft.test_train import losses, weights


def batches(lengths, size, seed=0, epoch=0):
    sampler = LengthGroups(lengths, size, seed)
    sampler.set_epoch(epoch)
    return list(BatchSampler(sampler, size, drop_last=False))


def padding(lengths, found):
    return sum(max(lengths[row] for row in batch) * len(batch) - sum(lengths[row] for row in batch) for batch in found)


@pytest.mark.parametrize(("rows", "size"), [(0, 4), (1, 4), (4, 4), (5, 4), (127, 4), (128, 4), (131, 4), (37, 1)])
def test_every_row_comes_once_and_only_the_last_batch_is_smaller(rows, size):
    lengths = [random.Random(row).randrange(1, 9) for row in range(rows)]
    found = batches(lengths, size)
    assert sorted(row for batch in found for row in batch) == list(range(rows))
    assert [len(batch) for batch in found] == [size] * (rows // size) + [rows % size] * (rows % size > 0)


def neighbours(values):
    """Correlation of each value with the next."""
    values = torch.tensor(list(values))
    return torch.corrcoef(torch.stack([values[1:], values[:-1]]))[0, 1]


def test_batches_pad_little_and_do_not_go_from_long_to_short():
    rng = random.Random(1)
    lengths = [rng.randrange(2, 22) for _ in range(4096)]
    found = batches(lengths, 64)

    def mean(batch):
        return sum(lengths[row] for row in batch) / 64

    chance = [random.Random(2).sample(range(4096), 64) for _ in range(64)]
    assert padding(lengths, found) < 0.15 * padding(lengths, chance)
    tides = [batch for start in range(0, 64, POOL) for batch in sorted(found[start : start + POOL], key=mean)]
    assert abs(neighbours(map(mean, found))) < 0.3 < 0.6 < neighbours(map(mean, tides))


def test_the_order_is_that_of_seed_and_epoch():
    lengths = [row % 7 for row in range(50)]
    assert batches(lengths, 8) == batches(lengths, 8)
    assert batches(lengths, 8) != batches(lengths, 8, epoch=1) != batches(lengths, 8, seed=1)


@pytest.fixture
def grouped(args, data, tmp_path):
    """A run of three epochs over batches of two, a checkpoint after every fourth step: also within epochs."""
    add_sids(AddSidsConfig(args["model_name_or_path"], data / "new_tokens.json", tmp_path / "prepared"))
    args = {**args, "model_name_or_path": str(tmp_path / "prepared"), "max_samples": 10}
    args |= {"max_steps": -1, "num_train_epochs": 3}
    return args | {"per_device_train_batch_size": 2, "save_steps": 4, "save_total_limit": 9, "logging_steps": 1}


@pytest.mark.parametrize("length_groups", [True, False])
def test_a_run_killed_within_its_second_epoch_goes_on_in_that_epochs_order(grouped, length_groups):
    options = SftConfig(eval_ranking=0, length_groups=length_groups)
    train(options, dict(grouped))
    out = Path(grouped["output_dir"])
    whole, told = weights(out), losses(out)
    assert len(told) == 15  # 5 steps an epoch
    for folder in (out / "checkpoint-12", out / "checkpoint-15"):
        shutil.rmtree(folder)
    (out / "model.safetensors").unlink()
    train(options, dict(grouped))  # from step 8, in the middle of the second epoch
    assert losses(out)[-7:] == told[-7:]
    assert all(torch.equal(value, whole[name]) for name, value in weights(out).items())


def test_another_order_than_without_it(grouped):
    plain = {**grouped, "output_dir": f"{grouped['output_dir']}-plain"}
    train(SftConfig(eval_ranking=0, length_groups=True), dict(grouped))
    train(SftConfig(eval_ranking=0), plain)
    assert losses(grouped["output_dir"]) != losses(plain["output_dir"])


@pytest.mark.parametrize("key", ["group_by_length", "disable_shuffling", "streaming"])
def test_two_orders_at_once_are_refused(grouped, key):
    with pytest.raises(ValueError, match=f"and so does {key}: true; drop one"):
        train(SftConfig(length_groups=True), {**grouped, key: True})
    assert not Path(grouped["output_dir"]).exists()
