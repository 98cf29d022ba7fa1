"""Cross-entropy on the targets, beside the RL loss: each target is one more completion of its group's prompt.

The rows of a micro-batch carry their target along; a group's target is computed once, in the forward of its rollouts,
so where prompts are shared (decoding/logps.py) the prompt is not computed again.

    N rows, L longest prompt, C completion tokens, U groups in the micro-batch, T longest target with EOS
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from mimigenrec.grpo.groups import first_rows


@dataclass
class Targets:
    """One per group of a micro-batch."""

    ids: Tensor  # (U, T) SID and EOS, then padding
    mask: Tensor  # (U, T)
    row: Tensor  # (U,) a row of the micro-batch with the group's prompt
    rows: Tensor  # (U,) how many rows of the group the micro-batch holds
    loss: Tensor | None = None  # () nats per token: their cross-entropy, once the forward has given it


def columns(targets: Sequence[Sequence[int]], group_size: int, device) -> dict[str, Tensor]:
    """What each of the len(targets) * group_size rows of a generation batch carries: group number, target, mask."""
    T = max(map(len, targets))
    ids = torch.tensor([[*target, *[0] * (T - len(target))] for target in targets], device=device)
    mask = torch.tensor([[1] * len(target) + [0] * (T - len(target)) for target in targets], device=device)
    per_group = {"group": torch.arange(len(targets), device=device), "target_ids": ids, "target_mask": mask}
    return {key: value.repeat_interleave(group_size, dim=0) for key, value in per_group.items()}


def targets_of(inputs: dict[str, Tensor]) -> Targets:
    groups, owner, rows = inputs["group"].unique(return_inverse=True, return_counts=True)
    first = first_rows(owner, len(groups))
    return Targets(inputs["target_ids"][first], inputs["target_mask"][first], first, rows)


def appended(targets: Targets, ids: Tensor, mask: Tensor, C: int) -> tuple[Tensor, Tensor, int]:
    """ids, mask (N, L + C) -> (N + U, L + C'), the same with the targets behind their prompts, and C' = max(C, T)."""
    T = targets.ids.shape[1]
    wide = max(C, T)

    def both(rows: Tensor, completions: Tensor) -> Tensor:
        """rows (N, L + C), completions (U, T) -> (N + U, L + C')"""
        behind = torch.cat([rows[targets.row, :-C], pad(completions, (0, wide - T))], dim=1)
        return torch.cat([pad(rows, (0, wide - C)), behind])

    return both(ids, targets.ids), both(mask, targets.mask), wide


def cross_entropy(targets: Targets, logps: Tensor) -> Tensor:
    """logps (U, C') of the targets' tokens -> () nats per token, mean over the tokens of the rows' targets.

    A group counts as often as the micro-batch has rows of it: with whole groups, each once.
    """
    mask = pad(targets.mask, (0, logps.shape[1] - targets.mask.shape[1]))
    return -(targets.rows[:, None] * mask * logps).sum() / (targets.rows[:, None] * mask).sum()
