"""Groups with something to learn from: what is done about a prompt whose rollouts all earn the same.

An advantage is the distance from the group's mean reward, so a group of equal rewards is silent: it teaches nothing.
The remedies, in the order in which they are tried:

add_target               a group that misses the target gets it in the place of its last rollout, the worst beam
hints                    a silent group is rolled out anew below the first h tokens of its target, h = 1, 2, ... until
                         it has a signal. The tokens given carry no loss, as if they stood in the prompt
dynamic_sampling_rounds  groups that are still silent give way to other prompts that are not (DAPO,
                         arXiv:2503.14476, section 3.2), so many rounds at most

All of it happens in training batches alone; evaluation never sees a hint or a target.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor


@dataclass
class Group:
    """The G rollouts of one row of the training set."""

    row: dict
    prompt: list[int]  # token ids
    target: list[int]  # token ids of the SID, and EOS
    rollouts: list[list[int]]  # G completions, each closed by EOS
    hint: int = 0  # leading tokens of the target that were given
    added: bool = False  # the last rollout is the target, put there
    drawn: bool = False  # its prompt took the place of another
    scores: Tensor | None = None  # (G, rewards)
    silent: bool = False  # all rewards equal; known once there are scores


Roll = Callable[[Sequence[dict], int], list[Group]]  # rows, tokens of each target to begin with -> groups
Score = Callable[[list[Group]], None]  # fills in scores and silent


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


def with_signal(
    groups: list[Group], args, levels: int, roll: Roll, score: Score, rows: Iterable[dict], most: Callable[[int], int]
) -> tuple[list[Group], int]:
    """The groups of this process after the remedies that args (RLConfig) asks for, and the rounds of sampling it took.

    rows   of the whole training set, those of the batch too, in the order in which they are drawn; used up, no more
           are drawn
    most   a number of this process -> the largest of all processes
    Groups without signal after the last round stay as they were rolled out.
    """

    def helped(groups: list[Group]) -> list[Group]:
        if args.add_target:
            add_target(groups)
        if args.hints or args.dynamic_sampling_rounds:
            score(groups)
        return with_hints(groups, levels, roll, score) if args.hints else groups

    groups, rounds, rows = helped(groups), 0, iter(rows)
    while rounds < args.dynamic_sampling_rounds and most(sum(group.silent for group in groups)):
        rounds += 1
        places = [i for i, group in enumerate(groups) if group.silent]
        fresh = helped(roll(list(islice(rows, len(places))), 0))
        for i, group in zip(places, [group for group in fresh if not group.silent], strict=False):
            groups[i] = replace(group, drawn=True)
    return groups, rounds


def spread(groups: list[Group], trie, gather: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """How wide the rollouts of all processes are.

    level1_entropy       nats, of the first codes: 0 where all begin with one, log n where n are equally common
    distinct_sids_share  different SIDs over rollouts
    """
    rollouts = [tokens for group in groups for tokens in group.rollouts]
    found = [[tokens[0] for tokens in rollouts], trie.find([tokens[:-1] for tokens in rollouts])]
    first, sid = gather(torch.tensor(found, device=trie.token.device).T).T  # (N,) twice
    share = first.unique(return_counts=True)[1].double() / len(first)
    entropy = (share * -share.log()).sum().item()
    return {"level1_entropy": entropy, "distinct_sids_share": len(sid.unique()) / len(sid)}


def remedies(groups: list[Group], rounds: int, args, device, gather: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """Over all processes: how often each remedy that is on was used. hint_length: mean over the hinted groups."""
    counted = [[1, group.hint > 0, group.hint, group.added, group.drawn] for group in groups]
    n, hinted, given, added, drawn = gather(torch.tensor(counted, device=device)).sum(dim=0).tolist()
    found = {}
    if args.hints:
        found["hinted_share"] = hinted / n
        found |= {"hint_length": given / hinted} if hinted else {}
    if args.add_target:
        found["added_target_share"] = added / n
    if args.dynamic_sampling_rounds:
        found |= {"dynamic_sampling_rounds": float(rounds), "replaced_prompts_share": drawn / n}
    return found


def without_hints(output: dict, groups: list[Group], gather: Callable[[Tensor], Tensor]) -> dict:
    """TRL's tensors of a generation batch with the tokens that were given masked: no loss, no KL, not counted."""
    mask = output["completion_mask"]  # (N, C)
    hint = torch.tensor([group.hint for group in groups for _ in group.rollouts], device=mask.device)
    given = torch.arange(mask.shape[1], device=mask.device) < hint[:, None]
    tensors = ("completion_mask", "old_per_token_logps", "ref_per_token_logps")
    masked = {key: output[key].masked_fill(given, 0) for key in tensors if key in output}
    return output | masked | {"num_items_in_batch": gather(masked["completion_mask"].sum()).sum()}


def whole_groups(batches: list[dict]) -> list[dict]:
    """The rows of a generation batch, which TRL shuffled one by one, shuffled prompt by prompt: micro-batches of the
    same sizes whose rows of one prompt stand together. What is not a tensor of rows stays as it is."""
    rows = [len(batch["prompt_ids"]) for batch in batches]
    whole = {
        key: torch.cat([batch[key] for batch in batches]) if is_rows(value, rows[0]) else value
        for key, value in batches[0].items()
    }
    prompts = torch.where(whole["prompt_mask"].bool(), whole["prompt_ids"], -1)
    _, owner = prompts.unique(dim=0, return_inverse=True)  # (N,)
    first = torch.full_like(owner, len(owner)).scatter_reduce_(
        0, owner, torch.arange(len(owner), device=owner.device), "amin"
    )
    order = first[owner].argsort(stable=True)  # prompts in the order in which the shuffle first shows them
    parts = {
        key: value[order].split(rows) if is_rows(value, len(order)) else [value] * len(rows)
        for key, value in whole.items()
    }
    return [{key: part[i] for key, part in parts.items()} for i in range(len(rows))]


def is_rows(value, n: int) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0 and len(value) == n
