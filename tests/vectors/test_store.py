import numpy as np
import pytest

from mimigenrec.errors import UserError
from mimigenrec.items import order_hash
from mimigenrec.vectors.store import read_about, read_vectors, unit_rows, write_vectors
from tests.vectors.conftest import items_file


def test_vectors_come_back_as_written_with_what_they_are(tmp_path):
    path, vectors = tmp_path / "C.emb-x.npy", np.arange(6, dtype=np.float32).reshape(3, 2)
    write_vectors(path, vectors, ["0", "1", "2"], model="m", normalised=False)
    np.testing.assert_array_equal(read_vectors(path, ["0", "1", "2"]), vectors)
    assert read_about(path) == {
        "model": "m",
        "normalised": False,
        "dim": 2,
        "items": 3,
        "item_order": order_hash(["0", "1", "2"]),
    }


def test_old_numbers_never_stand_beside_the_description_of_new_ones(tmp_path, monkeypatch):
    path = tmp_path / "v.npy"
    write_vectors(path, np.ones((2, 3)), ["0", "1"], model="old", normalised=False)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(np, "save", lambda *args, **settings: killed())
        write_vectors(path, np.zeros((2, 3)), ["0", "1"], model="new", normalised=False)
    assert not path.exists() or read_about(path)["model"] == "old"


def killed():
    raise KeyboardInterrupt


def test_half_precision_without_a_side_car_is_read_as_float32(tmp_path):
    np.save(tmp_path / "v.npy", np.ones((2, 3), np.float16))
    assert read_vectors(tmp_path / "v.npy", ["0", "1"]).dtype == np.float32


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_no_number_is_refused_with_its_item(tmp_path, bad):
    vectors = np.ones((3, 2), np.float32)
    vectors[1, 1] = bad
    np.save(tmp_path / "v.npy", vectors)
    with pytest.raises(ValueError, match=r"v.npy, row 1 \(item '17'\) holds NaN or infinity"):
        read_vectors(tmp_path / "v.npy", ["0", "17", "2"])
    with pytest.raises(ValueError, match="row 1"):
        write_vectors(tmp_path / "w.npy", vectors, ["0", "17", "2"])
    assert not (tmp_path / "w.npy").exists()


@pytest.mark.parametrize("array", [np.ones(3), np.ones((3, 2, 1)), np.ones((3, 2), int), np.ones((3, 0))])
def test_an_array_that_is_not_items_by_dim_of_floats_is_refused(tmp_path, array):
    np.save(tmp_path / "v.npy", array)
    with pytest.raises(ValueError, match="must be \\(items, dim\\) of floats"):
        read_vectors(tmp_path / "v.npy", ["0", "1", "2"])


def test_another_number_of_rows_than_items_is_refused(tmp_path):
    np.save(tmp_path / "v.npy", np.ones((3, 2)))
    with pytest.raises(ValueError, match="3 rows for 2 items"):
        read_vectors(tmp_path / "v.npy", ["0", "1"])


@pytest.mark.parametrize("value", [1e20, 1e300])
def test_a_vector_whose_square_overflows_is_refused_with_its_item(tmp_path, value):
    vectors = np.ones((3, 2))
    vectors[1, 1] = value
    np.save(tmp_path / "v.npy", vectors)
    with pytest.raises(ValueError, match=r"v.npy, row 1 \(item '17'\) holds 1e\+.*scale the vectors down"):
        read_vectors(tmp_path / "v.npy", ["0", "17", "2"])


def test_vectors_whose_squares_are_all_nothing_are_refused(tmp_path):
    np.save(tmp_path / "v.npy", np.full((3, 2), 1e-20))
    with pytest.raises(ValueError, match="no vector is longer than 1.41e-20.*scale the vectors up"):
        read_vectors(tmp_path / "v.npy", ["0", "1", "2"])


def damage(path, how):
    whole = path.read_bytes()
    if how == "header":
        path.write_bytes(whole.replace(b"'shape': (", b"'shape': ((("))
    elif how == "shape":
        path.write_bytes(whole.replace(b"(30, 20), }     ", b"(999999999, 20),}"[:16].ljust(16)))
    elif how == "npz":
        np.savez(path.with_suffix(".npz"), a=np.ones(3))
        path.with_suffix(".npz").rename(path)
    elif how == "zip":
        path.write_bytes(b"PK\x03\x04" + whole)
    else:
        np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize("how", ["header", "shape", "npz", "zip", "objects"])
def test_a_file_that_is_no_whole_array_is_one_message(tmp_path, how):
    np.save(tmp_path / "v.npy", np.ones((30, 20)))
    damage(tmp_path / "v.npy", how)
    with pytest.raises(UserError, match="v.npy"):
        read_vectors(tmp_path / "v.npy", [str(i) for i in range(30)])


def test_items_beside_vectors_of_their_name_are_no_side_car(tmp_path):
    items_file(tmp_path / "n.json", {"0": "a", "1": "b"})
    np.save(tmp_path / "n.npy", np.ones((2, 3)))
    assert read_about(tmp_path / "n.npy") == {}
    assert read_vectors(tmp_path / "n.npy", ["0", "1"]).shape == (2, 3)


@pytest.mark.parametrize("content", ["[]", '{"model": "x"}', '{"item_order": 3}'])
def test_what_describes_something_else_is_no_side_car(tmp_path, content):
    np.save(tmp_path / "v.npy", np.ones((2, 3)))
    (tmp_path / "v.json").write_text(content)
    with pytest.raises(UserError, match="v.json"):
        read_vectors(tmp_path / "v.npy", ["0", "1"])


def test_a_file_that_was_cut_short_is_refused(tmp_path):
    np.save(tmp_path / "v.npy", np.ones((30, 20)))
    whole = (tmp_path / "v.npy").read_bytes()
    for length in (40, 200):
        (tmp_path / "v.npy").write_bytes(whole[:length])
        with pytest.raises(ValueError, match="not a whole .npy"):
            read_vectors(tmp_path / "v.npy", ["0"])
    with pytest.raises(FileNotFoundError, match="mimigenrec embed writes it"):
        read_vectors(tmp_path / "none.npy", ["0"])


def test_rows_in_the_order_of_other_items_are_refused(tmp_path):
    write_vectors(tmp_path / "v.npy", np.ones((2, 2)), ["0", "1"], model="m", normalised=True)
    with pytest.raises(ValueError, match="another order or with other ids"):
        read_vectors(tmp_path / "v.npy", ["1", "0"])


def test_rows_come_at_unit_length_and_zeros_stay():
    found = unit_rows(np.array([[1, 0], [3, 4], [0, 0]], dtype=np.float32))
    np.testing.assert_allclose(found, [[1, 0], [0.6, 0.8], [0, 0]], atol=1e-6)
