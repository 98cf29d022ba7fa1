from dataclasses import replace

import numpy as np
import pytest
import torch

from mimigenrec import fit as training_loop
from mimigenrec.errors import UserError
from mimigenrec.logs import read_jsonl
from mimigenrec.sids import rqkmeans_plus, rqvae
from mimigenrec.sids.training import Training

TRAINING = Training(epochs=10, batch_size=64, hidden=[16], latent=4, device="cpu")
VECTORS = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)


class Killed(Exception):
    pass


def fit(method, folder, training=TRAINING, seed=0, **settings):
    files = {"state": folder / "state.pt", "curve": folder / "curve.jsonl"}
    return method.fit(VECTORS, [8, 8], seed, training=training, **files, **settings)


def kill_in_epoch(monkeypatch, wanted):
    whole, seen = training_loop.epoch_losses, []

    def epoch_losses(*args):
        seen.append(1)
        if len(seen) == wanted:
            raise Killed
        return whole(*args)

    monkeypatch.setattr(training_loop, "epoch_losses", epoch_losses)


@pytest.mark.parametrize("method", [rqvae, rqkmeans_plus])
def test_an_interrupted_training_goes_on_to_the_same_result(method, tmp_path, monkeypatch):
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    books, codes = fit(method, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_in_epoch(patch, 7)
        fit(method, tmp_path / "cut")
    with monkeypatch.context() as patch:
        kill_in_epoch(patch, 5)  # of 4 that are left
        again, again_codes = fit(method, tmp_path / "cut")
    np.testing.assert_array_equal(codes, again_codes)
    for ours, theirs in ((books.levels, again.levels), (books.encoder.values(), again.encoder.values())):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)
    curve = read_jsonl(tmp_path / "cut" / "curve.jsonl")
    assert curve == read_jsonl(tmp_path / "whole" / "curve.jsonl")
    assert [line["epoch"] for line in curve] == list(range(1, 11))


def test_the_state_of_another_training_is_replaced_only_when_told_to(tmp_path):
    fit(rqvae, tmp_path)
    other = replace(TRAINING, commitment=0.5)
    with pytest.raises(
        ValueError, match="state.pt holds a run with other.*commitment: 0.25 then, 0.5 now.*--overwrite"
    ):
        fit(rqvae, tmp_path, other)
    _, codes = fit(rqvae, tmp_path, other, overwrite=True)
    (tmp_path / "state.pt").unlink()
    np.testing.assert_array_equal(codes, fit(rqvae, tmp_path, other)[1])


@pytest.mark.parametrize("how", ["cut", "text", "empty", "other", "list"])
def test_a_damaged_state_is_one_message(how, tmp_path):
    fit(rqvae, tmp_path)
    path = tmp_path / "state.pt"
    contents = {"cut": path.read_bytes()[:-50], "text": b"hello", "empty": b""}
    if how in contents:
        path.write_bytes(contents[how])
    else:
        torch.save([1] if how == "list" else torch.load(path, weights_only=True) | {"model": {}}, path)
    with pytest.raises(UserError, match="state.pt is damaged, or by an earlier version; delete it"):
        fit(rqvae, tmp_path)


@pytest.mark.parametrize("device", ["toaster", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_named(device, tmp_path):
    with pytest.raises(UserError, match=f"--device '{device}' cannot be used here"):
        fit(rqvae, tmp_path, replace(TRAINING, device=device))


def test_the_loss_falls_and_is_the_sum_of_its_parts(tmp_path):
    fit(rqvae, tmp_path, replace(TRAINING, epochs=60))
    curve = read_jsonl(tmp_path / "curve.jsonl")
    assert curve[-1]["reconstruction"] < 0.9 * curve[0]["reconstruction"]
    for line in curve:
        assert line["loss"] == pytest.approx(line["reconstruction"] + line["commitment"])


def test_a_training_that_diverges_stops_with_advice(tmp_path):
    with pytest.raises(ValueError, match="NaN or infinite in epoch 1, step 2; lower --learning_rate"):
        fit(rqvae, tmp_path, replace(TRAINING, learning_rate=1e30))


def test_a_code_that_is_not_used_moves_to_items(tmp_path):
    vectors = np.concatenate([VECTORS, VECTORS + 100])  # k-means at the start sees both
    _, codes = rqvae.fit(vectors, [8], 0, training=replace(TRAINING, epochs=30), balance_last=False)
    assert len(np.unique(codes)) == 8
