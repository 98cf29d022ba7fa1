"""Scores and log-probabilities of the few tokens the trie allows, without ever storing rows x vocabulary.

R rows, H hidden size, V vocabulary, U columns asked for
"""

import torch
from torch import Tensor, nn

from mimigenrec.decoding.causal_lm import causal_lm

TILE = 2048  # columns of the head at a time: a tile of some hundred rows stays in a processor's cache


class Head:
    """The output layer of a causal LM as its forward applies it: linear, then the soft cap of Gemma-like models."""

    def __init__(self, model: nn.Module):
        lm = causal_lm(model)
        linear = lm.get_output_embeddings()
        self.weight, self.bias = linear.weight, getattr(linear, "bias", None)  # (V, H), (V,) or None
        self.softcap = getattr(lm.config.get_text_config(), "final_logit_softcapping", None)

    def scores(self, hidden: Tensor, columns: Tensor | slice) -> Tensor:
        """hidden (R, H) -> (R, U) float32."""
        bias = None if self.bias is None else self.bias[columns]
        scores = nn.functional.linear(hidden, self.weight[columns], bias).float()
        return scores if self.softcap is None else self.softcap * torch.tanh(scores / self.softcap)

    def log_normaliser(self, hidden: Tensor, temperature: float = 1.0) -> Tensor:
        """hidden (R, H) -> (R,): log of the sum of exp(score / temperature) over the vocabulary, tile by tile."""
        starts = range(0, len(self.weight), TILE)
        tiles = hidden.new_empty(len(starts), len(hidden), dtype=torch.float32)
        for i, start in enumerate(starts):  # what is kept stands in `tiles`: a small tensor behind each large one
            # would keep glibc from using the large one's place again
            scores = self.scores(hidden, slice(start, start + TILE))
            tiles[i] = (scores if temperature == 1.0 else scores / temperature).logsumexp(dim=1)
        return tiles.logsumexp(dim=0)
