"""Prompts -> the best items with their log-probabilities: beam search inside the trie.

Beam search over SIDs of different lengths: at each step all open beams are continued; of the best `beams`
continuations those that close their SID with EOS are done, and the best `beams` that do not go on. Scores are sums of
log-probabilities, EOS included, never divided by the length, so with as many beams as SIDs the result is the exact
ranking of the whole catalogue.

support   "vocab"  log-probabilities under the full vocabulary: what the model gives the SID and EOS as plain text
          "trie"   log-probabilities among the legal tokens only: the constrained policy's own, which sum to 1 over
                   the catalogue

The search itself is beam.py, on tree.py; models whose attention cannot take its mask are answered by plain.py.
"""

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from mimigenrec.contract import check_support
from mimigenrec.decoding.beam import beam_search, rank_all
from mimigenrec.decoding.causal_lm import causal_lm
from mimigenrec.decoding.filters import blocked_keys
from mimigenrec.decoding.finite import NotFinite
from mimigenrec.decoding.frontier import Support
from mimigenrec.decoding.head import Head
from mimigenrec.decoding.plain import RankedSids, generate_sids
from mimigenrec.decoding.tree import PromptTree, Template, tree_bytes
from mimigenrec.decoding.trie import SidTrie
from mimigenrec.errors import UserError
from mimigenrec.sids.tokens import Sid

Items = Collection[str] | None

BUDGET = 4 * 2**30  # bytes for the trees of one forward; more prompts at once are no faster by then

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recommendation:
    item: str
    sid: Sid
    logp: float  # nats, of the SID and EOS; items of one SID share it


def recommend(
    model,
    tokenizer,
    trie: SidTrie,
    prompts: Sequence[Sequence[int]],
    k: int,
    beams: int,
    allow: Items = None,
    deny: Items = None,
    support: Support = "vocab",
    batch_size: int = 8,
    allow_each: Sequence[Items] | None = None,
    deny_each: Sequence[Items] | None = None,
) -> list[list[Recommendation]]:
    """The k best items for each prompt, best first; fewer where fewer are legal, none twice.

    prompts      token ids, generation prompt included (chat.prompt_ids)
    allow, deny  item ids for all prompts; ids without a SID change nothing. The search runs in the trie of the legal
                 items, so a filter never shortens the list
    allow_each, deny_each   in their place: item ids, or None, per prompt
    raises       UserError if k < 1 or beams < k; for a filter in both forms, or not one per prompt; for support vocab
                 and a tokenizer whose answers have no end
    Items of one SID follow each other in the trie's order.
    """
    if not 1 <= k <= beams:
        raise UserError(f"beams={beams} cannot give k={k} items; ask for 1 or more and at least as many beams")
    check_support(tokenizer, support)
    n = len(prompts)
    allowed, denied = per_prompt("allow", allow, allow_each, n), per_prompt("deny", deny, deny_each, n)
    everywhere = denied[0] if n and len(set(denied)) == 1 else None  # else denied on the way, prompt by prompt
    rows_of: dict[frozenset[str] | None, list[int]] = {}  # prompts with the same items to choose from share a trie
    for row, items in enumerate(allowed):
        rows_of.setdefault(items, []).append(row)
    answers: list[list[Recommendation]] = [[]] * n
    for items, rows in rows_of.items():
        legal = trie if items is None and everywhere is None else trie.subset(items, everywhere)
        rest = None if len(set(denied)) == 1 else [denied[row] for row in rows]
        with rows_named(rows):
            ranked_lists = search_sids(model, legal, [prompts[row] for row in rows], beams, support, batch_size, rest)
        for row, ranked in zip(rows, ranked_lists, strict=True):
            answers[row] = _items(legal, tokenizer, ranked, k, denied[row] or ())
    return answers


def search_sids(
    model,
    trie: SidTrie,
    prompts: Sequence[Sequence[int]],
    beams: int,
    support: Support = "vocab",
    batch_size: int = 8,
    deny: Sequence[Items] | None = None,
) -> list[RankedSids]:
    """The best SIDs for each prompt, best first; fewer than `beams` where the trie has fewer.

    support      "vocab" only where answers have an end that was trained, which contract.check_support checks
    batch_size   most prompts in one forward, fewer where BUDGET bytes hold fewer; similar lengths share it
    deny         item ids per prompt; a SID all of whose items are denied is not entered
    raises       NotFinite, a UserError, naming the prompt and the step whose scores are NaN or infinite
    The model is used as it is: put it in eval mode first. Its own generation_config is not looked at.
    """
    if not trie.n_sids or not prompts:
        return [[] for _ in prompts]
    check_search(model, trie, prompts, support)
    beams = min(beams, trie.n_sids)  # more cannot differ
    obstacle = obstacle_to_tree(model, max(map(len, prompts)) + trie.depth)
    if obstacle:
        warn_once(f"searching with generate(), many times slower: {obstacle}")
    template = None if obstacle else Template.of(model, prompts)
    fits = BUDGET // tree_bytes(model, max(map(len, prompts)), beams, beams * trie.depth)
    answers: list[RankedSids] = [[]] * len(prompts)
    for rows in batches(prompts, min(batch_size, max(1, fits)) if not obstacle or deny is None else 1):
        batch, denied = [prompts[row] for row in rows], None if deny is None else [deny[row] for row in rows]
        with rows_named(rows):
            if obstacle:
                lm = causal_lm(model)  # a wrapper has no generate()
                legal = trie if denied is None else trie.subset(deny=denied[0])
                found = generate_sids(lm, legal, batch, min(beams, legal.n_sids), support) if legal.n_sids else [[]]
            else:
                blocked = None if denied is None else blocked_keys(trie, denied)
                found = to_lists(trie, *beam_search(model, trie, batch, beams, support, template, blocked))
        for row, ranked in zip(rows, found, strict=True):
            answers[row] = ranked
    return answers


def rank_catalog(
    model, trie: SidTrie, prompts: Sequence[Sequence[int]], support: Support = "vocab", batch_size: int = 1
) -> Tensor:
    """(len(prompts), n_sids) exact log-probability of every SID, in the trie's order: how much does a beam lose?

    Raises UserError for a model that only the plain search can answer for.
    """
    check_search(model, trie, prompts, support)
    obstacle = obstacle_to_tree(model, max(map(len, prompts)) + trie.depth)
    if obstacle:
        raise UserError(f"the exhaustive ranking needs the tree forward: {obstacle}")
    logps, template = torch.empty(len(prompts), trie.n_sids), Template.of(model, prompts)
    for rows in batches(prompts, batch_size):
        with rows_named(rows):
            scores = rank_all(model, trie, [prompts[row] for row in rows], support, template)
        logps[rows] = scores.cpu()
    return logps


def check_search(model, trie: SidTrie, prompts: Sequence[Sequence[int]], support: Support) -> None:
    """Raises UserError for what no search can answer; moves the trie to the model's device."""
    if support not in ("vocab", "trie"):
        raise UserError(f"support {support!r} is not known; choose vocab or trie")
    if not all(prompts):
        raise UserError(f"prompt {[len(p) for p in prompts].index(0)} is empty; there is nothing to continue")
    lm = causal_lm(model)
    trie.check_vocabulary(lm.get_output_embeddings().weight.shape[0])
    trie.to(lm.device)


@contextmanager
def rows_named(rows: Sequence[int]) -> Iterator[None]:
    """NotFinite names a prompt by its place among those of the inner call; rows: their places in the outer one."""
    try:
        yield
    except NotFinite as error:
        raise NotFinite(rows[error.row], error.step) from None


def batches(prompts: Sequence[Sequence[int]], size: int) -> list[list[int]]:
    """Places of the prompts, the longest first, `size` at a time."""
    by_length = sorted(range(len(prompts)), key=lambda row: -len(prompts[row]))
    return [by_length[start : start + size] for start in range(0, len(prompts), size)]


def to_lists(trie: SidTrie, logp: Tensor, sid: Tensor) -> list[RankedSids]:
    """logp, sid (P, w) as beam_search gives them."""
    tokens = trie.sid_tokens(sid.clamp(min=0).flatten()).view(*sid.shape, -1).tolist()
    return [
        [
            (tuple(t for t in row if t >= 0), score)
            for row, score in zip(rows, scores, strict=True)
            if score > -torch.inf
        ]
        for rows, scores in zip(tokens, logp.tolist(), strict=True)
    ]


def obstacle_to_tree(model, longest: int) -> str | None:
    """Why the tree forward would not give this model's own numbers; None where it does.

    longest   tokens of the longest prompt and SID together
    """
    lm = causal_lm(model)
    config = lm.config.get_text_config()
    attention = config._attn_implementation
    if attention not in ("sdpa", "eager"):
        return f"attn_implementation {attention} takes no mask of its own; load the model with sdpa"
    if hasattr(lm.get_output_embeddings(), "base_layer"):
        return "the output layer carries an adapter of its own; merge it into the model first"
    window = getattr(config, "sliding_window", None)
    if window is not None and longest > window:
        return f"prompt and SID reach {longest} tokens, more than the sliding window of {window}"
    return None if lm.training else _differs(type(lm), lm)


_known: dict[type, str | None] = {}


def _differs(kind: type, lm) -> str | None:
    """Tries the tree forward once for each class of model: unknown scalings of the head would show."""
    if kind not in _known:
        with torch.no_grad():
            tree = PromptTree(lm, [[1, 2, 3], [2, 3]])
            hidden = tree.grow(torch.tensor([[4, 5], [4, 5]], device=tree.device), None)
            ours = Head(lm).scores(hidden[:, 1], slice(None))
            ids = torch.tensor([[1, 2, 3, 5], [2, 3, 5, 5]], device=tree.device)
            theirs = lm(input_ids=ids).logits.float()
            gap = (ours - torch.stack([theirs[0, 3], theirs[1, 2]])).abs().max() / theirs.abs().max().clamp(min=1e-6)
        if (theirs.isnan() | theirs.isposinf()).any():
            return None  # a broken model tells nothing of its class; the search names the row and the step
        same = gap < 0.05
        _known[kind] = None if same else f"{kind.__name__} scores tokens in a way the tree forward does not know"
    return _known[kind]


@cache
def warn_once(text: str) -> None:
    log.warning(text)


def _items(trie: SidTrie, tokenizer, ranked: RankedSids, k: int, denied: Collection[str]) -> list[Recommendation]:
    answers: list[Recommendation] = []
    for (sid, logp), number in zip(ranked, trie.find([sid for sid, _ in ranked]), strict=True):
        tokens = tuple(tokenizer.convert_ids_to_tokens(list(sid)))
        answers += [Recommendation(item, tokens, logp) for item in trie.items_at(number) if item not in denied]
        if len(answers) >= k:
            break
    return answers[:k]


def per_prompt(name: str, items: Items, each: Sequence[Items] | None, n: int) -> list[frozenset[str] | None]:
    """A filter for each of n prompts: `items` for all of them, or those of `each`. name: of the filter, in errors."""
    if each is None:
        if items is None:
            return [None] * n
        items = list(items)  # an iterator is read once
        if not all(isinstance(item, str) for item in items):
            raise UserError(f"{name} holds item ids for all prompts; a filter for each prompt is {name}_each")
        return [frozenset(items)] * n
    if items is not None:
        raise UserError(f"{name} and {name}_each are given; a prompt has one of them")
    if len(each) != n or any(isinstance(one, str) for one in each):
        raise UserError(f"{name}_each needs item ids, or None, for each of the {n} prompts")
    return [None if one is None else frozenset(one) for one in each]
