"""Where a search stands: the open nodes of each prompt's trie, and what their children are worth.

Beam search, sampling and the exhaustive ranking differ only in which children they go on with.

    P prompts, n open nodes per prompt, m of them computed, K slots: the level's widest node and EOS,
    U distinct tokens of a level and EOS, H hidden size
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mimigenrec.decoding.filters import is_blocked
from mimigenrec.decoding.finite import check_scores
from mimigenrec.decoding.head import Head
from mimigenrec.decoding.tree import PromptTree, Template
from mimigenrec.decoding.trie import SidTrie

Support = Literal["vocab", "trie"]


class Children(NamedTuple):
    """What may follow each open node. The last slot is EOS, which ends the SID of the node."""

    token: Tensor  # (P, n, K) ids
    node: Tensor  # (P, n, K)
    logp: Tensor  # (P, n, K) nats, -inf where a slot is not legal


class Frontier:
    """Starts at the root behind each prompt; advance() moves to chosen children, one level down."""

    def __init__(
        self,
        model,
        trie: SidTrie,
        prompts: Sequence[Sequence[int]],
        support: Support,
        template: Template | None = None,
        blocked: Tensor | None = None,
        temperature: float = 1.0,
    ):
        """template: what all prompts begin with, computed before (tree.Template).
        blocked: (P, D) what each prompt's search must not enter (filters.blocked_keys).
        temperature: scores are divided by it before they are normalised."""
        self.blocked, self.temperature = blocked, temperature
        self.trie, self.support, self.head = trie, support, Head(model)
        self.tree = PromptTree(model, prompts, template)
        self.level = 0
        self.node = torch.zeros(len(prompts), 1, dtype=torch.long, device=self.tree.device)  # (P, n)
        self.hidden: Tensor | None = self.tree.last[:, None]  # (P, m, H); None when no node is computed
        self.place = torch.zeros_like(self.node)  # (P, n) where a node stands in hidden, -1: not computed

    def children(self) -> Children:
        """Raises NotFinite where the model scores a legal token with NaN or infinity."""
        P, n = self.node.shape
        token, node, valid = (x.view(P, n, -1) for x in self.trie.children(self.node.flatten(), self.level))
        if self.blocked is not None:
            valid &= ~is_blocked(self.trie, self.blocked, self.node, node)
        if self.hidden is None:
            certain = torch.zeros(valid.shape, device=valid.device)
            return Children(token, node, certain.masked_fill_(~valid, -torch.inf))
        rows = self.hidden.flatten(0, 1)  # (P * m, H)
        asked = self.trie.level_tokens(self.level)  # (U,) ascending
        scores = self.head.scores(rows, asked) / self.temperature  # (P * m, U)
        if self.support == "vocab":
            scores -= self.head.log_normaliser(rows, self.temperature)[:, None]
        place = self.place.clamp(min=0)[..., None].expand(-1, -1, len(asked))  # not computed: any, its way is certain
        logp = scores.view(P, -1, len(asked)).gather(1, place)  # (P, n, U)
        logp = logp.gather(2, torch.searchsorted(asked, token))  # (P, n, K)
        check_scores(logp, valid, self.level + 1)
        logp = logp.masked_fill_(~valid, -torch.inf)
        if self.support == "trie":
            logp = logp.log_softmax(dim=-1).masked_fill_(~valid, -torch.inf)  # no NaN where all is blocked
        return Children(token, node, logp)

    def advance(self, parent: Tensor, token: Tensor, node: Tensor) -> None:
        """parent, token, node (P, n): the children to go on with, and which open node each comes from.

        With support "trie" a node behind which only one SID can follow is not computed: the rest has probability 1.
        """
        certain = self.trie.certain(node) if self.support == "trie" else torch.zeros_like(node, dtype=torch.bool)
        m = int((~certain).sum(dim=1).max())
        place = torch.full_like(node, -1)
        if m:
            order = certain.long().argsort(dim=1, stable=True)[:, :m]  # (P, m) places of the open ones, filled up
            place.scatter_(1, order, torch.arange(m, device=node.device).expand(len(node), m))
            place.masked_fill_(certain, -1)
            parents = self.place.gather(1, parent).gather(1, order).clamp(min=0) if self.level else None
            self.hidden = self.tree.grow(token.gather(1, order), parents)
        else:
            self.hidden = None
        self.node, self.place, self.level = node, place, self.level + 1
