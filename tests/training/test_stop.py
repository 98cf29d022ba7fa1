"""What a run that diverged, or goes on from its end, does."""

from types import SimpleNamespace

import pytest
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler

from mimigenrec.errors import UserError
from mimigenrec.training.stop import check_number


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_ends_the_run_with_its_step(value):
    args = SimpleNamespace(learning_rate=1e18, output_dir="out")
    check_number("loss", 0.5, 3, args)
    check_number("loss", None, 3, args)
    with pytest.raises(UserError, match=r"at step 3 loss is -?(nan|inf)\. .*in out. .*\(it is 1e\+18\)"):
        check_number("loss", value, 3, args)


@pytest.mark.parametrize("rank", [0, 1])
def test_no_rows_are_none_for_each_of_several_processes(rank):
    """As LookFirst leaves the rows of a run that is at its end."""
    batches = BatchSamplerShard(BatchSampler([], 4, drop_last=False), num_processes=2, process_index=rank)
    assert list(batches) == [] and len(batches) == 0
