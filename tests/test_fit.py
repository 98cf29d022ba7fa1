"""A training that was stopped at any epoch ends where the whole one ends; what cannot be gone on with is said."""

import pytest
import torch

from mimigenrec import fit as training_loop
from mimigenrec.errors import UserError
from mimigenrec.fit import Schedule, fit
from mimigenrec.logs import read_jsonl

X = torch.arange(8.0)[:, None]
SCHEDULE = Schedule(examples=8, batch_size=3, epochs=6, seed=1)


def train(folder, schedule=SCHEDULE, settings=None, rate=0.01, keep=True, **options):
    """y = 2x + 1 by a line with momentum; returns its slope and offset."""
    torch.manual_seed(0)
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.5)

    def loss(numbers):
        error = model(X[numbers]) - (2 * X[numbers] + 1)
        return {"squares": (error**2).mean(), "size": 0.0 * model.weight.abs().sum()}

    files = (folder / "state.pt", folder / "log.jsonl") if keep else (None, None)
    fit(model, optimizer, loss, schedule, settings or {"rate": rate}, *files, **options)
    return model.weight.item(), model.bias.item()


def test_a_line_is_learnt_and_its_losses_are_logged_with_their_parts(tmp_path):
    slope, offset = train(tmp_path, SCHEDULE._replace(epochs=400))
    assert slope == pytest.approx(2, abs=1e-3) and offset == pytest.approx(1, abs=5e-3)
    lines = read_jsonl(tmp_path / "log.jsonl")
    assert [line["epoch"] for line in lines] == list(range(1, 401)) and set(lines[0]) == {
        "epoch",
        "loss",
        "squares",
        "size",
    }
    assert all(line["loss"] == line["squares"] + line["size"] for line in lines) and lines[-1]["loss"] < 1e-5


@pytest.mark.parametrize("save_every", [1, 2, 4])
@pytest.mark.parametrize("killed_in", [1, 3, 6])
def test_killed_in_any_epoch_it_ends_as_the_whole_one(killed_in, save_every, tmp_path, monkeypatch):
    schedule = SCHEDULE._replace(save_every=save_every)
    whole = train(tmp_path / "whole", schedule)
    run = training_loop.epoch_losses

    def killed(*args):
        if args[4] == killed_in:
            raise KeyboardInterrupt
        return run(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training_loop, "epoch_losses", killed)
        train(tmp_path / "parts", schedule)
    assert train(tmp_path / "parts", schedule) == whole
    assert (tmp_path / "parts/log.jsonl").read_bytes() == (tmp_path / "whole/log.jsonl").read_bytes()


def test_without_files_it_gives_the_same_and_leaves_nothing(tmp_path):
    assert train(tmp_path / "none", keep=False) == train(tmp_path / "kept")
    assert not (tmp_path / "none").exists()


def test_the_best_epoch_is_kept_and_patience_ends_the_training(tmp_path):
    scores, slopes = iter([0.1, 0.3, 0.3, 0.2, 0.9]), []
    options = {"validate": lambda: {"ndcg": next(scores), "other": 5.0}}
    slope, _ = train(tmp_path, SCHEDULE._replace(patience=2), **options)
    lines = read_jsonl(tmp_path / "log.jsonl")
    assert [line["ndcg"] for line in lines] == [0.1, 0.3, 0.3, 0.2] and lines[0]["other"] == 5.0
    for epochs in (1, 2, 3):
        slopes.append(train(tmp_path / str(epochs), SCHEDULE._replace(epochs=epochs))[0])
    assert slope == slopes[1] and len(set(slopes)) == 3


def test_a_metric_below_zero_has_a_best_epoch_too_and_the_last_one_is_saved(tmp_path):
    schedule, scores = SCHEDULE._replace(patience=2, save_every=4), iter([-9.0, -5.0, -6.0, -7.0])
    slope, _ = train(tmp_path, schedule, validate=lambda: {"minus loss": next(scores)})
    assert slope == train(tmp_path / "two", SCHEDULE._replace(epochs=2))[0]
    again, _ = train(tmp_path, schedule, validate=lambda: pytest.fail("it is finished"))
    assert again == slope


def test_a_state_of_other_settings_or_damaged_is_refused_or_replaced(tmp_path):
    whole = train(tmp_path)
    with pytest.raises(UserError, match=r"state.pt holds a run with other settings.*rate: 0.01 then, 0.02 now"):
        train(tmp_path, rate=0.02)
    with pytest.raises(UserError, match="at epoch 6, further than --epochs 4"):
        train(tmp_path, SCHEDULE._replace(epochs=4))
    assert train(tmp_path, rate=0.02, overwrite=True) != whole
    (tmp_path / "state.pt").write_bytes(b"no state")
    with pytest.raises(UserError, match="state.pt is damaged, or by an earlier version; delete it"):
        train(tmp_path)
    assert train(tmp_path, overwrite=True) == whole and len(read_jsonl(tmp_path / "log.jsonl")) == 6


def test_a_loss_that_diverges_stops_at_its_step_and_saves_nothing(tmp_path):
    with pytest.raises(UserError, match=r"NaN or infinite in epoch 1, step [23]; lower --learning_rate"):
        train(tmp_path, rate=1e30)
    assert not (tmp_path / "state.pt").exists()
