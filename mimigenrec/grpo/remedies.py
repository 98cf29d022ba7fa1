"""What is done about a prompt whose rollouts all miss its target, and so earn the same. In the order of trial:

add_target   a group that misses the target gets it in the place of its last rollout, the worst beam
hints        a silent group is rolled out anew below the first h tokens of its target, h = 1, 2, ... until it has a
             signal. The tokens given carry no loss, as if they stood in the prompt
then         dynamic_sampling_rounds, see groups.resampled

All of it happens in training batches alone; evaluation never sees a hint or a target.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mimigenrec.grpo.groups import Group

Roll = Callable[[Sequence[dict], int], list[Group]]  # rows, tokens of each target to begin with -> groups
Score = Callable[[list[Group]], None]  # fills in scores and silent


def with_remedies(groups: list[Group], args, levels: int, roll: Roll, score: Score) -> list[Group]:
    """The groups after the remedies that args (RLConfig) asks for, scored if hints or resampling need that."""
    if args.add_target:
        add_target(groups)
    if args.hints or args.dynamic_sampling_rounds:
        score(groups)
    return with_hints(groups, levels, roll, score) if args.hints else groups


def add_target(groups: list[Group]) -> None:
    for group in groups:
        if group.target not in group.rollouts:
            group.rollouts, group.added = [*group.rollouts[:-1], group.target], True


def with_hints(groups: list[Group], levels: int, roll: Roll, score: Score) -> list[Group]:
    """Each silent group that a shorter beginning than the whole target can wake, woken by the shortest one.

    levels   of the deepest SID. roll and score are called for every h below it, be there a group to wake or not:
             they are meeting points of the processes
    """
    groups = list(groups)
    for h in range(1, levels):
        places = [i for i, group in enumerate(groups) if group.silent and h < len(group.target) - 1]
        tried = roll([groups[i].row for i in places], h)
        score(tried)
        for i, group in zip(places, tried, strict=True):
            if not group.silent:
                groups[i] = replace(group, drawn=groups[i].drawn)
    return groups


def spread(groups: list[Group], trie, gather: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """How wide the rollouts of all processes are.

    level1_entropy       nats, of the first codes: 0 where all begin with one, log n where n are equally common
    distinct_sids_share  different SIDs over rollouts
    """
    rollouts = [tokens for group in groups for tokens in group.rollouts]
    numbers = [[tokens[0] for tokens in rollouts], trie.find([tokens[:-1] for tokens in rollouts])]
    first, sid = gather(torch.tensor(numbers, device=trie.token.device).T).T  # (N,) twice
    share = first.unique(return_counts=True)[1].double() / len(first)
    entropy = (share * -share.log()).sum().item()
    return {"level1_entropy": entropy, "distinct_sids_share": len(sid.unique()) / len(sid)}


def used(groups: list[Group], args, device, gather: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """Over all processes: how often each remedy that is on was used. hint_length: mean over the hinted groups."""
    counts = [[1, group.hint > 0, group.hint, group.added] for group in groups]
    n, hinted, given, added = gather(torch.tensor(counts, device=device)).sum(dim=0).tolist()
    shares = {}
    if args.hints:
        shares["hinted_share"] = hinted / n
        shares |= {"hint_length": given / hinted} if hinted else {}
    if args.add_target:
        shares["added_target_share"] = added / n
    return shares
