from dataclasses import replace

import numpy as np
import pytest

from mimigenrec.sids import opq, rqkmeans, rqkmeans_constrained, rqkmeans_plus, rqvae
from mimigenrec.sids.quantiser import Codebooks, assign, encode, error_by_level, nearest
from mimigenrec.sids.training import Training
from tests.sids.conftest import tree_of_gaussians

SHORT = Training(epochs=20, batch_size=128, hidden=[32], latent=8, device="cpu")
LONGER = replace(SHORT, epochs=250)
HIERARCHICAL = {
    "rqkmeans-sklearn": lambda x, sizes: rqkmeans.fit(x, sizes, seed=0),
    "rqkmeans-constrained": lambda x, sizes: rqkmeans_constrained.fit(x, sizes, seed=0),
    "rqkmeans-plus": lambda x, sizes: rqkmeans_plus.fit(x, sizes, seed=0, training=SHORT),
    "rqvae": lambda x, sizes: rqvae.fit(x, sizes, seed=0, training=LONGER, balance_last=False),
}
ALL = {
    **HIERARCHICAL,
    "rqvae": lambda x, sizes: rqvae.fit(x, sizes, seed=0, training=SHORT, balance_last=False),
    "rqkmeans-faiss": lambda x, sizes: rqkmeans.fit(x, sizes, seed=0, backend="faiss"),
    "opq": lambda x, sizes: opq.fit(x, sizes, seed=0),
    "rqvae-balanced": lambda x, sizes: rqvae.fit(x, sizes, seed=0, training=SHORT),
}


def same_partition(codes, truth) -> bool:
    """Equal up to the names of the codes."""
    pairs = len(np.unique(np.column_stack([codes, truth]), axis=0))
    return pairs == len(np.unique(codes, axis=0)) == len(np.unique(truth, axis=0))


@pytest.mark.parametrize("name", HIERARCHICAL)
def test_a_tree_of_gaussians_is_found_level_by_level(name, mixture):
    vectors, truth = mixture
    _, codes = HIERARCHICAL[name](vectors, [4, 3])
    assert same_partition(codes[:, :1], truth[:, :1])
    assert same_partition(codes, truth)


@pytest.mark.parametrize("name", ALL)
def test_the_error_falls_level_by_level(name):
    vectors = np.random.default_rng(0).normal(size=(600, 12)).astype(np.float32)
    codebooks, codes = ALL[name](vectors, [8, 16, 8])
    assert codes.shape == (600, 3) and codes.dtype.kind == "i" and codebooks.sizes == [8, 16, 8]
    errors = error_by_level(codebooks, vectors, codes)
    assert 1 > errors[0] > errors[1] > errors[2] > 0


@pytest.mark.parametrize("name", ALL)
def test_one_seed_gives_one_file_and_one_set_of_codes(name, tmp_path):
    vectors = np.random.default_rng(0).normal(size=(300, 12)).astype(np.float32)
    for run in ("1", "2"):
        codebooks, codes = ALL[name](vectors, [8, 4])
        codebooks.save(tmp_path / run)
        np.save(tmp_path / f"{run}.npy", codes)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    assert (tmp_path / "1.npy").read_bytes() == (tmp_path / "2.npy").read_bytes()


@pytest.mark.parametrize("name", ALL)
def test_stored_codebooks_assign_as_fitted_ones(name, mixture, tmp_path):
    vectors, _ = mixture
    codebooks, codes = ALL[name](vectors, [4, 3])
    codebooks.save(tmp_path / "books.safetensors")
    stored = Codebooks.load(tmp_path / "books.safetensors")
    assert (stored.method, stored.sizes, stored.dim) == (codebooks.method, [4, 3], 16)
    again = assign(stored, vectors)
    np.testing.assert_array_equal(again, assign(codebooks, vectors))
    if name not in ("rqkmeans-constrained", "rqvae-balanced"):  # the two that share codes out evenly
        np.testing.assert_array_equal(again, codes)
    np.testing.assert_array_equal(assign(stored, vectors[7:8]), again[7:8])  # alone as among others


def test_assign_is_the_nearest_entry_to_what_is_left_over(mixture):
    vectors, _ = mixture
    codebooks, codes = rqkmeans.fit(vectors, [4, 3], seed=1)
    for vector, code in zip(vectors[:50].astype(np.float64), codes, strict=False):
        for level, entries in enumerate(codebooks.levels):
            assert code[level] == np.argmin(((entries - vector) ** 2).sum(1))
            vector = vector - entries[code[level]]


def test_of_equal_distances_the_first_entry_counts():
    assert nearest(np.zeros((1, 1), np.float32), np.array([[2], [1], [-1]], np.float32)).tolist() == [1]


def test_even_clusters_hold_one_more_or_less_at_every_level():
    vectors = np.random.default_rng(0).exponential(size=(403, 6)).astype(np.float32)
    _, codes = rqkmeans_constrained.fit(vectors, [8, 16], seed=0)
    for level, size in enumerate((8, 16)):
        counts = np.bincount(codes[:, level], minlength=size)
        assert {counts.min(), counts.max()} == {403 // size, 403 // size + 1}


def test_rqvae_shares_the_last_level_out_evenly_and_leaves_the_others(mixture):
    vectors, _ = mixture
    _, plain = rqvae.fit(vectors, [4, 4], 0, training=SHORT, balance_last=False)
    _, even = rqvae.fit(vectors, [4, 4], 0, training=SHORT)
    np.testing.assert_array_equal(plain[:, 0], even[:, 0])
    assert np.bincount(even[:, 1]).tolist() == [60] * 4


def test_rqkmeans_plus_starts_as_rqkmeans(mixture):
    vectors, _ = mixture
    start, start_codes = rqkmeans.fit(vectors, [4, 3], seed=0)
    untrained = Training(epochs=0, hidden=[32], device="cpu")
    codebooks, codes = rqkmeans_plus.fit(vectors, [4, 3], seed=0, training=untrained)
    np.testing.assert_allclose(encode(codebooks, vectors), vectors)
    np.testing.assert_array_equal(codes, start_codes)
    for ours, theirs in zip(codebooks.levels, start.levels, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_numpy_encoder_is_the_network_that_was_trained(mixture):
    import torch

    from mimigenrec.sids.autoencoder import Autoencoder

    vectors, _ = mixture
    for skip in (False, True):
        torch.manual_seed(0)
        model = Autoencoder(16, [4], SHORT, batch=8, skip=skip, scale=3.0)
        for parameter in model.encoder.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        levels, weights = model.arrays()
        ours = encode(Codebooks("rqvae", levels, weights, {"skip": skip}), vectors)
        with torch.no_grad():
            theirs = model.encode(torch.from_numpy(vectors) * 3.0).numpy() / (3.0 if skip else 1.0)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_opq_rotates_and_cuts_the_dimensions_into_parts():
    vectors, _ = tree_of_gaussians(dim=12)
    codebooks, _ = opq.fit(vectors, [6, 6], seed=0)
    rotation = codebooks.encoder["rotation"]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(12), atol=1e-5)
    used = [np.flatnonzero(level.any(0)).tolist() for level in codebooks.levels]
    assert used == [list(range(6)), list(range(6, 12))]


def test_opq_is_better_than_product_quantisation_without_a_rotation():
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(800, 8)) * [8, 6, 4, 3, 1, 1, 1, 1]  # strong dimensions all in the first part
    turned, _ = opq.fit(mixed.astype(np.float32), [16, 16], seed=0)
    error = error_by_level(turned, mixed.astype(np.float32), assign(turned, mixed.astype(np.float32)))[-1]
    plain = Codebooks("opq", [np.zeros((16, 8), np.float32), np.zeros((16, 8), np.float32)])
    for level, part in enumerate((slice(0, 4), slice(4, 8))):
        books, _ = rqkmeans.fit(mixed[:, part].astype(np.float32), [16], seed=0)
        plain.levels[level][:, part] = books.levels[0]
    assert error < 0.8 * error_by_level(plain, mixed.astype(np.float32), assign(plain, mixed.astype(np.float32)))[-1]


@pytest.mark.parametrize("name", ALL)
def test_more_codes_than_items_are_refused(name):
    with pytest.raises(ValueError, match="32 codes at level 2 and there are 20 items"):
        ALL[name](np.zeros((20, 4), np.float32), [4, 32])


def test_vectors_of_another_width_are_refused(mixture):
    codebooks, _ = rqkmeans.fit(mixture[0], [4], seed=0)
    with pytest.raises(ValueError, match="vectors of 16 numbers, got shape"):
        assign(codebooks, np.zeros((3, 8), np.float32))


def test_a_file_that_holds_no_codebooks_is_refused(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "x.safetensors"
    with pytest.raises(FileNotFoundError, match="mimigenrec quantise writes it"):
        Codebooks.load(path)
    save_file({"weight": np.zeros(3)}, path)
    with pytest.raises(ValueError, match="no codebooks"):
        Codebooks.load(path)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        Codebooks.load(path)
