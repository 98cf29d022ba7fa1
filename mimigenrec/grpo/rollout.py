"""The G completions of a prompt: beams of one constrained search, draws from the constrained policy, or half each."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from mimigenrec.decoding.sampling import sample, sample_without_replacement
from mimigenrec.decoding.search import Support, search_sids
from mimigenrec.decoding.tree import Template
from mimigenrec.decoding.trie import SidTrie

Rollout = Literal["beam", "sample", "distinct", "mixed"]

# What TRL calls "off" for the settings of generate() that bend a distribution over the vocabulary.
OFF = {"top_p": (1.0, None), "top_k": (0, None), "min_p": (0.0, None), "repetition_penalty": (1.0, None)}


def roll_out(
    model,
    tokenizer,
    trie: SidTrie,
    prompts: Sequence[list[int]],
    group_size: int,
    rollout: Rollout,
    support: Support,
    sampling: dict,
    batch_size: int,
) -> list[list[list[int]]]:
    """group_size completions per prompt: the token ids of a SID of the catalogue, closed by EOS.

    rollout     "beam"      the group_size best SIDs, best first, all different
                "sample"    group_size independent draws from the policy among the legal tokens, in the order drawn;
                            the likely ones come again and again
                "distinct"  the first group_size different SIDs that such draws would meet (without replacement)
                "mixed"     the best group_size - group_size // 2 SIDs, best first, then group_size // 2 draws
    support     how beams are scored (decoding.search); draws are always among the legal tokens
    sampling    temperature of the draws; see check_sampling for what else may stand there
    batch_size  prompts in one forward
    Draws take their chance from torch's global generator, which the trainer saves and restores with a checkpoint.
    """
    check_sampling(rollout, sampling)
    draws = {"beam": 0, "sample": group_size, "distinct": group_size, "mixed": group_size // 2}[rollout]
    groups: list[list[list[int]]] = [[] for _ in prompts]
    if draws < group_size:
        found = search_sids(model, tokenizer, trie, prompts, group_size - draws, support, batch_size)
        groups = [[[*sid, trie.eos_id] for sid, _ in ranked] for ranked in found]
    template = Template.of(model, prompts) if draws else None
    for start in range(0, len(prompts) if draws else 0, batch_size):
        batch = prompts[start : start + batch_size]
        draw = sample_without_replacement if rollout == "distinct" else sample
        sids = draw(model, trie, batch, draws, temperature=sampling["temperature"], template=template)[0]
        for group, more in zip(groups[start : start + batch_size], closed(trie, sids), strict=True):
            group += more
    return groups


def closed(trie: SidTrie, sids: Tensor) -> list[list[list[int]]]:
    """sids (P, n) numbers of SIDs -> their token ids, each with EOS."""
    tokens = trie.sid_tokens(sids.flatten()).view(*sids.shape, -1).tolist()
    return [[[*(t for t in sid if t >= 0), trie.eos_id] for sid in group] for group in tokens]


def check_sampling(rollout: Rollout, sampling: dict) -> None:
    """Raises ValueError for a setting of sampling that draws inside the trie would not follow."""
    set_ = [f"{name}={sampling[name]}" for name in OFF if name in sampling and sampling[name] not in OFF[name]]
    if set_ and rollout != "beam":
        raise ValueError(
            f"{', '.join(set_)}: rollout {rollout} draws among the few legal tokens, where this has no meaning of "
            f"its own; leave it out and set temperature, or choose rollout beam, which looks at none of them"
        )
