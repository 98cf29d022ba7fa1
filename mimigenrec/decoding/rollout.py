"""The G completions of a prompt: beams of one constrained search, draws from the constrained policy, or half each."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from mimigenrec.decoding.beam import beam_search
from mimigenrec.decoding.filters import prefix_keys
from mimigenrec.decoding.sampling import sample, sample_without_replacement
from mimigenrec.decoding.search import Support, obstacle_to_tree, search_sids, to_lists
from mimigenrec.decoding.tree import Template
from mimigenrec.decoding.trie import SidTrie
from mimigenrec.errors import UserError

Rollout = Literal["beam", "sample", "distinct", "mixed"]

# What TRL calls "off" for the settings of generate() that bend a distribution over the vocabulary.
OFF = {"top_p": (1.0, None), "top_k": (0, None), "min_p": (0.0, None), "repetition_penalty": (1.0, None)}


def roll_out(
    model,
    trie: SidTrie,
    prompts: Sequence[list[int]],
    group_size: int,
    rollout: Rollout,
    support: Support,
    sampling: dict,
    batch_size: int,
    hints: Sequence[Sequence[int]] | None = None,
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
    hints       token ids that the SIDs of each prompt must begin with; where fewer SIDs than asked for do, they come
                again from the best on. Raises UserError for a model that only the plain search can answer for
    Draws take their chance from torch's global generator, which the trainer saves and restores with a checkpoint.
    """
    check_sampling(rollout, sampling)
    draws = {"beam": 0, "sample": group_size, "distinct": group_size, "mixed": group_size // 2}[rollout]
    beams = group_size - draws
    groups: list[list[list[int]]] = [[] for _ in prompts]
    if beams and hints is None:
        lists = search_sids(model, trie, prompts, beams, support, batch_size)
        groups = [[[*sid, trie.eos_id] for sid, _ in ranked] for ranked in lists]
    if not prompts or not (draws or hints):
        return groups
    if obstacle := hints and obstacle_to_tree(model, max(map(len, prompts)) + trie.depth):
        raise UserError(f"hints need the tree forward: {obstacle}. Set hints: false, or use another model")
    blocked = None if hints is None else prefix_keys(trie, hints)
    template = Template.of(model, prompts)
    for start in range(0, len(prompts), batch_size):
        rows = slice(start, start + batch_size)
        batch, keys = prompts[rows], None if blocked is None else blocked[rows]
        if beams and hints is not None:
            lists = to_lists(trie, *beam_search(model, trie, batch, min(beams, trie.n_sids), support, template, keys))
            groups[rows] = [[[*sid, trie.eos_id] for sid, _ in ranked] for ranked in lists]
        if draws:
            draw = sample_without_replacement if rollout == "distinct" else sample
            sids = draw(model, trie, batch, draws, None, sampling["temperature"], template, keys)[0]
            groups[rows] = [a + b for a, b in zip(groups[rows], closed(trie, sids), strict=True)]
    return groups if hints is None else [[group[i % len(group)] for i in range(group_size)] for group in groups]


def closed(trie: SidTrie, sids: Tensor) -> list[list[list[int]]]:
    """sids (P, n) numbers of SIDs, -1 for none -> their token ids, each with EOS."""
    tokens = trie.sid_tokens(sids.clamp(min=0).flatten()).view(*sids.shape, -1).tolist()
    return [
        [[*(t for t in sid if t >= 0), trie.eos_id] for sid, number in zip(group, numbers, strict=True) if number >= 0]
        for group, numbers in zip(tokens, sids.tolist(), strict=True)
    ]


def check_sampling(rollout: Rollout, sampling: dict) -> None:
    """Raises UserError for a setting of sampling that draws inside the trie would not follow."""
    set_ = [f"{name}={sampling[name]}" for name in OFF if name in sampling and sampling[name] not in OFF[name]]
    if set_ and rollout != "beam":
        raise UserError(
            f"{', '.join(set_)}: rollout {rollout} draws among the few legal tokens, where this has no meaning of "
            f"its own; leave it out and set temperature, or choose rollout beam, which looks at none of them"
        )
