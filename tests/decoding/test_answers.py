"""Free answers: drawn from the model's own distribution, by seed, whatever stands beside them in the batch."""

import pytest
import torch

from mimigenrec.decoding.answers import Sampling, free_answers
from mimigenrec.decoding.finite import NotFinite
from mimigenrec.errors import UserError
from tests.conftest import make_model

VOCABULARY, PAD, EOS = 40, 0, 3
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14], [5, 6]]


@pytest.fixture(scope="module")
def model():
    return make_model(VOCABULARY)


def draw(model, prompts=PROMPTS, k=3, seeds=(1, 2, 3, 4), batch_size=8, length=12, **settings):
    return free_answers(model, prompts, k, Sampling(length, **settings), [EOS], PAD, seeds, batch_size)


def test_answers_do_not_depend_on_what_stands_beside_them(model):
    together = draw(model)
    assert [len(group) for group in together] == [3] * 4
    assert together == draw(model, batch_size=1) == draw(model, batch_size=3)
    backwards = draw(model, PROMPTS[::-1], seeds=(4, 3, 2, 1))
    assert backwards[::-1] == together
    assert draw(model, PROMPTS[:1], seeds=[1]) == together[:1]


def test_other_seeds_give_other_answers_and_fewer_tokens_the_same_beginning(model):
    assert draw(model, seeds=(5, 6, 7, 8)) != draw(model)
    long, short = draw(model), draw(model, length=4)
    assert short == [[answer[:4] for answer in group] for group in long]
    assert len({tuple(answer) for group in draw(model, [[5]] * 2, k=4, seeds=(1, 1)) for answer in group}) == 4


def test_the_global_generator_is_used_where_there_are_no_seeds_and_only_there(model):
    torch.manual_seed(0)
    first = draw(model, seeds=None)
    torch.manual_seed(0)
    assert draw(model, seeds=None) == first != draw(model, seeds=None)
    state = torch.get_rng_state()
    draw(model)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.5}, {"top_k": 5}, {"top_p": 0.6}], ids=str)
def test_first_tokens_are_drawn_from_the_models_distribution(model, settings):
    scores = model(torch.tensor([PROMPTS[0]])).logits[0, -1] / settings.get("temperature", 1.0)
    if "top_k" in settings:
        scores[scores < scores.topk(5).values[-1]] = -torch.inf
    expected = scores.softmax(-1)
    if "top_p" in settings:  # the likeliest ones whose predecessors have less than 0.6
        order = expected.argsort(descending=True)
        kept = order[expected[order].cumsum(0) - expected[order] < 0.6]
        expected = torch.zeros_like(expected).scatter(0, kept, expected[kept]) / expected[kept].sum()
    answers = draw(model, PROMPTS[:1], k=4000, seeds=[0], length=1, **settings)[0]
    counts = torch.tensor([answer[0] for answer in answers]).bincount(minlength=VOCABULARY)
    assert (counts[expected == 0] == 0).all()
    assert ((counts / 4000 - expected).abs() <= 5 * (expected / 4000).sqrt() + 1e-3).all()


def test_an_answer_ends_with_its_first_eos_and_is_never_empty(model):
    answers = [answer for group in draw(model, k=40, length=30) for answer in group]
    assert all(answer and EOS not in answer[:-1] for answer in answers)
    ended = [answer for answer in answers if answer[-1] == EOS]
    assert ended and len(ended) < len(answers) and all(len(a) == 30 for a in answers if a[-1] != EOS)
    two = free_answers(model, PROMPTS, 40, Sampling(30), [EOS, ended[0][0]], PAD, (1, 2, 3, 4))
    assert any(len(answer) == 1 for group in two for answer in group)


def test_temperature_0_is_the_likeliest_token_each_time(model):
    for prompt, [answer] in zip(PROMPTS, draw(model, k=1, temperature=0), strict=True):
        written = list(prompt)
        for token in answer:
            assert model(torch.tensor([written])).logits[0, -1].argmax() == token
            written.append(token)


def test_the_checkpoints_own_settings_do_not_come_back(model):
    expected, greedy = draw(model), draw(model, k=1, temperature=0)
    own = model.generation_config
    settings = {"do_sample": True, "temperature": 0.1, "top_k": 1, "top_p": 0.1, "repetition_penalty": 3.0}
    model.generation_config = type(own)(**{**own.to_dict(), **settings, "num_beams": 2, "eos_token_id": 7})
    try:
        assert draw(model) == expected and draw(model, k=1, temperature=0) == greedy
    finally:
        model.generation_config = own


def test_an_adapter_answers_as_it_stands():
    from peft import LoraConfig, get_peft_model

    base = make_model(VOCABULARY)
    before = draw(base)
    wrapped = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    assert draw(wrapped) == before
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    assert draw(wrapped) != before


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"temperature": -1.0}, "temperature is -1.0; it must be 0 or above"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0.0}, "top_p is 0.0; it must be above 0 and at most 1"),
        ({"top_k": -1}, "top_k is -1"),
        ({"length": 0}, "max_new_tokens is 0; it must be at least 1"),
        ({"temperature": 0}, "temperature 0 gives the same answer 3 times"),
        ({"seeds": [1]}, "1 seeds for 4 prompts"),
    ],
)
def test_settings_that_cannot_work_are_refused(model, settings, message):
    with pytest.raises(UserError, match=message):
        draw(model, **settings)


def test_scores_that_are_no_numbers_name_the_prompt():
    broken = make_model(VOCABULARY, tie=False)
    with torch.no_grad():
        broken.get_input_embeddings().weight[9] = torch.nan
    with pytest.raises(NotFinite, match="row 2, step 1"):
        draw(broken, batch_size=2, length=1)
