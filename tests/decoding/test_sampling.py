"""Draws against the exact distribution over the toy catalogue (tests/decoding/reference.py)."""

import itertools
import math
from collections import Counter

import pytest
import torch

from mimigenrec.decoding.filters import prefix_keys
from mimigenrec.decoding.sampling import conditioned, gumbel, sample, sample_without_replacement
from mimigenrec.decoding.tree import Template
from tests.decoding.reference import score_all

COPIES = 400  # of one prompt in a batch: as many draws in one forward


@pytest.fixture(scope="module")
def prompt(tokenizer):
    return tokenizer.encode("Which item comes next? <a_0><b_1><c_0>")


@pytest.fixture(scope="module")
def exact(tiny_model, trie, prompt):
    """(n_sids,) log-probability of each SID under the constrained policy."""
    return exact_logps(tiny_model, trie, prompt)


def exact_logps(model, trie, prompt):
    sids = [tuple(t for t in row if t >= 0) for row in trie.sid_tokens(torch.arange(trie.n_sids)).tolist()]
    scores = dict(score_all(model, prompt, sids, trie.eos_id, "trie"))
    return torch.tensor([scores[sid] for sid in sids], dtype=torch.float64)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def chi_square(counts: Counter, logps: torch.Tensor) -> float:
    n = sum(counts.values())
    return sum((counts[i] - n * p) ** 2 / (n * p) for i, p in enumerate(logps.exp().tolist()))


CRITICAL = 22.46  # of chi-square with 6 degrees of freedom at 0.1%; seeds are fixed


def test_draws_follow_the_policy_and_tell_its_log_probabilities(tiny_model, trie, prompt, exact):
    sid, logp = sample(tiny_model, trie, [prompt, prompt[2:]], 4000, seeded(0))
    assert sid.shape == logp.shape == (2, 4000)
    torch.testing.assert_close(logp[0].double(), exact[sid[0]], atol=1e-4, rtol=0)
    assert chi_square(Counter(sid[0].tolist()), exact) < CRITICAL


def test_one_draw_without_replacement_is_a_plain_draw(tiny_model, trie, prompt, exact):
    counts: Counter = Counter()
    for seed in range(10):
        drawn = sample_without_replacement(tiny_model, trie, [prompt] * COPIES, 1, seeded(seed))
        counts.update(drawn.sid[:, 0].tolist())
        torch.testing.assert_close(drawn.logp[:, 0], exact[drawn.sid[:, 0]], atol=1e-4, rtol=0)
    assert chi_square(counts, exact) < CRITICAL


def test_ordered_draws_come_as_often_as_urn_draws(tiny_model, trie, prompt, exact):
    """The first two of k: p_i * p_j / (1 - p_i), whatever the lengths of the SIDs."""
    p = exact.exp().tolist()
    expected = {(i, j): p[i] * p[j] / (1 - p[i]) for i, j in itertools.permutations(range(7), 2)}
    seen: Counter = Counter()
    for seed in range(20):
        drawn = sample_without_replacement(tiny_model, trie, [prompt] * COPIES, 2, seeded(seed))
        seen.update(map(tuple, drawn.sid.tolist()))
    n = 20 * COPIES
    for pair, q in expected.items():
        assert abs(seen[pair] / n - q) < 4.5 * math.sqrt(q * (1 - q) / n) + 1e-9


@pytest.mark.parametrize("k", [2, 4])
def test_draws_are_in_as_often_as_in_a_gumbel_top_k_over_the_whole_catalogue(tiny_model, trie, prompt, exact, k):
    drawn = [sample_without_replacement(tiny_model, trie, [prompt] * COPIES, k, seeded(s)) for s in range(10)]
    n = 10 * COPIES
    ours = torch.cat([x.sid for x in drawn]).flatten().bincount(minlength=7) / n
    brute = (exact + gumbel(torch.empty(100_000, 7, dtype=torch.float64), seeded(9))).topk(k + 1)
    theirs = brute.indices[:, :k].flatten().bincount(minlength=7) / 100_000
    assert ((ours - theirs).abs() < 4.5 * (theirs * (1 - theirs) / n).sqrt() + 0.005).all()
    noisy = torch.cat([torch.cat([x.noisy, x.kappa[:, None]], dim=1) for x in drawn])
    torch.testing.assert_close(noisy.mean(dim=0), brute.values.mean(dim=0), atol=0.1, rtol=0)
    torch.testing.assert_close(noisy.std(dim=0), brute.values.std(dim=0), atol=0.1, rtol=0)


@pytest.mark.parametrize("k", [1, 3, 6])
def test_draws_are_different_ranked_by_noisy_score_and_above_the_threshold(tiny_model, trie, prompt, k):
    drawn = sample_without_replacement(tiny_model, trie, [prompt, prompt[1:], prompt[3:]], k, seeded(3))
    assert all(len(set(row)) == k and -1 not in row for row in drawn.sid.tolist())
    assert (drawn.noisy.diff(dim=1) <= 0).all()
    assert (drawn.noisy[:, -1] > drawn.kappa).all() and drawn.kappa.isfinite().all()


@pytest.mark.parametrize("k", [7, 12])
def test_as_many_draws_as_sids_are_the_whole_catalogue(tiny_model, trie, prompt, exact, k):
    drawn = sample_without_replacement(tiny_model, trie, [prompt] * 3, k, seeded(4))
    assert drawn.sid.shape == drawn.logp.shape == drawn.noisy.shape == (3, k)
    assert (drawn.kappa == -torch.inf).all()
    for sid, logp in zip(drawn.sid, drawn.logp, strict=True):
        assert sorted(sid[:7].tolist()) == list(range(7)) and (sid[7:] == -1).all()
        torch.testing.assert_close(logp[:7], exact[sid[:7]], atol=1e-4, rtol=0)
        assert (logp[7:] == -torch.inf).all()


@pytest.mark.parametrize("temperature", [1.0, 8.0])
def test_the_importance_weighted_estimate_is_unbiased(tiny_model, trie, prompt, temperature):
    everything = sample_without_replacement(tiny_model, trie, [prompt], 7, seeded(0), temperature)
    value = torch.tensor([3.0, -1.0, 0.5, 2.0, 10.0, -4.0, 1.0], dtype=torch.float64)
    truth = (everything.logp[0].exp() * value[everything.sid[0]]).sum().item()
    estimates = []
    for seed in range(20):
        drawn = sample_without_replacement(tiny_model, trie, [prompt] * COPIES, 3, seeded(100 + seed), temperature)
        included = -torch.expm1(-torch.exp(drawn.logp - drawn.kappa[:, None]))
        estimates.append((drawn.logp.exp() / included * value[drawn.sid]).sum(dim=1))
    estimate = torch.cat(estimates)
    error = estimate.std().item() / math.sqrt(len(estimate))
    assert abs(estimate.mean().item() - truth) < 4 * error
    assert error < 0.02 * value.std().item()


@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_temperature_divides_the_scores_before_they_are_normalised(tiny_model, trie, prompt, temperature):
    class Divided(torch.nn.Module):
        def forward(self, ids):
            out = tiny_model(ids)
            out.logits = out.logits / temperature
            return out

    expected = exact_logps(Divided(), trie, prompt)
    everything = sample_without_replacement(tiny_model, trie, [prompt], 7, seeded(0), temperature)
    torch.testing.assert_close(everything.logp[0], expected[everything.sid[0]], atol=1e-4, rtol=0)
    sid, logp = sample(tiny_model, trie, [prompt], 3000, seeded(0), temperature)
    torch.testing.assert_close(logp[0].double(), expected[sid[0]], atol=1e-4, rtol=0)
    frequent = expected.argmax().item()
    p = expected[frequent].exp().item()
    assert (sid == frequent).float().mean().item() == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 3000) + 1e-9)


def test_the_generator_decides_alone_and_none_is_the_global_one(tiny_model, trie, prompt):
    for draw in (sample, sample_without_replacement):
        torch.manual_seed(0)
        one = draw(tiny_model, trie, [prompt], 5, seeded(7))
        other = draw(tiny_model, trie, [prompt], 5, seeded(7))
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
        torch.manual_seed(7)
        globally = draw(tiny_model, trie, [prompt], 5)
        assert torch.equal(globally[0], one[0])


def test_a_shared_template_changes_no_draw(tiny_model, trie, prompt):
    prompts = [prompt, [*prompt[:4], 9, 8], [*prompt[:4], 7]]
    template = Template.of(tiny_model, prompts)
    assert template.length == 4
    for draw in (sample, sample_without_replacement):
        plain, reused = (draw(tiny_model, trie, prompts, 5, seeded(1), template=t) for t in (None, template))
        assert torch.equal(plain[0], reused[0])
        torch.testing.assert_close(plain[1], reused[1], atol=1e-5, rtol=0)


def test_conditioned_scores_have_the_given_maximum_and_keep_their_order():
    noisy = torch.tensor([[[0.3, -2.0, 1.5, -torch.inf]], [[-torch.inf] * 4]], dtype=torch.float64)
    largest = torch.tensor([[-0.7], [-torch.inf]], dtype=torch.float64)
    moved = conditioned(noisy, largest)
    by_hand = [-math.log(math.exp(0.7) - math.exp(-1.5) + math.exp(-x)) for x in (0.3, -2.0, 1.5)]
    assert moved[0, 0, :3].tolist() == pytest.approx(by_hand)
    assert moved[0, 0, 2].item() == pytest.approx(-0.7)
    assert moved[0, 0, 3] == -torch.inf and (moved[1] == -torch.inf).all()


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_that_is_not_above_zero_is_refused(tiny_model, trie, prompt, temperature):
    for draw in (sample, sample_without_replacement):
        with pytest.raises(ValueError, match="temperature="):
            draw(tiny_model, trie, [prompt], 2, temperature=temperature)


def test_blocked_draws_stay_below_a_beginning_and_end_with_it(tiny_model, tokenizer, toy, trie, prompt):
    """Below <a_0> are three SIDs: independent draws find no other, draws without replacement those and no more."""
    a0, b1 = tokenizer.convert_tokens_to_ids(["<a_0>", "<b_1>"])
    blocked = prefix_keys(trie, [[a0], [a0, b1]])
    below = [{s for s, tokens in enumerate(trie.sid_tokens(torch.arange(7)).tolist()) if tokens[: len(p)] == p}
             for p in ([a0], [a0, b1])]  # fmt: skip
    assert [len(sids) for sids in below] == [3, 1]
    many = sample(tiny_model, trie, [prompt] * 2, 200, seeded(0), blocked=blocked)[0].tolist()
    assert set(many[1]) == below[1] and set(many[0]) <= below[0] and len(set(many[0])) > 1
    drawn = sample_without_replacement(tiny_model, trie, [prompt] * 2, 5, seeded(0), blocked=blocked)
    assert drawn.kappa.tolist() == [-math.inf] * 2
    for row, logps, inside in zip(drawn.sid.tolist(), drawn.logp, below, strict=True):
        assert sorted(row) == [-1] * (5 - len(inside)) + sorted(inside)
        assert logps.exp().sum().item() == pytest.approx(1.0)
