"""Groups of rollouts: what a trainer knows of each, silent ones exchanged for others, tokens of others masked.

An advantage is the distance from the group's mean reward, so a group of equal rewards is silent: it teaches nothing.
With dynamic_sampling_rounds, silent groups give way to other prompts that are not (DAPO, arXiv:2503.14476, section
3.2), so many rounds at most.

    N rows of a process, L longest prompt (padded on the left), C longest completion (padded on the right)
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import torch
from torch import Tensor


@dataclass
class Group:
    """The G rollouts of one row of the training set."""

    row: dict
    prompt: list[int]  # token ids
    rollouts: list[list[int]]  # G completions, token ids, none empty; what is done ends with EOS
    own: list[list[bool]] | None = None  # which tokens of each rollout the policy wrote; None: all
    drawn: bool = False  # its prompt took the place of another
    scores: Tensor | None = None  # (G, rewards)
    silent: bool = False  # teaches nothing, as all rewards are equal; known once there are scores
    target: list[int] = field(default_factory=list)  # token ids of the SID, and EOS
    hint: int = 0  # leading tokens of the target that were given
    added: bool = False  # the last rollout is the target, put there


def resampled(
    groups: list[Group],
    fresh: Callable[[Sequence[dict]], list[Group]],
    rows: Iterable[dict],
    rounds: int,
    largest: Callable[[int], int],
) -> tuple[list[Group], int]:
    """The groups of this process, silent ones exchanged for others with a signal, and the rounds that it took.

    groups    scored
    fresh     rows -> their groups, scored; all processes call it together, maybe with no rows
    rows      of the whole training set, those of the batch too, in the order in which they are drawn; used up, no more
              are drawn
    rounds    at most
    largest   a number of this process -> the largest of all processes
    Groups that are silent after the last round stay as they were rolled out.
    """
    groups, taken, rows = list(groups), 0, iter(rows)
    while taken < rounds and largest(sum(group.silent for group in groups)):
        taken += 1
        places = [i for i, group in enumerate(groups) if group.silent]
        others = fresh(list(islice(rows, len(places))))
        for i, group in zip(places, [group for group in others if not group.silent], strict=False):
            groups[i] = replace(group, drawn=True)
    return groups, taken


def masked(output: dict, groups: list[Group], gather: Callable[[Tensor], Tensor]) -> dict:
    """TRL's tensors of a generation batch with the tokens that others wrote masked: no loss, no KL, not counted."""
    mask = output["completion_mask"]  # (N, C)
    others = torch.zeros_like(mask, dtype=torch.bool)
    written = [own for group in groups for own in group.own or [[]] * len(group.rollouts)]
    for i, own in enumerate(written):
        others[i, : len(own)] = ~torch.tensor(own, dtype=torch.bool)
    tensors = ("completion_mask", "old_per_token_logps", "ref_per_token_logps")
    without = {key: output[key].masked_fill(others, 0) for key in tensors if key in output}
    return output | without | {"num_items_in_batch": gather(without["completion_mask"].sum()).sum()}


def visible(mask: Tensor) -> Tensor:
    """mask (N, C) of a loss -> (N, C) of attention: what follows a token that others wrote sees it."""
    return mask.flip(1).cummax(dim=1).values.flip(1)


def whole_groups(batches: list[dict]) -> list[dict]:
    """The rows of a generation batch, which TRL shuffled one by one, shuffled prompt by prompt: micro-batches of the
    same sizes whose rows of one prompt stand together. What is not a tensor of rows stays as it is."""
    rows = [len(batch["prompt_ids"]) for batch in batches]
    whole = {
        key: torch.cat([batch[key] for batch in batches]) if is_rows(value, rows[0]) else value
        for key, value in batches[0].items()
    }
    prompts = torch.where(whole["prompt_mask"].bool(), whole["prompt_ids"], -1)
    distinct, owner = prompts.unique(dim=0, return_inverse=True)  # owner (N,)
    order = first_rows(owner, len(distinct))[owner].argsort(stable=True)  # prompts as the shuffle first shows them
    parts = {
        key: value[order].split(rows) if is_rows(value, len(order)) else [value] * len(rows)
        for key, value in whole.items()
    }
    return [{key: part[i] for key, part in parts.items()} for i in range(len(rows))]


def first_rows(owner: Tensor, groups: int) -> Tensor:
    """owner (N,) numbers of groups, each of them there -> (groups,) the first row of each."""
    rows = torch.arange(len(owner), device=owner.device)
    return owner.new_full((groups,), len(owner)).scatter_reduce_(0, owner, rows, "amin")


def is_rows(value, n: int) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0 and len(value) == n
