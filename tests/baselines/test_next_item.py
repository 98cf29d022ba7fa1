"""SASRec, GRU4Rec and Caser learn a world whose answers are known; a killed training goes on as if it had not been."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mimigenrec import fit
from mimigenrec.baselines.fitting import fit_network
from mimigenrec.baselines.network import check_network
from mimigenrec.baselines.next_item import MODELS, NextItem, strangers
from mimigenrec.errors import UserError
from mimigenrec.interactions.inter_file import History
from mimigenrec.logs import read_jsonl
from tests.baselines.conftest import ITEMS, SMALL, N

METHODS = sorted(MODELS)


def train(method, circle, folder, network=SMALL, seed=0, items=ITEMS, **options):
    return NextItem.train(method, items, *circle, network, seed, folder, **options)


def weights(recommender):
    return recommender.model.state_dict()


def same(one, other):
    return all(torch.equal(value, weights(other)[name]) for name, value in weights(one).items())


@pytest.fixture(scope="module")
def sasrec(circle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sasrec")
    return train("sasrec", circle, folder), folder


@pytest.mark.parametrize("loss", ["ce", "bce"])
@pytest.mark.parametrize("method", METHODS)
def test_each_network_learns_what_always_follows_by_either_loss(method, loss, circle, tmp_path):
    recommender = train(method, circle, tmp_path, replace(SMALL, loss=loss, patience=40), exclude_seen=True)
    histories = [[str((i + j) % N) for j in range(3)] for i in range(N)]
    best = [ranked[0][0] for ranked in recommender.top_k(histories, 1, exclude_seen=True)]
    assert best == [str((i + 3) % N) for i in range(N)]
    assert recommender.ndcg(circle[1], exclude_seen=True) == 1.0


@pytest.mark.parametrize("method", METHODS)
def test_a_state_sees_only_its_past_and_no_padding(method):
    torch.manual_seed(0)
    model = MODELS[method](N, SMALL).eval()
    whole = model.states(torch.tensor([[1, 2, 3, 4]]))
    other = model.states(torch.tensor([[1, 2, 9, 9], [1, 2, 3, 0], [1, 2, 3, 4]]))
    torch.testing.assert_close(other[2], whole[0])
    torch.testing.assert_close(other[0, :2], whole[0, :2])
    three = model.states(torch.tensor([[1, 2, 3]]))
    torch.testing.assert_close(other[1, :3], three[0])


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_run_ends_as_the_uninterrupted_one(method, circle, tmp_path, monkeypatch):
    network = replace(SMALL, epochs=4)
    whole = train(method, circle, tmp_path / "whole", network)
    save, saved = fit.write_state, []

    def killed(path, model, optimizer, **state):
        if state["epoch"] == 3:
            raise KeyboardInterrupt
        save(path, model, optimizer, **state)
        saved.append(state["epoch"])

    monkeypatch.setattr(fit, "write_state", killed)
    with pytest.raises(KeyboardInterrupt):
        train(method, circle, tmp_path / "parts", network)
    monkeypatch.setattr(fit, "write_state", save)
    assert saved == [1, 2]
    assert same(train(method, circle, tmp_path / "parts", network), whole)
    curves = [
        [{**line, "seconds": 0} for line in read_jsonl(tmp_path / part / "training.jsonl")]
        for part in ("whole", "parts")
    ]
    assert curves[0] == curves[1] and [line["epoch"] for line in curves[0]] == [1, 2, 3, 4]


def test_the_same_seed_gives_the_same_network_and_another_seed_another(circle, tmp_path):
    network = replace(SMALL, epochs=2)
    one, two, three = (train("sasrec", circle, tmp_path / str(i), network, seed) for i, seed in enumerate((7, 7, 8)))
    assert same(one, two) and not same(one, three)


def test_training_stops_after_patience_and_keeps_the_best_epoch(circle, tmp_path, monkeypatch):
    scores = iter([0.2, 0.5, 0.4, 0.5, 0.9])
    kept = []

    def ndcg(self, rows, exclude_seen):
        kept.append({name: value.clone() for name, value in weights(self).items()})
        return next(scores)

    monkeypatch.setattr(NextItem, "ndcg", ndcg)
    recommender = train("gru4rec", circle, tmp_path, replace(SMALL, patience=2))
    assert [line["ndcg@10"] for line in read_jsonl(tmp_path / "training.jsonl")] == [0.2, 0.5, 0.4, 0.5]
    assert all(torch.equal(value, kept[1][name]) for name, value in weights(recommender).items())


def test_a_finished_training_is_not_done_again(circle, tmp_path, monkeypatch):
    network = replace(SMALL, epochs=1)
    first = train("caser", circle, tmp_path, network)
    monkeypatch.setattr(fit, "epoch_losses", None)
    assert same(train("caser", circle, tmp_path, network), first)


def test_more_epochs_go_on_from_a_finished_training_as_if_they_had_been_asked_for_at_once(circle, tmp_path):
    whole = train("sasrec", circle, tmp_path / "whole", replace(SMALL, epochs=4))
    train("sasrec", circle, tmp_path / "parts", replace(SMALL, epochs=2))
    assert same(train("sasrec", circle, tmp_path / "parts", replace(SMALL, epochs=4)), whole)
    assert len(read_jsonl(tmp_path / "parts" / "training.jsonl")) == 4


def test_a_folder_of_another_training_is_refused_with_what_differs(circle, tmp_path):
    network = replace(SMALL, epochs=1)
    train("sasrec", circle, tmp_path, network)
    rows, valid = circle
    for method, data, now, said in (
        ("sasrec", circle, replace(network, loss="bce"), "loss: ce then, bce now"),
        ("gru4rec", circle, network, "method: sasrec then, gru4rec now"),
        ("sasrec", (rows[:-1], valid), network, r"examples: \w+ then, \w+ now"),
    ):
        with pytest.raises(ValueError, match=rf"training.pt holds a run with other settings or data \({said}\)"):
            train(method, data, tmp_path, now)


def test_a_training_that_went_further_is_not_passed_off_as_a_shorter_one(circle, tmp_path, monkeypatch):
    scores = iter([0.5, 0.4, 0.4, 0.6, 0.1])
    monkeypatch.setattr(NextItem, "ndcg", lambda *_: next(scores))
    train("sasrec", circle, tmp_path, replace(SMALL, epochs=5, patience=3))
    for shorter in (replace(SMALL, epochs=4, patience=3), replace(SMALL, epochs=5, patience=2)):
        with pytest.raises(ValueError, match="at epoch 5, further than --epochs"):
            train("sasrec", circle, tmp_path, shorter)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no more", b"cut", b"not a state"])
def test_a_damaged_training_is_named_and_may_be_overwritten(content, circle, tmp_path):
    network, path = replace(SMALL, epochs=1), tmp_path / "training.pt"
    whole = train("sasrec", circle, tmp_path, network)
    if content == b"not a state":
        torch.save([1, 2], path)
    else:
        path.write_bytes(path.read_bytes()[:5000] if content == b"cut" else content)
    with pytest.raises(UserError, match="training.pt is (damaged|no state).*delete it"):
        train("sasrec", circle, tmp_path, network)
    rows, valid = circle
    again = NextItem.train("sasrec", ITEMS, rows, valid, network, 0, tmp_path, overwrite=True)
    assert same(again, whole)


def test_a_log_that_is_none_of_ours_is_named(circle, tmp_path):
    network = replace(SMALL, epochs=1)
    train("sasrec", circle, tmp_path, network)
    for line in ("[1, 2]", '{"step": 3}'):
        (tmp_path / "training.jsonl").write_text(line + "\n")
        with pytest.raises(UserError, match="training.jsonl: .* tells of no epoch; delete the file"):
            train("sasrec", circle, tmp_path, network)


def test_saved_and_loaded_it_scores_the_same(sasrec):
    recommender, folder = sasrec
    loaded = NextItem.load(folder, device="cpu")
    histories = [["1", "2"], [], ["404", "3"]]
    np.testing.assert_array_equal(loaded.score(histories), recommender.score(histories))
    assert loaded.items == ITEMS and loaded.method == "sasrec"


def test_scores_and_vectors_and_lists_agree(sasrec):
    recommender, _ = sasrec
    scores, vectors = recommender.score([["1", "2"], ["5"]]), recommender.embed(["3", "0"])
    assert scores.shape == (2, N) and scores.dtype == np.float32 and vectors.shape == (2, SMALL.width)
    order = [recommender.items[i] for i in np.argsort(-scores[0])]
    assert [item for item, _ in recommender.top_k([["1", "2"]], 4)[0]] == order[:4]
    assert [item for item, _ in next(recommender.rank_all([["1", "2"]]))] == order
    with torch.no_grad():
        state = recommender.model.states(torch.tensor([[recommender.number["1"], recommender.number["2"]]]))[0, -1]
    np.testing.assert_allclose(vectors @ state.numpy(), scores[0, [3, 0]], rtol=1e-5)


def test_seen_items_are_left_out_and_the_list_is_shorter_where_no_more_are_left(sasrec):
    recommender, _ = sasrec
    [ranked] = recommender.top_k([ITEMS[:9]], 10, exclude_seen=True)
    assert {item for item, _ in ranked} == set(ITEMS[9:])
    plain = [item for item, _ in recommender.top_k([["2", "3"]], N)[0]]
    filtered = [item for item, _ in recommender.top_k([["2", "3"]], N, exclude_seen=True)[0]]
    assert filtered == [item for item in plain if item not in ("2", "3")]


def test_histories_of_nothing_known_get_what_is_popular(circle, tmp_path):
    train_rows, valid = circle
    more = [*train_rows, *(History(0, f"x{i}", ("3",), "7") for i in range(40))]
    recommender = NextItem.train("sasrec", ITEMS, more, valid, replace(SMALL, epochs=1), 0, tmp_path)
    for history in ([], ["404"]):
        [ranked] = recommender.top_k([history], 2)
        assert {item for item, _ in ranked} == {"3", "7"}


def test_items_that_train_never_had_are_ranked_and_unknown_ids_in_a_history_change_nothing(circle, tmp_path):
    recommender = train("sasrec", circle, tmp_path, replace(SMALL, epochs=1), items=[*ITEMS, "new"])
    assert "new" in [item for item, _ in recommender.top_k([["1"]], 99)[0]]
    np.testing.assert_array_equal(recommender.score([["404", "1", "405", "2"]]), recommender.score([["1", "2"]]))
    with pytest.raises(ValueError, match="does not know item '404'"):
        recommender.embed(["404"])


def test_a_history_longer_than_is_read_counts_with_its_latest_items(sasrec):
    recommender, _ = sasrec
    long = [str(i % N) for i in range(30)]
    np.testing.assert_array_equal(recommender.score([long]), recommender.score([long[-SMALL.max_history :]]))


def test_ndcg_is_that_of_the_ranks_by_hand(sasrec, monkeypatch):
    recommender, _ = sasrec
    scores = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    monkeypatch.setattr(recommender, "_scores", lambda *_: scores)
    rows = [History(0, "u", (), "0"), History(1, "u", (), "2"), History(2, "u", (), "404")]
    assert recommender.ndcg(rows, exclude_seen=False) == pytest.approx((1 + 0.5 + 0) / 3)


def test_negatives_are_never_items_of_the_sequence():
    rows = torch.tensor([[1, 2, 3, 4, 5], [2, 2, 0, 0, 0]])
    drawn = strangers(rows.repeat(200, 1), n_items=6).view(200, 2, 4)
    assert set(drawn[:, 0].flatten().tolist()) == {6}
    assert set(drawn[:, 1].flatten().tolist()) == {1, 3, 4, 5, 6}
    with pytest.raises(ValueError, match="holds all 5 items"):
        strangers(rows, n_items=5)


def test_nothing_to_learn_or_to_stop_by_is_said(circle, tmp_path):
    train_rows, valid = circle
    with pytest.raises(ValueError, match="no sequence of two items"):
        NextItem.train("sasrec", ITEMS, [History(0, "u", (), "1")], valid, SMALL, 0, tmp_path)
    with pytest.raises(ValueError, match="none of the 1 valid rows"):
        NextItem.train("sasrec", ITEMS, train_rows, [History(0, "u", ("1",), "404")], SMALL, 0, tmp_path)


def test_a_width_that_the_heads_do_not_divide_is_refused():
    for method in ("sasrec", "tiger"):
        with pytest.raises(UserError, match="--width 16 is not a multiple of --heads 3"):
            check_network(method, replace(SMALL, heads=3))
    check_network("gru4rec", replace(SMALL, heads=3))  # which has none


def test_a_window_beyond_the_history_is_refused():
    with pytest.raises(UserError, match="--window 500 is more than --max_history 5"):
        NextItem("caser", {"1": 1}, replace(SMALL, window=500))
    check_network("sasrec", replace(SMALL, window=500))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, 0) for key in "epochs patience batch_size width layers heads max_history window filters".split()),
        *(("valid_rows", -1), ("dropout", 1.0), ("dropout", -0.1), ("learning_rate", 0.0), ("weight_decay", -1.0)),
        *((key, float("nan")) for key in ("dropout", "learning_rate", "weight_decay")),
    ],
)
def test_a_number_out_of_its_range_is_refused(key, value):
    with pytest.raises(UserError, match=f"--{key} is {value}; it must be"):
        NextItem("sasrec", {"1": 1}, replace(SMALL, **{key: value}))


@pytest.mark.parametrize("device", ["toaster", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(UserError, match=f"--device '{device}' cannot be used here"):
        NextItem("sasrec", {"1": 1}, replace(SMALL, device=device))


def test_a_loss_or_weight_that_is_no_number_stops_the_run(tmp_path):
    losses = {  # the root has no slope at 0, so that weights are lost while the loss is still a number
        "the loss became NaN or infinite in epoch 1, step 1": lambda weight: weight.sum() * float("nan"),
        "weights are not numbers any more after epoch 1": lambda weight: (0 * weight).sqrt().sum(),
    }
    for said, loss in losses.items():
        model = torch.nn.Linear(1, 1)
        with pytest.raises(UserError, match=f"{said}; lower --learning_rate"):
            fit_network(model, [1], lambda _, w=model.weight, f=loss: f(w), lambda: 1.0, SMALL, 0, tmp_path, {})
    assert not (tmp_path / "training.pt").exists()


def test_scores_that_are_no_numbers_are_not_ranked(sasrec):
    _, folder = sasrec
    loaded = NextItem.load(folder, device="cpu")
    with torch.no_grad():
        loaded.model.items.weight[3] = float("nan")
    for ask in (loaded.score, lambda rows: loaded.top_k(rows, 3), lambda rows: list(loaded.rank_all(rows))):
        with pytest.raises(UserError, match="sasrec scores the items of row 1 by NaN or infinity"):
            ask([[], ["1", "2"]])


@pytest.mark.parametrize("file", ["network.json", "network.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_a_damaged_network_is_named(file, damage, sasrec, tmp_path):
    for name in ("network.json", "network.safetensors"):
        shutil.copy(sasrec[1] / name, tmp_path)
    path = tmp_path / file
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:100])
    elif file == "network.json":
        path.write_text('{"method": "bert4rec"}')
    else:
        save_file({"items.weight": torch.zeros(2, 2)}, path)
    with pytest.raises((UserError, FileNotFoundError), match=file):
        NextItem.load(tmp_path)
