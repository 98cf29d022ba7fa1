"""A group computed as one tree gives TRL's numbers row by row, and the same gradients."""

import numpy as np
import pytest
import torch

from mimigenrec.decoding.inside_trie import InsideTrie
from mimigenrec.decoding.logps import completion_logps, pack
from mimigenrec.decoding.trie import SidTrie
from tests.conftest import make_model

VOCABULARY, EOS, PAD, LEVELS = 300, 2, 0, 3


def make_trie(rng: np.random.Generator, n: int = 60, variable: bool = True) -> SidTrie:
    codes = np.unique(rng.integers(0, 6, (n, LEVELS)) + np.arange(LEVELS) * 6 + 10, axis=0)
    if variable:
        codes[rng.random(len(codes)) < 0.3, -1] = -1
    return SidTrie.from_codes(codes, EOS, PAD, [str(i) for i in range(len(codes))])


def make_rows(rng, trie: SidTrie, prompt_lengths, group: int, shuffle: bool = True):
    """input_ids, attention_mask (N, L + LEVELS + 1): a group of random SIDs behind each prompt, as TRL pads them."""
    L, ids, mask = max(prompt_lengths), [], []
    for length in prompt_lengths:
        prompt = rng.integers(30, VOCABULARY, length).tolist()
        for sid in rng.integers(0, trie.n_sids, group):
            done = [t for t in trie.sid_tokens(torch.tensor([sid]))[0].tolist() if t >= 0] + [EOS]
            rest = LEVELS + 1 - len(done)
            ids.append([PAD] * (L - length) + prompt + done + [PAD] * rest)
            mask.append([0] * (L - length) + [1] * (length + len(done)) + [0] * rest)
    order = rng.permutation(len(ids)) if shuffle else np.arange(len(ids))
    return torch.tensor(ids)[order], torch.tensor(mask)[order]


def row_by_row(model, trie, ids, mask, support, temperature):
    """What TRL computes: (N, C) log-probabilities and entropies of the completion tokens."""
    keep = LEVELS + 1
    whole = model if support == "vocab" else InsideTrie(model, trie, keep, temperature)
    logps = (whole(input_ids=ids, attention_mask=mask).logits[:, -keep - 1 : -1] / temperature).log_softmax(-1)
    chosen = logps.gather(2, ids[:, -keep:, None])[..., 0]
    return chosen, -(logps.exp() * logps).sum(-1)


@pytest.mark.parametrize("support", ["vocab", "trie"])
@pytest.mark.parametrize(("lengths", "group"), [((9, 14, 5), 6), ((7,), 1), ((7, 7), 1), ((4, 11), 16), ((1, 1), 3)])
def test_numbers_and_gradients_are_those_of_separate_rows(support, lengths, group):
    rng = np.random.default_rng(len(lengths) * 100 + group)
    trie, model = make_trie(rng), make_model(VOCABULARY, tie=group % 2 == 0)
    ids, mask = make_rows(rng, trie, lengths, group)
    real = mask[:, -LEVELS - 1 :].bool()
    weight = torch.randn(real.shape, generator=torch.Generator().manual_seed(0)) * real
    expected, expected_entropy = row_by_row(model, trie, ids, mask, support, 0.7)
    (expected * weight).sum().backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    logps, entropies = completion_logps(model, ids, mask, LEVELS + 1, 0.7, trie if support == "trie" else None)
    (logps * weight).sum().backward()
    torch.testing.assert_close(logps * real, expected * real, atol=1e-5, rtol=0)
    torch.testing.assert_close(entropies * real, expected_entropy * real, atol=2e-5, rtol=0)
    for ours, theirs in zip(model.parameters(), gradients, strict=True):
        assert (ours.grad - theirs).norm() <= 1e-4 * theirs.norm() + 1e-7


def test_a_prompt_and_a_common_beginning_are_computed_once():
    prompt, sids = [7, 8, 9], [[10, 16, 22], [10, 16, 23], [10, 17, 22]]
    ids = torch.tensor([prompt + sid + [EOS] for sid in sids])
    packed = pack(ids, torch.ones_like(ids), 4, torch.ones(3, 4, dtype=torch.bool))
    # 3 prompt tokens, then 10; 16 and 17; and the three last levels: 9 columns in one row
    assert packed.ids.shape == (1, 9)
    assert sorted(packed.ids[0, 3:].tolist()) == [10, 16, 17, 22, 22, 23]
    assert packed.positions[0].tolist()[:4] == [0, 1, 2, 3]
    assert packed.visible[0, 3:].sum(1).sort().values.tolist() == [4, 5, 5, 6, 6, 6]


def test_forced_tokens_and_rows_not_wanted_cost_nothing_and_are_zero():
    rng = np.random.default_rng(3)
    trie, model = make_trie(rng, n=12, variable=False), make_model(VOCABULARY)
    ids, mask = make_rows(rng, trie, (5, 6), 4, shuffle=False)
    wanted = torch.tensor([True] * 4 + [False] * 4)
    seen = []
    handle = model.get_decoder().register_forward_pre_hook(
        lambda _, args, inputs: seen.append(inputs["input_ids"].shape), with_kwargs=True
    )
    logps, _ = completion_logps(model, ids, mask, LEVELS + 1, 1.0, trie, wanted)
    handle.remove()
    assert (logps[4:] == 0).all() and (logps[:4, -1] == 0).all() and (logps[:4, 0] < 0).all()
    assert len(seen) == 1 and seen[0][0] == 1  # one forward, of the one prompt that is wanted
    nothing, _ = completion_logps(model, ids, mask, LEVELS + 1, 1.0, None, torch.zeros(8, dtype=torch.bool))
    assert (
        nothing.requires_grad and nothing.count_nonzero() == 1
    )  # one token keeps the backward that wrappers wait for


def test_texts_of_any_lengths_and_turns_that_others_wrote_give_the_numbers_of_separate_rows():
    """No trie, no EOS: two answers of a prompt begin alike, another is the whole beginning of one."""
    rng, model = np.random.default_rng(11), make_model(VOCABULARY)
    prompts = [rng.integers(30, VOCABULARY, n).tolist() for n in (3, 17, 1)]
    answers = [rng.integers(30, VOCABULARY, n).tolist() for n in (40, 9, 1, 23)]
    answers += [answers[0][:12], answers[0][:6] + answers[1]]
    L, C = 17, 40
    rows = [(prompt, answer) for prompt in prompts for answer in answers]
    ids = torch.tensor([[PAD] * (L - len(p)) + p + a + [PAD] * (C - len(a)) for p, a in rows])
    whole = torch.tensor([[0] * (L - len(p)) + [1] * (len(p) + len(a)) + [0] * (C - len(a)) for p, a in rows])
    mask = whole.clone()
    mask[::2, L + 3 : L + 6] = 0  # of someone else: seen by what follows, without a loss
    asked = mask[:, -C:].bool()
    logits = model(input_ids=ids, attention_mask=whole).logits[:, -C - 1 : -1].log_softmax(-1)
    expected = logits.gather(2, ids[:, -C:, None])[..., 0] * asked
    (expected**2).sum().backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    logps, entropies = completion_logps(model, ids, mask, C)
    (logps**2).sum().backward()
    torch.testing.assert_close(logps, expected, atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(entropies, -(logits.exp() * logits).sum(-1) * asked, atol=2e-5, rtol=0)
    for ours, theirs in zip(model.parameters(), gradients, strict=True):
        assert (ours.grad - theirs).norm() <= 1e-4 * theirs.norm()


def test_gradient_checkpointing_changes_nothing():
    rng = np.random.default_rng(5)
    trie, model = make_trie(rng), make_model(VOCABULARY).train()
    ids, mask = make_rows(rng, trie, (6, 9), 4)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.zero_grad()
        completion_logps(model, ids, mask, LEVELS + 1)[0].sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed, atol=1e-6, rtol=1e-5)


def test_lora_is_trained_and_switched_off_for_the_reference():
    from peft import LoraConfig, get_peft_model

    rng = np.random.default_rng(6)
    trie, base = make_trie(rng), make_model(VOCABULARY, tie=False)
    ids, mask = make_rows(rng, trie, (6, 9), 4)
    before, _ = completion_logps(base, ids, mask, LEVELS + 1)
    wrapped = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], modules_to_save=["lm_head"]))
    with torch.no_grad():
        for name, p in wrapped.named_parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(len(name))))
    expected, _ = row_by_row(wrapped, trie, ids, mask, "vocab", 1.0)
    logps, _ = completion_logps(wrapped, ids, mask, LEVELS + 1)
    real = mask[:, -LEVELS - 1 :].bool()
    torch.testing.assert_close(logps * real, expected * real, atol=2e-5, rtol=0)
    logps.sum().backward()
    assert all(p.grad is not None for p in wrapped.parameters() if p.requires_grad)
    with wrapped.disable_adapter():
        reference, _ = completion_logps(wrapped, ids, mask, LEVELS + 1)
    torch.testing.assert_close(reference, before, atol=1e-6, rtol=0)
