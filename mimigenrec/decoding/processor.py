"""TrieLogitsProcessor: lets any generate() write only SIDs of the catalogue, each closed by EOS."""

import torch
from torch import Tensor
from transformers import LogitsProcessor

from mimigenrec.decoding.finite import check_scores
from mimigenrec.decoding.trie import SidTrie


class TrieLogitsProcessor(LogitsProcessor):
    """Keeps nothing between steps: a row's place in the trie is read off its own tokens.

    So beams may be reordered, rows may belong to any prompts, one object may serve any number of calls. Prompts are
    padded on the left; what stands before prompt_length is never looked at. A finished row may only repeat EOS, and
    so may a row that left the catalogue, so no row is without a legal token. A beam search asked for more beams than
    there are SIDs fills up with repeated or unfinished rows, scored near -1e9; decoding.search leaves them out.

    renormalise   False: scores of legal tokens stay as they are, so that in beam search a SID's score is its
                  log-probability under the full vocabulary. True: they become log-probabilities among the legal
                  tokens (softmax over them sums to 1), the constrained policy's own.
    """

    def __init__(self, trie: SidTrie, prompt_length: int, renormalise: bool = False):
        self.trie = trie
        self.prompt_length = prompt_length
        self.renormalise = renormalise

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """input_ids (N, prompt_length + t), scores (N, V) -> (N, V), where N = batch * beams."""
        self.trie.check_vocabulary(scores.shape[-1])
        written = input_ids[:, self.prompt_length :]  # (N, t)
        tokens, _, valid = self.trie.children(self.trie.walk(written), level=written.shape[1])  # (N, K + 1)
        legal = scores.gather(1, tokens)  # a slot that is not valid repeats a legal token, with the same score
        self.check(legal, written.shape[1] + 1)
        if self.renormalise:
            legal = legal - legal.masked_fill(~valid, float("-inf")).logsumexp(dim=1, keepdim=True)
        return torch.full_like(scores, float("-inf")).scatter_(1, tokens, legal)

    def check(self, legal: Tensor, step: int) -> None:
        """Raises NotFinite for NaN; -inf may come from a processor before this one. legal (N, K + 1), step from 1."""
        check_scores(legal, legal.isnan() | legal.isposinf(), step)
