import numpy as np
import pytest

from mimigenrec.cli import parse
from mimigenrec.interactions.inter_file import History
from mimigenrec.vectors import als as als_command
from mimigenrec.vectors import fuse
from mimigenrec.vectors.als import AlsConfig, train_pairs
from mimigenrec.vectors.store import read_about, write_vectors
from tests.conftest import write_histories
from tests.vectors.conftest import items_file

CLUBS = [[str(i) for i in range(0, 6)], [str(i) for i in range(6, 12)]]  # no user has items of both; "12" has none


@pytest.fixture
def club_files(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for user in range(40):
        had = rng.permutation(CLUBS[user % 2])[:4].tolist()
        rows.append(History(user, f"u{user}", tuple(had[:3]), had[3]))
    write_histories(tmp_path / "C.train.inter", rows)
    return items_file(tmp_path / "C.item.json", {str(i): f"thing {i}" for i in range(13)}), tmp_path / "C.train.inter"


def als(items, train, output, **settings):
    als_command.main(AlsConfig(items=items, train=train, output=output, **{"dim": 2, **settings}))
    return np.load(output)


def test_als_puts_items_of_the_same_users_together_and_unseen_ones_at_zero(club_files, tmp_path):
    vectors = als(*club_files, tmp_path / "C.emb-als.npy")
    unit = vectors[:12] / np.linalg.norm(vectors[:12], axis=1, keepdims=True)
    alike = unit @ unit.T
    assert alike[:6, :6].min() > alike[:6, 6:].max()
    assert not vectors[12].any() and read_about(tmp_path / "C.emb-als.npy")["items_without_train_row"] == 1


def test_als_of_one_seed_is_one_file(club_files, tmp_path):
    for name in ("a.npy", "b.npy"):
        als(*club_files, tmp_path / name)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


def test_pairs_are_those_of_histories_and_targets_each_once(tmp_path):
    rows = [History(0, "u", ("0", "1"), "2"), History(1, "u", ("0", "1", "2"), "0"), History(2, "v", (), "1")]
    write_histories(tmp_path / "t.inter", rows)
    assert train_pairs(tmp_path / "t.inter", ["0", "1", "2"]).tolist() == [[0, 0], [0, 1], [0, 2], [1, 1]]


def test_an_item_without_metadata_is_named(tmp_path):
    write_histories(tmp_path / "t.inter", [History(0, "u", (), "1"), History(1, "u", ("1",), "77")])
    with pytest.raises(ValueError, match="t.inter, row 1: item '77' is not in item.json"):
        train_pairs(tmp_path / "t.inter", ["0", "1"])


def test_whitened_axes_are_uncorrelated_and_the_mean_squared_length_is_one():
    vectors = np.random.default_rng(0).normal(size=(500, 4)) @ np.diag([9.0, 3.0, 1.0, 0.1]) + 5
    white = fuse.whiten(vectors)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(4) / 4, atol=1e-10)
    assert fuse.whiten(vectors, 2).shape == (500, 2)
    np.testing.assert_allclose((fuse.whiten(vectors, 2) ** 2).sum(1).mean(), 1)


def test_items_of_which_nothing_is_known_stay_zeros_and_do_not_count():
    vectors = np.random.default_rng(0).normal(size=(50, 3)) + 2
    with_unknown = np.concatenate([vectors, np.zeros((10, 3))])
    np.testing.assert_allclose(fuse.whiten(with_unknown)[:50], fuse.whiten(vectors))
    assert not fuse.whiten(with_unknown)[50:].any()


def test_weights_say_how_much_a_source_counts():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(100, 5)), 1000 * rng.normal(size=(100, 3))
    fused = fuse.fuse([a, b], [1.0, 0.5], [None, 2])
    assert fused.shape == (100, 7) and fused.dtype == np.float32
    np.testing.assert_allclose((fused[:, :5] ** 2).sum(1).mean(), 1, rtol=1e-5)
    np.testing.assert_allclose((fused[:, 5:] ** 2).sum(1).mean(), 0.25, rtol=1e-5)


def test_the_command_joins_files_and_names_its_sources(tmp_path):
    items = items_file(tmp_path / "C.item.json", {str(i): "x" for i in range(9)})
    rng = np.random.default_rng(0)
    paths = [tmp_path / "C.emb-a.npy", tmp_path / "C.emb-b.npy"]
    for path, name in zip(paths, "ab", strict=True):
        write_vectors(path, rng.normal(size=(9, 3)), [str(i) for i in range(9)], model=name, normalised=False)
    settings = {"items": items, "vectors": paths, "output": tmp_path / "C.emb-ab.npy"}
    fuse.main(fuse.FuseConfig(weights=[1, 0.5], **settings))
    assert np.load(tmp_path / "C.emb-ab.npy").shape == (9, 6)
    assert read_about(tmp_path / "C.emb-ab.npy")["model"] == "1 * a + 0.5 * b"
    with pytest.raises(ValueError, match="--weights has 1 values for 2 files"):
        fuse.main(fuse.FuseConfig(weights=[1], **settings))


@pytest.fixture
def two_sources(tmp_path):
    """Settings of fuse for two sources of nine items."""
    items = items_file(tmp_path / "C.item.json", {str(i): "x" for i in range(9)})
    rng = np.random.default_rng(0)
    paths = [tmp_path / "C.emb-a.npy", tmp_path / "C.emb-b.npy"]
    for path, name in zip(paths, "ab", strict=True):
        write_vectors(path, rng.normal(size=(9, 3)), [str(i) for i in range(9)], model=name, normalised=False)
    return {"items": items, "vectors": paths, "output": tmp_path / "C.emb-ab.npy"}


def test_a_finished_fusion_does_nothing_and_another_one_replaces_it_only_when_told_to(two_sources, capsys):
    fuse.main(fuse.FuseConfig(**two_sources))
    before = np.load(two_sources["output"])
    capsys.readouterr()
    fuse.main(fuse.FuseConfig(**two_sources))
    assert "C.emb-ab.npy is finished: nothing to do" in capsys.readouterr().out
    for other, what in (
        ({"weights": [1, 2.0]}, "weights"),
        ({"dims": [1, 2]}, "dims"),
        ({"vectors": two_sources["vectors"][::-1]}, "vectors"),  # the columns would stand in another order
    ):
        with pytest.raises(ValueError, match=f"other settings or data .*{what}: .* then.*--overwrite"):
            fuse.main(fuse.FuseConfig(**two_sources | other))
    np.testing.assert_array_equal(np.load(two_sources["output"]), before)
    fuse.main(fuse.FuseConfig(**two_sources, dims=[1, 2], overwrite=True))
    assert np.load(two_sources["output"]).shape == (9, 3)


def test_a_source_is_never_the_output(two_sources):
    two_sources["output"] = two_sources["vectors"][0]
    with pytest.raises(ValueError, match="C.emb-a.npy is one of --vectors"):
        fuse.main(fuse.FuseConfig(**two_sources, overwrite=True))


@pytest.mark.parametrize(
    "flags", ["--weights 0 0", "--weights nan 1", "--weights -1 1", "--weights inf 1", "--dims 0 0"]
)
def test_weights_and_dims_out_of_their_range_are_refused(flags, capsys):
    with pytest.raises(SystemExit):
        parse(fuse.FuseConfig, argv=[*"--items a --output b.npy --vectors c d".split(), *flags.split()])
    assert "it must be at least" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags",
    ["--dim 0", "--iterations -1", "--alpha -40", "--alpha 0", "--alpha nan", "--regularisation -1", "--seed -1"],
)
def test_numbers_of_als_out_of_their_range_are_refused(flags, capsys):
    with pytest.raises(SystemExit):
        parse(AlsConfig, argv=[*"--items a --output b.npy --train c".split(), *flags.split()])
    assert "it must be" in capsys.readouterr().err


def test_als_that_diverges_stops_in_the_iteration_that_it_does(club_files, tmp_path):
    with pytest.raises(ValueError, match="factors became NaN or infinite in iteration 1 of 15"):
        als(*club_files, tmp_path / "C.emb-als.npy", alpha=1e38)
    assert not list(tmp_path.glob("C.emb-als*"))


def test_als_finished_does_nothing_and_of_other_rows_is_refused(club_files, tmp_path, capsys):
    als(*club_files, tmp_path / "C.emb-als.npy")
    capsys.readouterr()
    als(*club_files, tmp_path / "C.emb-als.npy")
    assert "is finished: nothing to do" in capsys.readouterr().out
    write_histories(club_files[1], [History(0, "u", ("0", "1"), "2")])
    with pytest.raises(ValueError, match="C.train.inter: .* then"):
        als(*club_files, tmp_path / "C.emb-als.npy")
    als(*club_files, tmp_path / "C.emb-als.npy", overwrite=True)
    assert read_about(tmp_path / "C.emb-als.npy")["items_without_train_row"] == 10


def test_a_source_without_any_difference_is_refused():
    with pytest.raises(ValueError, match="the same vector for all items"):
        fuse.whiten(np.ones((5, 3)))
