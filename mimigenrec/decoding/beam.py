"""The engine: beam search and the exhaustive ranking on a Frontier. A prompt is computed once at any width."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mimigenrec.decoding.frontier import Frontier, Support
from mimigenrec.decoding.tree import Template
from mimigenrec.decoding.trie import SidTrie


@torch.no_grad()
def beam_search(
    model,
    trie: SidTrie,
    prompts: Sequence[Sequence[int]],
    beams: int,
    support: Support,
    template: Template | None = None,
    blocked: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One batch: log-probabilities (P, w) best first and numbers of SIDs (P, w), -inf where there is no more SID.

    w is `beams`, or less where the catalogue is smaller. At each level all open nodes are continued; of the best
    `beams` continuations those that close their SID with EOS are done, and the best `beams` others go on: what
    generate() does with length_penalty 0.
    """
    front = Frontier(model, trie, prompts, support, template, blocked)
    score = torch.zeros(front.node.shape, device=front.node.device)  # (P, n)
    done, sids = [], []
    while True:
        token, node, logp = front.children()
        total = score[..., None] + logp  # (P, n, K)
        least = total.flatten(1).topk(min(beams, total[0].numel())).values[:, -1:]  # (P, 1) of the best `beams`
        done.append(total[..., -1].masked_fill(total[..., -1] < least, -torch.inf))
        sids.append(trie.sid_at(front.node))
        if front.level == trie.depth:
            break
        going = total[..., :-1].flatten(1)  # (P, n * (K - 1))
        score, best = going.topk(
            min(beams, trie.branch_total(front.level), going.shape[1])
        )  # (P, n of the next level)
        token, node = (x[..., :-1].flatten(1).gather(1, best) for x in (token, node))
        front.advance(best // (total.shape[2] - 1), token, node)
    score, sid = torch.cat(done, dim=1), torch.cat(sids, dim=1)
    score, best = score.topk(min(beams, score.shape[1]))
    return score, sid.gather(1, best)


@torch.no_grad()
def rank_all(
    model, trie: SidTrie, prompts: Sequence[Sequence[int]], support: Support, template: Template | None = None
) -> Tensor:
    """(P, n_sids) log-probability of every SID, none left out: what a beam of any width approximates.

    Its largest level is one forward of that many tokens per prompt, and a mask of their number squared.
    """
    front = Frontier(model, trie, prompts, support, template)
    logps = torch.full((len(prompts), trie.n_sids), -torch.inf, device=front.node.device)
    score = torch.zeros(front.node.shape, device=front.node.device)  # (P, n), n all nodes of the level
    while True:
        token, node, logp = front.children()
        total = score[..., None] + logp  # (P, n, K)
        ended = trie.sid_at(front.node[0])  # (n,) the same for all prompts
        logps[:, ended[ended >= 0]] = total[:, ended >= 0, -1]
        if front.level == trie.depth:
            return logps
        real = (node[0, :, :-1] >= 0).flatten()  # children of the level in order, empty slots left out
        score = total[..., :-1].flatten(1)[:, real]
        parent = torch.arange(total.shape[1], device=real.device).repeat_interleave(total.shape[2] - 1)[real]
        token, node = (x[..., :-1].flatten(1)[:, real] for x in (token, node))
        front.advance(parent.expand(len(prompts), -1), token, node)
