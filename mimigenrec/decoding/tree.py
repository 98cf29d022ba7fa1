"""Many short suffixes behind one prompt in one forward: mask, positions, a cache that only grows.

A prompt is computed once. Its suffixes are the nodes of a tree; each level is one forward whose query block holds all
new nodes of a prompt, and a mask lets a node see its prompt, its ancestors and itself, nobody else:

                       prompt        level 1   level 2
                       p0 p1 p2 p3   a1  a2    b1  b2  b3                    ,- a1 -- b1
        level 1   a1 |  x  x  x  x |  x       |                p0 p1 p2 p3 -<     `-- b2
                  a2 |  x  x  x  x |      x   |                              `- a2 -- b3
        level 2   b1 |  x  x  x  x |  x       |  x
                  b2 |  x  x  x  x |  x       |      x         rows ask, columns are asked; x: is seen
                  b3 |  x  x  x  x |      x   |          x

Position ids say how deep a node lies, wherever it stands in the cache, so nothing is ever copied or reordered.

    P prompts, L longest prompt (padded on the left), S suffix tokens so far, n new tokens per prompt, H hidden size
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from mimigenrec.decoding.causal_lm import causal_lm


class Template:
    """Keys and values of the tokens that all prompts begin with: computed once, any number of trees start from it."""

    def __init__(self, model, tokens: Sequence[int]):
        self.body, self.cache, self.length = causal_lm(model).get_decoder(), DynamicCache(), len(tokens)
        device = next(self.body.parameters()).device
        causal = torch.ones(1, self.length, self.length, dtype=torch.bool, device=device).tril()
        places = torch.arange(self.length, device=device)[None]
        forward(self.body, torch.tensor([list(tokens)], device=device), causal, places, self.cache)

    @classmethod
    @torch.no_grad()
    def of(cls, model, prompts: Sequence[Sequence[int]]) -> "Template | None":
        """What these prompts share, a token of its own left to each; None where it is nothing or there is one."""
        shared = min(shared_length(prompts), min(map(len, prompts), default=0) - 1)
        return cls(model, prompts[0][:shared]) if len(prompts) > 1 and shared > 0 else None

    def copies(self, P: int) -> DynamicCache:
        cache = DynamicCache()
        for i, layer in enumerate(self.cache.layers):
            cache.update(layer.keys.expand(P, -1, -1, -1), layer.values.expand(P, -1, -1, -1), i)
        return cache


class PromptTree:
    """The cache of P prompts and of the tree that grows behind each.

    last   (P, H) hidden state of each prompt's last token
    """

    def __init__(self, model, prompts: Sequence[Sequence[int]], template: Template | None = None):
        """prompts: token ids, none empty. template: what all of them begin with; none may end with it."""
        self.body = causal_lm(model).get_decoder()
        self.device = next(self.body.parameters()).device
        P, self.depth, shared = len(prompts), 0, template.length if template else 0
        self.cache = template.copies(P) if template else DynamicCache()
        self.lengths = torch.tensor([len(prompt) for prompt in prompts], device=self.device)  # (P,)
        L = max(map(len, prompts))
        ids = torch.tensor(
            [[0] * (L - len(prompt)) + list(prompt[shared:]) for prompt in prompts], device=self.device
        )  # (P, L - shared): padding stands between the template and the prompt's own
        pad = (L - self.lengths)[:, None]  # (P, 1)
        own, every = torch.arange(shared, L, device=self.device), torch.arange(L, device=self.device)
        self.seen = (every < shared) | (every >= shared + pad)  # (P, L)
        visible = (own[:, None] >= every) & self.seen[:, None]  # (P, L - shared, L)
        visible |= own[:, None] == every  # padding sees itself: a row that sees nothing would be NaN
        self.last = forward(self.body, ids, visible, (own - pad).clamp(min=0), self.cache)[:, -1]  # (P, H)
        self.ancestors = self.seen.new_zeros(P, 1, 0)  # (P, n of the level before, S)

    def grow(self, tokens: Tensor, parents: Tensor | None) -> Tensor:
        """One more level; returns the hidden states of its tokens, (P, n, H).

        tokens    (P, n) ids
        parents   (P, n) place of each token's parent in the level before; None where the parent is the prompt
        """
        P, n = tokens.shape
        if parents is None:
            inherited = self.ancestors.expand(P, n, 0)
        else:
            inherited = self.ancestors.gather(1, parents[..., None].expand(P, n, self.ancestors.shape[-1]))
        itself = torch.eye(n, dtype=torch.bool, device=self.device).expand(P, n, n)
        self.ancestors = torch.cat([inherited, itself], dim=-1)  # (P, n, S + n)
        visible = torch.cat([self.seen[:, None].expand(P, n, -1), self.ancestors], dim=-1)  # (P, n, L + S + n)
        positions = (self.lengths + self.depth)[:, None].expand(P, n)
        self.depth += 1
        return forward(self.body, tokens, visible, positions, self.cache)


def forward(body, ids: Tensor, visible: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
    """ids, positions (P, q), visible (P, q, keys) -> (P, q, H); the new keys join the cache."""
    output = body(
        input_ids=ids,
        attention_mask=additive(visible, next(body.parameters()).dtype),
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    )
    return output.last_hidden_state


def tree_bytes(model, length: int, widest: int, nodes: int) -> int:
    """About what the tree of one prompt needs: keys and values of all its tokens, activations and scores of the widest
    forward. length: tokens of the prompt; widest: most new nodes of a level; nodes: of all levels."""
    lm = causal_lm(model)
    config = lm.config.get_text_config()
    heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    keys, rows = length + nodes, max(length, widest)
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    cache = 2 * config.num_hidden_layers * kv_heads * head_size * keys
    at_work = rows * ((1 + heads) * keys + 4 * config.hidden_size + 3 * inner)
    return (cache + at_work) * lm.dtype.itemsize


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """visible (P, q, keys) bool -> (P, 1, q, keys), added to attention scores: 0 where seen, else very negative."""
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)[:, None]


def shared_length(prompts: Sequence[Sequence[int]]) -> int:
    """How many leading tokens all prompts have in common: the template and the first words of the question."""
    if not prompts:
        return 0
    low, high = min(prompts), max(prompts)  # the two that differ first
    return next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
