"""Draws from the constrained policy, with and without replacement: the legal tokens of each step sum to 1.

Without replacement is stochastic beam search: the k SIDs with the largest log p + Gumbel noise, found without scoring
the others. A node's noisy score is the largest of the SIDs below it, so the best of a node's children keeps its score
and the others lie below. With kappa, the (k + 1)-th largest noisy score, a SID of log-probability p is drawn with
probability q(p) = 1 - exp(-exp(p - kappa)), and the sum of exp(p) / q(p) * f over the draws is an unbiased estimate of
the policy's mean of f.

source   Kool, van Hoof, Welling 2019, arXiv:1903.06059

    P prompts, n open nodes per prompt, K slots: the level's widest node and EOS
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mimigenrec.decoding.frontier import Frontier
from mimigenrec.decoding.search import check_search, obstacle_to_tree
from mimigenrec.decoding.tree import Template
from mimigenrec.decoding.trie import SidTrie
from mimigenrec.errors import UserError


class Distinct(NamedTuple):
    """k different SIDs per prompt, the largest noisy score first; SID -1 and -inf where the catalogue has no more."""

    sid: Tensor  # (P, k) numbers of SIDs
    logp: Tensor  # (P, k) nats, of SID and EOS, float64
    noisy: Tensor  # (P, k) logp + Gumbel noise
    kappa: Tensor  # (P,) the largest noisy score of all SIDs that were not drawn; -inf where all were


@torch.no_grad()
def sample(
    model,
    trie: SidTrie,
    prompts: Sequence[Sequence[int]],
    draws: int,
    generator: torch.Generator | None = None,
    temperature: float = 1.0,
    template: Template | None = None,
    blocked: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Independent draws of one batch: numbers of SIDs (P, draws) and their log-probabilities (P, draws), in nats.

    generator    on the model's device; None: torch's global one
    temperature  divides the scores of each step before they are normalised, as in the log-probabilities returned
    template     what all prompts begin with, computed before (tree.Template)
    blocked      (P, D) what each prompt's draws must not enter (filters.py); something must be left
    raises       UserError for a temperature that is not above 0, and for a model that only the plain search can
                 answer for
    """
    front = start(model, trie, prompts, temperature, template, blocked)
    P, device = len(prompts), front.node.device
    sid = torch.full((P, draws), -1, device=device)
    total = torch.zeros(P, draws, device=device)
    parent = torch.zeros_like(sid)  # all draws begin at the root; then each goes its own way
    while True:
        token, node, logp = (x.take_along_dim(parent[..., None], dim=1) for x in front.children())  # (P, draws, K)
        slot = torch.multinomial(logp.exp().flatten(0, 1), 1, generator=generator).view(P, draws, 1)
        open_ = trie.sid_at(front.node).take_along_dim(parent, dim=1)
        token, node, step = (x.gather(2, slot)[..., 0] for x in (token, node, logp))  # (P, draws)
        sid = torch.where((node == trie.DONE) & (sid < 0), open_, sid)
        total += step
        if front.level == trie.depth:
            return sid, total
        front.advance(parent, token, node)  # what is DONE stays there with probability 1
        parent = torch.arange(draws, device=device).expand(P, draws)


@torch.no_grad()
def sample_without_replacement(
    model,
    trie: SidTrie,
    prompts: Sequence[Sequence[int]],
    k: int,
    generator: torch.Generator | None = None,
    temperature: float = 1.0,
    template: Template | None = None,
    blocked: Tensor | None = None,
) -> Distinct:
    """The first k different SIDs that one would meet drawing again and again, of one batch; arguments as in sample().

    SIDs that are finished stay on the list and compete with open ones by noisy score.
    """
    front = start(model, trie, prompts, temperature, template, blocked)
    P, device = len(prompts), front.node.device
    sid = torch.full((P, 1), -1, device=device)
    total = torch.zeros(P, 1, dtype=torch.float64, device=device)
    noisy = gumbel(total, generator)
    while True:
        token, node, logp = front.children()
        phi = total[..., None] + logp  # (P, n, K)
        G = conditioned(phi + gumbel(phi, generator), noisy)
        sid = torch.where(sid < 0, trie.sid_at(front.node), sid)  # (P, n)
        noisy, best = G.flatten(1).topk(min(k + 1, G[0].numel()))  # (P, n of the next level), sorted
        parent = best // G.shape[2]
        token, node, total = (x.flatten(1).gather(1, best) for x in (token, node, phi))
        sid = torch.where(node == trie.DONE, sid.gather(1, parent), -1)
        if front.level == trie.depth:
            break
        front.advance(parent, token, node)
    sid = torch.where(noisy > -torch.inf, sid, -1)
    missing = max(0, k + 1 - noisy.shape[1])
    noisy, total = (torch.nn.functional.pad(x, (0, missing), value=-torch.inf) for x in (noisy, total))
    sid = torch.nn.functional.pad(sid, (0, missing), value=-1)
    return Distinct(sid[:, :k], total[:, :k], noisy[:, :k], noisy[:, k])


def conditioned(noisy: Tensor, largest: Tensor) -> Tensor:
    """noisy (P, n, K) -> the same, given that the largest of each n is `largest` (P, n); -inf stays (appendix B.3)."""
    gap = noisy - noisy.amax(dim=2, keepdim=True)  # (P, n, K) <= 0
    v = largest[..., None] - noisy + torch.log(-torch.expm1(gap))
    moved = largest[..., None] - v.clamp(min=0) - torch.log1p(torch.exp(-v.abs()))
    return torch.where(noisy.isfinite(), moved, -torch.inf)


def gumbel(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return -torch.empty_like(like).exponential_(generator=generator).log()


def start(
    model,
    trie: SidTrie,
    prompts: Sequence[Sequence[int]],
    temperature: float,
    template: Template | None,
    blocked: Tensor | None,
) -> Frontier:
    if not temperature > 0:
        raise UserError(f"temperature={temperature}; draws need one above 0, a search has no temperature")
    check_search(model, trie, prompts, "trie")
    obstacle = obstacle_to_tree(model, max(map(len, prompts)) + trie.depth)
    if obstacle:
        raise UserError(f"draws need the tree forward: {obstacle}")
    return Frontier(model, trie, prompts, "trie", template, blocked, temperature)
