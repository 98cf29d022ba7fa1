import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mimigenrec.decoding.head import TILE, Head
from tests.conftest import make_model

V = 2 * TILE + 7  # the last tile is not full


@pytest.fixture(scope="module")
def model():
    return make_model(V, tie=False)


@pytest.fixture(scope="module")
def hidden():
    return torch.randn(5, 32, generator=torch.Generator().manual_seed(0))


def test_scores_are_the_models_logits_of_the_columns_asked_for(model, hidden):
    columns = torch.tensor([0, 3, TILE, V - 1])
    with torch.no_grad():
        expected = model.lm_head(hidden)
        torch.testing.assert_close(Head(model).scores(hidden, columns), expected[:, columns])


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("scale", [1.0, 30.0], ids=["near", "far apart"])
def test_the_normaliser_is_the_log_sum_over_the_whole_vocabulary(model, hidden, temperature, scale):
    with torch.no_grad():
        expected = (model.lm_head(scale * hidden).double() / temperature).logsumexp(dim=1)
        found = Head(model).log_normaliser(scale * hidden, temperature)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("place", [0, TILE + 1, V - 1])
def test_the_normaliser_survives_one_token_far_above_all_others(model, place):
    model = make_model(V, tie=False)
    with torch.no_grad():
        model.lm_head.weight[place] = 1000.0
        hidden = torch.ones(3, 32)
        found = Head(model).log_normaliser(hidden)
    torch.testing.assert_close(found, torch.full((3,), 32_000.0))


def test_a_bias_and_the_soft_cap_of_gemma_are_applied(family, hidden):
    gemma = family("Gemma2", final_logit_softcapping=3.0)
    with torch.no_grad():
        linear = gemma.lm_head(hidden)
        torch.testing.assert_close(Head(gemma).scores(hidden, slice(None)), 3 * torch.tanh(linear / 3))
        model = make_model(50, tie=False)
        model.lm_head.bias = torch.nn.Parameter(torch.arange(50.0))
        torch.testing.assert_close(Head(model).scores(hidden, slice(5, 9)), model.lm_head(hidden)[:, 5:9])


def test_scores_of_a_bf16_model_are_float32_after_the_product_as_in_generate(model, hidden):
    half = make_model(V, tie=False).to(torch.bfloat16)
    with torch.no_grad():
        found = Head(half).scores(hidden.bfloat16(), torch.tensor([1, 2]))
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, half.lm_head(hidden.bfloat16()).float()[:, 1:3])


def test_the_normaliser_never_stores_rows_times_vocabulary(model):
    largest = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            largest.extend(x.numel() for x in (out if isinstance(out, (list, tuple)) else [out]) if torch.is_tensor(x))
            return out

    rows = 100
    with torch.no_grad(), Watch():
        Head(model).log_normaliser(torch.randn(rows, 32))
    assert max(largest) < rows * V / 2
