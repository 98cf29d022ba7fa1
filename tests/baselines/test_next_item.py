"""SASRec, GRU4Rec and Caser learn a world whose answers are known; a killed training goes on as if it had not been."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mimigenrec.baselines import fitting
from mimigenrec.baselines.next_item import MODELS, NextItem, strangers
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
    save, saved = fitting._save, []

    def killed(path, state, *rest):
        if state["epoch"] == 3:
            raise KeyboardInterrupt
        save(path, state, *rest)
        saved.append(state["epoch"])

    monkeypatch.setattr(fitting, "_save", killed)
    with pytest.raises(KeyboardInterrupt):
        train(method, circle, tmp_path / "parts", network)
    monkeypatch.setattr(fitting, "_save", save)
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
    monkeypatch.setattr(fitting, "_epoch", None)
    assert same(train("caser", circle, tmp_path, network), first)


def test_more_epochs_go_on_from_a_finished_training_as_if_they_had_been_asked_for_at_once(circle, tmp_path):
    whole = train("sasrec", circle, tmp_path / "whole", replace(SMALL, epochs=4))
    train("sasrec", circle, tmp_path / "parts", replace(SMALL, epochs=2))
    assert same(train("sasrec", circle, tmp_path / "parts", replace(SMALL, epochs=4)), whole)
    assert len(read_jsonl(tmp_path / "parts" / "training.jsonl")) == 4


def test_a_folder_of_another_training_is_refused(circle, tmp_path):
    train("sasrec", circle, tmp_path, replace(SMALL, epochs=1))
    for method, network in (("sasrec", replace(SMALL, epochs=1, loss="bce")), ("gru4rec", replace(SMALL, epochs=1))):
        with pytest.raises(ValueError, match="training.pt is of other data, settings"):
            train(method, circle, tmp_path, network)


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
    monkeypatch.setattr(recommender, "_scores", lambda histories, exclude_seen: scores)
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
    with pytest.raises(ValueError, match="--width 16 is not a multiple of --heads 3"):
        NextItem("sasrec", {"1": 1}, replace(SMALL, heads=3))


@pytest.mark.parametrize("key", ["epochs", "patience", "batch_size"])
def test_no_epochs_patience_or_batch_is_refused(key, circle, tmp_path):
    with pytest.raises(ValueError, match=f"--{key} 0"):
        train("sasrec", circle, tmp_path, replace(SMALL, **{key: 0}))


def test_a_loss_that_is_no_number_stops_the_run(circle, tmp_path):
    with pytest.raises(ValueError, match="lower --learning_rate"):
        train("gru4rec", circle, tmp_path, replace(SMALL, learning_rate=float("inf"), epochs=3))
