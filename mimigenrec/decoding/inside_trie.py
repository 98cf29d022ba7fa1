"""TRL's own forward with what the trie forbids taken out: log-probabilities inside the trie, row by row."""

import torch
from torch import Tensor, nn

from mimigenrec.decoding.trie import SidTrie


class InsideTrie:
    """A model's forward whose logits at the completion's places leave only the tokens that the trie allows there."""

    def __init__(self, model: nn.Module, trie: SidTrie, logits_to_keep: int, temperature: float):
        self.model, self.trie, self.keep, self.temperature = model, trie, logits_to_keep, temperature

    def __call__(self, input_ids: Tensor, **inputs):
        """input_ids (N, P + keep) -> the model's output, logits (N, any, V) whose last keep + 1 rows count.

        The row before a completion token decides about it; the last row decides about nothing. What is forbidden gets
        a large negative number, not -inf, whose product with a probability of 0 would make the entropy NaN. Behind
        EOS, where the loss does not look, everything stays.
        """
        output = self.model(input_ids=input_ids, **inputs)
        logits = output.logits
        legal = legal_tokens(self.trie, input_ids[:, -self.keep :], logits.shape[-1])  # (N, keep, V)
        lowest = torch.finfo(logits.dtype).min / 2 * min(1.0, self.temperature)
        kept = logits[:, -self.keep - 1 : -1].masked_fill(~legal, lowest)
        output.logits = torch.cat([kept, logits[:, -1:]], dim=1)
        return output


def legal_tokens(trie: SidTrie, completions: Tensor, vocabulary: int) -> Tensor:
    """completions (N, T) -> (N, T, V): what may stand at each place, given what stands before it."""
    node = completions.new_zeros(len(completions))
    open_ = torch.ones_like(node, dtype=torch.bool)
    legal = []
    for t in range(completions.shape[1]):
        legal.append(trie.allowed(node, vocabulary) | ~open_[:, None])
        node = trie.step(node, completions[:, t])
        open_ = open_ & (completions[:, t] != trie.eos_id)
    return torch.stack(legal, dim=1)
