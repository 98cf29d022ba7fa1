"""What the logs of a run say after a resume."""

from types import SimpleNamespace

import pytest

from mimigenrec.training.log import SinceResume


@pytest.mark.parametrize("first", [0, 2])
def test_the_loss_of_a_part_of_a_run_is_not_logged_as_that_of_the_whole(first):
    callback, logs = SinceResume(), {"train_loss": 1.04, "train_steps_per_second": 9.0, "epoch": 1.0}
    state = SimpleNamespace(global_step=first, max_steps=4, compute_steps=lambda *_: None, log_history=[dict(logs)])
    callback.on_train_begin(None, state, None)
    callback.on_log(None, state, None, logs=logs)
    assert logs == state.log_history[0] == ({"epoch": 1.0} if first else {**logs, "train_loss": 1.04})
