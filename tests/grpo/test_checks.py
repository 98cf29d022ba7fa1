from types import SimpleNamespace

import pytest

from mimigenrec.grpo.checks import check_save_steps, check_whole_groups


def test_whole_groups_on_one_process():
    check_whole_groups(32, 16)
    with pytest.raises(ValueError, match="hold 24 rollouts.*for example 32"):
        check_whole_groups(24, 16)


def test_save_steps_by_hand():
    args = SimpleNamespace(gradient_accumulation_steps=2, steps_per_generation=4, num_iterations=1)
    check_save_steps("save_steps", 2, args)
    with pytest.raises(ValueError, match="3 steps are 6 forwards .* serves 4"):
        check_save_steps("save_steps", 3, args)
