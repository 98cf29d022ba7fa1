import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from mimigenrec.errors import UserError
from mimigenrec.vectors import encoders
from mimigenrec.vectors.embed import EmbedConfig, main
from mimigenrec.vectors.encoders import Encoder, load
from tests.conftest import ROOT


def test_pooling_knows_padding_on_either_side():
    hidden = torch.arange(8.0).reshape(2, 4, 1)
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 0, 0]])
    assert encoders.pool(hidden, mask, "mean").tolist() == [[2.0], [4.5]]
    assert encoders.pool(hidden, mask, "cls").tolist() == [[1.0], [4.0]]
    assert encoders.pool(hidden, mask, "last").tolist() == [[3.0], [5.0]]


def test_hashed_words_lie_at_their_places_with_their_signs():
    """Of the 8 bytes of blake2b as a number, the last bit is the sign and the rest modulo 8 the place."""
    vectors = load(Encoder("hash", dim=8))(["lamp", "Red, red LAMP", ""])
    expected = np.zeros((3, 8))
    expected[0, 5] = 1  # lamp lies at 5, counted upwards
    expected[1, [5, 6]] = np.array([1, -2]) / np.sqrt(5)  # red at 6, downwards
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    assert vectors.dtype == np.float32


def test_products_of_hashed_texts_are_those_of_their_words():
    texts = [" ".join(f"word{i}" for i in range(start, start + 20)) for start in (0, 10, 100)]
    vectors = load(Encoder("hash", dim=4096))(texts)
    np.testing.assert_allclose(vectors @ vectors.T, [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]], atol=0.08)


@pytest.mark.parametrize("seed", ["0", "1"])
def test_hashed_vectors_are_those_of_every_other_process(seed):
    code = (
        "from mimigenrec.vectors.encoders import Encoder, load\n"
        "print(load(Encoder('hash', dim=16))(['a red lamp']).tobytes().hex())"
    )
    env = {**os.environ, "PYTHONHASHSEED": seed}
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=env)
    assert run.stdout.strip() == load(Encoder("hash", dim=16))(["a red lamp"]).tobytes().hex(), run.stderr


def test_hashed_vectors_of_a_catalogue_are_those_of_its_new_items(shop, tmp_path):
    main(EmbedConfig(items=shop, output=tmp_path / "v.npy", encoder="hash", dim=64))
    vectors = np.load(tmp_path / "v.npy")
    assert vectors.shape == (24, 64) and (vectors[22] == vectors[23]).all()
    np.testing.assert_array_equal(load(Encoder("hash", dim=64))(["red steel hammer model 0"])[0], vectors[0])
    with pytest.raises(UserError, match="--prompt is for --encoder minilm.*and --encoder is hash"):
        main(EmbedConfig(items=shop, output=tmp_path / "w.npy", encoder="hash", prompt="query: "))


def test_an_encoder_that_is_none_or_lacks_a_setting_is_refused():
    with pytest.raises(UserError, match="'word2vec' is no encoder; choose from hf, .*hash"):
        load(Encoder("word2vec"))
    with pytest.raises(UserError, match="encoder hf needs --model"):
        load(Encoder("hf"))
    with pytest.raises(UserError, match="needs dim of at least 1, found 0"):
        load(Encoder("hash", dim=0))


def test_two_spaces_have_two_names():
    spaces = [Encoder("minilm"), Encoder("hash"), Encoder("hash", dim=8), Encoder("hf", "a/b"), Encoder("served", "c")]
    assert [encoder.space for encoder in spaces] == [encoders.MINILM, "hash dim=384", "hash dim=8", "a/b", "c"]
