"""Prompts -> the best items with their log-probabilities: beam search inside the trie.

Beam search over SIDs of different lengths: at each step all open beams are continued; of the best `beams`
continuations those that close their SID with EOS are done, and the best `beams` that do not go on. Scores are sums of
log-probabilities, EOS included, never divided by the length, so with as many beams as SIDs the result is the exact
ranking of the whole catalogue.

support   "vocab"  log-probabilities under the full vocabulary: what the model gives the SID and EOS as plain text
          "trie"   log-probabilities among the legal tokens only: the constrained policy's own, which sum to 1 over
                   the catalogue
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import GenerationConfig

from mimigenrec.decoding.processor import TrieLogitsProcessor
from mimigenrec.decoding.trie import SidTrie
from mimigenrec.sids.tokens import Sid

Support = Literal["vocab", "trie"]
Items = Collection[str] | None
RankedSids = list[tuple[tuple[int, ...], float]]  # token ids without EOS, log-probability; best first

FILLER = -1e8  # generate() scores the places it cannot fill near -1e9


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
    allow: Items | Sequence[Items] = None,
    deny: Items | Sequence[Items] = None,
    support: Support = "vocab",
    batch_size: int = 8,
) -> list[list[Recommendation]]:
    """The k best items for each prompt, best first; fewer where fewer are legal, none twice.

    prompts      token ids, generation prompt included (contract.prompt_ids)
    allow, deny  item ids: one set for all prompts, or a list with a set (or None) per prompt; ids without a SID
                 change nothing. The search runs in the trie of the legal items, so a filter never shortens the list
    raises       ValueError if k < 1 or beams < k, or not one set per prompt
    Items of one SID follow each other in the trie's order.
    """
    if not 1 <= k <= beams:
        raise ValueError(f"beams={beams} cannot give k={k} items; ask for 1 or more and at least as many beams")
    n = len(prompts)
    rows_of: dict[tuple, list[int]] = {}  # prompts with the same filters share a trie
    for row, filters in enumerate(zip(per_prompt(allow, n, "allow"), per_prompt(deny, n, "deny"), strict=True)):
        rows_of.setdefault(filters, []).append(row)
    answers: list[list[Recommendation]] = [[]] * n
    for filters, rows in rows_of.items():
        legal = trie if filters == (None, None) else trie.subset(*filters)
        found = search_sids(model, tokenizer, legal, [prompts[row] for row in rows], beams, support, batch_size)
        for row, ranked in zip(rows, found, strict=True):
            answers[row] = _items(legal, tokenizer, ranked, k)
    return answers


def search_sids(
    model,
    tokenizer,
    trie: SidTrie,
    prompts: Sequence[Sequence[int]],
    beams: int,
    support: Support = "vocab",
    batch_size: int = 8,
) -> list[RankedSids]:
    """The best SIDs for each prompt, best first; fewer than `beams` where the trie has fewer.

    Prompts of similar length share a batch and are padded on the left. The model is used as it is: put it in eval
    mode first. Its own generation_config is not looked at.
    """
    if support not in ("vocab", "trie"):
        raise ValueError(f"support {support!r} is not known; choose vocab or trie")
    if not all(prompts):
        raise ValueError(f"prompt {[len(p) for p in prompts].index(0)} is empty; there is nothing to continue")
    if not trie.n_sids:
        return [[] for _ in prompts]
    beams = min(beams, trie.n_sids)  # more cannot differ
    answers: list[RankedSids] = [[] for _ in prompts]
    by_length = sorted(range(len(prompts)), key=lambda row: -len(prompts[row]))
    for start in range(0, len(prompts), batch_size):
        rows = by_length[start : start + batch_size]
        found = _generate(model, trie, [prompts[row] for row in rows], beams, support)
        for row, ranked in zip(rows, found, strict=True):
            answers[row] = ranked
    return answers


@torch.no_grad()
def _generate(model, trie: SidTrie, prompts, beams: int, support: Support) -> list[RankedSids]:
    """One batch through Hugging Face's own search. It keeps the scores of every step, (depth + 1) x B x beams x V."""
    ids, mask = left_pad(prompts, trie.pad_id, model.device)  # (B, P)
    length = ids.shape[1]
    # early_stopping False ends when no open beam can still enter the list; exact, since scores only fall.
    search = {"num_beams": beams, "num_return_sequences": beams, "length_penalty": 0.0, "early_stopping": False}
    settings = GenerationConfig(
        **(search if beams > 1 else {}),
        do_sample=False,
        max_new_tokens=trie.depth + 1,
        eos_token_id=trie.eos_id,
        pad_token_id=trie.pad_id,
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=beams == 1,
    )
    legal = TrieLogitsProcessor(trie.to(model.device), length, renormalise=support == "trie")
    out = model.generate(
        inputs=ids,
        attention_mask=mask,
        generation_config=settings,
        use_model_defaults=False,  # or the checkpoint's own temperature, top-p, repetition penalty come back
        logits_processor=[legal],
    )
    written = out.sequences[:, length:].tolist()  # (B * beams, at most depth + 1)
    if beams == 1:  # generate() is then greedy and gives no score of the sequence
        steps = torch.stack(out.logits if support == "vocab" else out.scores, dim=1)  # (B, t, V)
        logps = steps.float().log_softmax(dim=-1)
        scores = [
            sum(logps[row, t, token].item() for t, token in enumerate(_closed(tokens, trie)))
            for row, tokens in enumerate(written)
        ]
    else:
        scores = out.sequences_scores.tolist()
    ranked = [(tuple(_closed(tokens, trie)[:-1]), score) for tokens, score in zip(written, scores, strict=True)]
    groups = [ranked[i : i + beams] for i in range(0, len(ranked), beams)]
    return [[(sid, score) for sid, score in group if score > FILLER] for group in groups]


def left_pad(prompts: Sequence[Sequence[int]], pad_id: int, device) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, each (B, longest prompt)."""
    longest = max(map(len, prompts))
    ids = [[pad_id] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _closed(tokens: list[int], trie: SidTrie) -> list[int]:
    """What was written, up to its EOS; all of it where there is none (a place generate() could not fill)."""
    return tokens[: tokens.index(trie.eos_id) + 1] if trie.eos_id in tokens else tokens


def _items(trie: SidTrie, tokenizer, ranked: RankedSids, k: int) -> list[Recommendation]:
    answers: list[Recommendation] = []
    for (sid, logp), number in zip(ranked, trie.find([sid for sid, _ in ranked]), strict=True):
        tokens = tuple(tokenizer.convert_ids_to_tokens(list(sid)))
        answers += [Recommendation(item, tokens, logp) for item in trie.items_at(number)]
        if len(answers) >= k:
            break
    return answers[:k]


def per_prompt(items: Items | Sequence[Items], n: int, name: str) -> list[frozenset[str] | None]:
    """A filter for each of n prompts. A list with anything but texts in it is one filter per prompt already."""
    if items is None or not isinstance(items, list) or all(isinstance(own, str) for own in items):
        return [None if items is None else frozenset(items)] * n
    if len(items) != n or any(isinstance(own, str) for own in items):
        raise ValueError(f"{name} is a set of item ids, or a list with a set or None for each of the {n} prompts")
    return [None if own is None else frozenset(own) for own in items]
