"""Log-probabilities of many completions of few prompts, each prompt and each common beginning computed once.

GRPO asks for the log-probability of G completions of a prompt. Row by row that is G x (prompt + completion) tokens; a
SID is 4 tokens and a prompt about a hundred, so nearly all of it is the same prompt again. Here a prompt and the tree
of its completions are one row, with the mask that decoding.tree draws: G = 16 takes at most L + 48 tokens instead of
16 L + 64, forward and backward. Gradients are the same: a shared token's is the sum over the rows that share it.

Completions may be SIDs or texts of any lengths, with or without EOS. Texts share little but their prompt, and the mask
grows with the square of L + G x C, so give few long texts at a time.

    N rows, L longest prompt (padded on the left), C completion tokens, P distinct prompts, Q = L + most tree nodes,
    M predictors: the last token of each prompt and every node, H hidden size, V vocabulary
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from mimigenrec.decoding.causal_lm import causal_lm
from mimigenrec.decoding.head import TILE, Head
from mimigenrec.decoding.search import obstacle_to_tree
from mimigenrec.decoding.tree import additive
from mimigenrec.decoding.trie import SidTrie


class Packed(NamedTuple):
    """P rows that stand for N, and where each completion token's predictor is."""

    ids: Tensor  # (P, Q)
    visible: Tensor  # (P, Q, Q) bool
    positions: Tensor  # (P, Q)
    at: Tensor  # (M,) place of each predictor in P * Q
    predictor: Tensor  # (N, C) which of the M predicts each completion token; -1: not asked for


def pack(input_ids: Tensor, attention_mask: Tensor, completion_length: int, asked: Tensor) -> Packed:
    """input_ids, attention_mask (N, L + C); asked (N, C) bool: completion tokens whose log-probability is wanted.

    Three completions of the prompt p0 p1. Their last tokens predict nothing, so they need no column:

        rows                  one row: ids and positions        predictor of each completion token
        p0 p1 | a1 b1 c1      p0 p1 a1 a2 b1 b2                 p1 a1 b1
        p0 p1 | a1 b2 c2       0  1  2  2  3  3                 p1 a1 b2
        p0 p1 | a2 b3                                           p1 a2
    """
    input_ids, attention_mask = (
        x[:, attention_mask.any(dim=0).long().argmax() :] for x in (input_ids, attention_mask)
    )
    L, device = input_ids.shape[1] - completion_length, input_ids.device
    mask, completion = attention_mask[:, :L].bool(), input_ids[:, L:]
    prompts, owner = torch.where(mask, input_ids[:, :L], -1).unique(dim=0, return_inverse=True)  # (P, L), (N,)
    P, real = len(prompts), prompts >= 0

    later = asked.flip(1).cummax(dim=1).values.flip(1)  # (N, C) this token or a later one is asked for
    node, predictor = owner.clone(), torch.full_like(completion, -1)  # predictors 0 .. P - 1 are the prompts
    prompt_of, parent_of, token_of, sizes = [torch.arange(P, device=device)], [], [], [P]
    for t in range(completion_length):
        predictor[:, t] = torch.where(asked[:, t], node, -1)
        going = later[:, t + 1] if t + 1 < completion_length else torch.zeros_like(asked[:, t])
        edges = torch.stack([node[going], completion[going, t]], dim=1)  # (rows that go on, 2)
        edges, rank = edges.unique(dim=0, return_inverse=True)
        node = node.masked_scatter(going, sum(sizes) + rank)
        parent_of.append(edges[:, 0])
        token_of.append(edges[:, 1])
        prompt_of.append(torch.cat(prompt_of)[edges[:, 0]])
        sizes.append(len(edges))

    prompt, parent, token = torch.cat(prompt_of), torch.cat(parent_of), torch.cat(token_of)  # (M,), (M - P,) twice
    column = torch.full_like(prompt, L - 1)
    by_prompt = prompt[P:].argsort(stable=True)
    counts = prompt[P:].bincount(minlength=P)
    column[P + by_prompt] = (
        L + torch.arange(len(by_prompt), device=device) - (counts.cumsum(0) - counts)[prompt[P + by_prompt]]
    )
    Q = L + int(counts.max())
    ids, positions = input_ids.new_zeros(P, Q), input_ids.new_zeros(P, Q)
    ids[:, :L] = prompts.clamp(min=0)
    positions[:, :L] = (real.cumsum(dim=1) - 1).clamp(min=0)
    visible = torch.eye(Q, dtype=torch.bool, device=device).repeat(P, 1, 1)  # padding sees itself: no row is empty
    visible[:, :L, :L] |= real[:, None] & torch.ones(L, L, dtype=torch.bool, device=device).tril()
    first = P
    for size in sizes[1:]:
        new = slice(first, first + size)
        above = parent[first - P : first - P + size]
        row, col = prompt[new], column[new]
        ids[row, col] = token[first - P : first - P + size]
        positions[row, col] = positions[row, column[above]] + 1
        visible[row, col] |= visible[row, column[above]]
        first += size
    return Packed(ids, visible, positions, prompt * Q + column, predictor)


def obstacle_to_sharing(model, longest: int) -> str | None:
    """Why completion_logps would not give this model's own numbers; None where it does."""
    head = causal_lm(model).get_output_embeddings()
    if Head(model).softcap is not None:
        return "the model caps its scores behind the head"
    if not isinstance(getattr(head, "original_module", head), torch.nn.Linear):
        return f"the head is a {type(head).__name__}"
    return obstacle_to_tree(model, longest)


def completion_logps(
    model,
    input_ids: Tensor,
    attention_mask: Tensor,
    completion_length: int,
    temperature: float = 1.0,
    trie: SidTrie | None = None,
    wanted: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """(N, C) log-probabilities and, without gradient, (N, C) entropies of the completion tokens, in nats.

    input_ids, attention_mask   (N, L + C), prompts padded on the left, completions on the right. A completion token
                                that the mask leaves out, with others behind it, is seen by them and not asked for
    trie                        renormalise over the tokens that it allows; None: over the whole vocabulary
    wanted                      (N,) bool, default all: rows to compute. The others, what the mask leaves out and, with
                                a trie, tokens that could not have been others get 0, whatever stands there
    The model is called as a whole, so DDP, DeepSpeed and FSDP see an ordinary forward and backward. In float32 the
    numbers are those of separate rows to 1e-5, entropies to 2e-5, gradients to a relative 1e-4.
    """
    completion, asked = input_ids[:, -completion_length:], attention_mask[:, -completion_length:].bool()
    if trie is not None:
        node = torch.zeros_like(completion)  # (N, C) where in the trie each completion token is chosen
        for t in range(1, completion_length):
            node[:, t] = trie.step(node[:, t - 1], completion[:, t - 1])
        asked = asked & (trie.choices(node.flatten()).view_as(node) > 1)
    if wanted is not None:
        asked = asked & wanted[:, None]
    if not asked.any():
        asked = asked.clone()
        asked[0, 0] = True  # the forward and backward that wrappers wait for; its weight in the loss is 0
    needed = asked.any(dim=1)  # prompts of which nothing is asked are left out
    packed = pack(input_ids[needed], attention_mask[needed], completion_length, asked[needed])
    rows, tokens = packed.predictor[asked[needed]], completion[asked]  # (R,) predictor and token of each answer

    lm = causal_lm(model)
    head = Head(lm)

    def compute(hidden: Tensor) -> Tensor:
        """hidden (P, Q, H) -> (2, R): log-probability and entropy of each answer, in place of the logits."""
        hidden = hidden.flatten(0, 1)[packed.at]  # (M, H)
        if trie is None:
            logp, entropy = TokenLogps.apply(hidden, head.weight, head.bias, rows, tokens, temperature)
        else:
            stands = node.new_zeros(len(packed.at)).scatter_(0, rows, node[asked])  # (M,)
            logp, entropy = legal_logps(head, trie, hidden, stands, rows, tokens, temperature)
        return torch.stack([logp, entropy])

    with head_replaced(lm, compute):
        answers = model(
            input_ids=packed.ids,
            attention_mask=additive(packed.visible, head.weight.dtype),
            position_ids=packed.positions,
            use_cache=False,
        ).logits
    zeros = torch.zeros(asked.shape, device=answers.device)
    return zeros.masked_scatter(asked, answers[0]), zeros.masked_scatter(asked, answers[1].detach())


@contextmanager
def head_replaced(lm, compute: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While inside, the head's forward is `compute`: it runs where wrappers expect the head, its weights gathered."""
    module = lm.get_output_embeddings()
    module.forward = compute
    try:
        yield
    finally:
        del module.forward


def legal_logps(
    head: Head, trie: SidTrie, hidden: Tensor, node: Tensor, rows: Tensor, tokens: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Among the legal tokens of each predictor's node: hidden (M, H), node (M,), rows, tokens (R,) -> (R,) twice."""
    child, _, valid = trie.children(node)  # (M, K)
    columns = child.unique()  # (U,)
    scores = head.scores(hidden, columns).gather(1, torch.searchsorted(columns, child)) / temperature  # (M, K)
    logp = scores.masked_fill(~valid, torch.finfo(scores.dtype).min).log_softmax(dim=1)
    with torch.no_grad():
        entropy = -(logp.exp() * logp).sum(dim=1)  # (M,)
    chosen = ((child[rows] == tokens[:, None]) & valid[rows]).long().argmax(dim=1, keepdim=True)  # (R, 1)
    return logp[rows].gather(1, chosen)[:, 0], entropy[rows]


class TokenLogps(torch.autograd.Function):
    """log p of chosen tokens under the whole vocabulary, and the entropy; a tile of columns at a time, both ways.

    Forward keeps M log-normalisers; backward computes each tile's scores again. Nothing is M x V.
    """

    @staticmethod
    def forward(ctx, hidden, weight, bias, rows, tokens, temperature):
        """hidden (M, H), weight (V, H), bias (V,) or None, rows, tokens (R,) -> (R,) logp, (R,) entropy."""
        top = torch.full((len(hidden),), -torch.inf, device=hidden.device)
        total, weighted = torch.zeros_like(top), torch.zeros_like(top)  # sums of exp(s - top) and s exp(s - top)
        for first in range(0, len(weight), TILE):
            scores = _scores(hidden, weight, bias, first, temperature)  # (M, TILE)
            higher = torch.maximum(top, scores.amax(dim=1))
            share, shrink = (scores - higher[:, None]).exp(), (top - higher).exp()
            total = total * shrink + share.sum(dim=1)
            weighted = weighted * shrink + (share * scores).sum(dim=1)
            top = higher
        normaliser = top + total.log()  # (M,)
        chosen = (hidden[rows].float() * weight[tokens].float()).sum(dim=1)  # (R,)
        chosen = (chosen if bias is None else chosen + bias[tokens].float()) / temperature
        ctx.save_for_backward(hidden, weight, bias, rows, tokens, normaliser)
        ctx.temperature = temperature
        entropy = (normaliser - weighted / total)[rows]
        ctx.mark_non_differentiable(entropy)
        return chosen - normaliser[rows], entropy

    @staticmethod
    def backward(ctx, grad, _):
        """d logp / d score of token v = [v is chosen] - p(v), times grad, summed over a predictor's answers."""
        hidden, weight, bias, rows, tokens, normaliser = ctx.saved_tensors
        grad = grad.float() / ctx.temperature  # (R,)
        per_row = torch.zeros_like(normaliser).index_add_(0, rows, grad)  # (M,)
        d_hidden = torch.zeros(hidden.shape, device=hidden.device)
        d_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        d_bias = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[2] else None
        for first in range(0, len(weight), TILE):
            scores = _scores(hidden, weight, bias, first, ctx.temperature)
            part = -per_row[:, None] * (scores - normaliser[:, None]).exp()  # (M, TILE)
            d_hidden += part @ weight[first : first + TILE].float()
            if d_weight is not None:
                d_weight[first : first + TILE] = part.T @ hidden.float()
            if d_bias is not None:
                d_bias[first : first + TILE] = part.sum(dim=0)
        d_hidden.index_add_(0, rows, grad[:, None] * weight[tokens].float())
        if d_weight is not None:
            d_weight.index_add_(0, tokens, (grad[:, None] * hidden[rows].float()).to(weight.dtype))
        if d_bias is not None:
            d_bias.index_add_(0, tokens, grad.to(bias.dtype))
        return d_hidden.to(hidden.dtype), d_weight, d_bias, None, None, None


def _scores(hidden: Tensor, weight: Tensor, bias: Tensor | None, first: int, temperature: float) -> Tensor:
    """(M, TILE) float32, in the dtype of the hidden states, with or without autocast around the caller."""
    tile = slice(first, first + TILE)
    bias = None if bias is None else bias[tile].to(hidden.dtype)
    with torch.autocast(hidden.device.type, enabled=False):
        return torch.nn.functional.linear(hidden, weight[tile].to(hidden.dtype), bias).float() / temperature
