"""The same search by Hugging Face's generate() with TrieLogitsProcessor: the plain reference of decoding.search.

The tests compare the engine with it, and it answers for models whose attention cannot take the engine's mask. Every
beam carries its own copy of the prompt, and the scores of all steps are kept: (depth + 1) x B x beams x V.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import GenerationConfig

from mimigenrec.decoding.finite import check_scores
from mimigenrec.decoding.frontier import Support
from mimigenrec.decoding.processor import TrieLogitsProcessor
from mimigenrec.decoding.trie import SidTrie

RankedSids = list[tuple[tuple[int, ...], float]]  # token ids without EOS, log-probability; best first

FILLER = -1e8  # generate() scores the places it cannot fill near -1e9


class OwnScores(TrieLogitsProcessor):
    """Knows that no other processor comes before it, so that -inf for a legal token is the model's own."""

    def __init__(self, trie: SidTrie, prompt_length: int, renormalise: bool, beams: int):
        super().__init__(trie, prompt_length, renormalise)
        self.beams = beams

    def check(self, legal: Tensor, step: int) -> None:
        check_scores(legal, torch.ones_like(legal, dtype=torch.bool), step, self.beams)


@torch.no_grad()
def generate_sids(
    model, trie: SidTrie, prompts: Sequence[Sequence[int]], beams: int, support: Support
) -> list[RankedSids]:
    """One batch. beams: at most as many as the trie has SIDs. Raises NotFinite naming the prompt and the step."""
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
    legal = OwnScores(trie.to(model.device), length, support == "trie", beams)
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
