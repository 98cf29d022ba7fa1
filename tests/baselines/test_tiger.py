"""TIGER: its search against every SID scored one by one, and a world whose answers are known."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from mimigenrec import fit
from mimigenrec.baselines.tiger import END, Tiger
from mimigenrec.catalog import Catalog
from mimigenrec.interactions.inter_file import History
from mimigenrec.sids.tokens import read_index
from tests.baselines.conftest import ITEMS, SMALL, N

CIRCLE = Catalog(sids={item: (f"<a_{int(item) // 4}>", f"<b_{int(item) % 4}>") for item in ITEMS})
NETWORK = replace(SMALL, width=32, layers=1, epochs=25, patience=25, learning_rate=0.005, batch_size=32)


@pytest.fixture(scope="module")
def untrained(toy):
    return Tiger(toy, SMALL, seed=3)


def test_as_many_beams_as_sids_give_every_sid_with_its_own_log_probability(untrained):
    history = ["0", "6"]
    [found] = untrained.search([history], beams=20)  # there are 7
    assert sorted(sid for sid, _ in found) == sorted(untrained.catalog.items_of)
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    source = torch.tensor([untrained.source(history)])
    for sid, score in found:
        target = [*(untrained.number[token] for token in sid), END]
        with torch.no_grad():
            logits = untrained.model(input_ids=source, decoder_input_ids=torch.tensor([[0, *target[:-1]]])).logits[0]
        logp = logits.log_softmax(-1)[range(len(target)), target].sum()
        assert score == pytest.approx(logp.item(), abs=1e-4)


def test_rows_asked_together_get_what_they_get_alone(untrained):
    histories = [["0"], ["1", "2", "3"], [], ["404", "5"]]
    together = untrained.search(histories, beams=4)
    for history, found in zip(histories, together, strict=True):
        [alone] = untrained.search([history], beams=4)
        assert [sid for sid, _ in found] == [sid for sid, _ in alone]
    assert together[2] == []  # nothing to ask with


def test_groups_hold_the_items_of_a_sid_those_seen_left_out(untrained):
    [plain] = untrained.lists([["3", "0"]], k=7)
    assert {tuple(group["items"]) for group in plain} >= {("3", "2")}  # share a SID, the more popular first
    [filtered] = untrained.lists([["3", "0"]], k=6, exclude_seen=True)
    left = [[item for item in group["items"] if item not in ("3", "0")] for group in plain]
    assert [group["items"] for group in filtered] == [items for items in left if items]


def test_a_history_is_read_by_its_latest_items_that_have_a_sid(untrained):
    long = ["4", "0", "1", "404", "2", "3", "5"]
    assert untrained.source(long) == untrained.source(["0", "1", "2", "3", "5"])
    assert untrained.source(["5"]) == [untrained.number["<a_1>"], untrained.number["<b_2>"], END]
    assert untrained.source([]) == [END]


def test_it_learns_what_always_follows_and_saves_what_it_learnt(circle, tmp_path):
    tiger = Tiger(CIRCLE, NETWORK)
    tiger.train(*circle, 0, tmp_path, exclude_seen=False)
    histories = [[str((i + j) % N) for j in range(3)] for i in range(N)]
    first = [groups[0]["items"] for groups in tiger.lists(histories, 3)]
    assert first == [[str((i + 3) % N)] for i in range(N)]
    assert read_index(tmp_path / "id2sid.json") == CIRCLE.sids
    stored = load_file(tmp_path / "model.safetensors")
    assert torch.equal(stored["shared.weight"], tiger.model.shared.weight)


def test_a_killed_run_ends_as_the_uninterrupted_one(circle, tmp_path, monkeypatch):
    short = replace(NETWORK, epochs=2, valid_rows=3)

    def trained(folder):
        tiger = Tiger(CIRCLE, short)
        tiger.train(*circle, 0, folder, exclude_seen=False)
        return tiger.model.state_dict()

    whole = trained(tmp_path / "whole")
    save = fit.write_state

    def killed(*args, **state):
        save(*args, **state)
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "write_state", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "parts")
    monkeypatch.setattr(fit, "write_state", save)
    parts = trained(tmp_path / "parts")
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_train_without_two_items_that_have_sids_and_valid_without_targets_are_refused(tmp_path, toy):
    good, bad = [History(0, "u", ("0",), "1")], [History(0, "u", ("0",), "404")]
    for train, valid, said in ((bad, good, "no sequence of two items that have a SID"), (good, bad, "none of the 1")):
        with pytest.raises(ValueError, match=said):
            Tiger(toy, SMALL).train(train, valid, 0, tmp_path, exclude_seen=False)


def test_scores_that_are_no_numbers_are_not_ranked(toy):
    tiger = Tiger(toy, SMALL)
    with torch.no_grad():
        next(tiger.model.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="tiger scores the items of row 1 by NaN or infinity"):
        list(tiger.lists([[], ["0"]], 3))
