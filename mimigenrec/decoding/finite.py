"""A model that scores a legal token with NaN or infinity ranks nothing: the search stops at the first such token."""

import torch
from torch import Tensor

from mimigenrec.errors import UserError


class NotFinite(UserError):
    """row: place of the prompt among those of the call; step: token of the answer, from 1."""

    def __init__(self, row: int, step: int):
        super().__init__(
            f"the model's scores are not finite (row {row}, step {step}), so nothing can be ranked. Its weights hold "
            f"NaN or infinity: look at the loss that the training logged. Or float16 cannot hold its numbers: take "
            f"bfloat16 or float32"
        )
        self.row, self.step = row, step


def check_scores(scores: Tensor, legal: Tensor, step: int, rows_each: int = 1) -> None:
    """Raises NotFinite for the first row with a legal token whose score is not finite.

    scores      (R, ...) before what is not legal becomes -inf
    legal       of the same shape, bool; other scores may be anything
    rows_each   rows of each prompt, one after the other
    """
    bad = ~torch.isfinite(scores) & legal
    if bad.any():
        raise NotFinite(int(bad.flatten(1).any(dim=1).long().argmax()) // rows_each, step)
