"""Caser: convolutions over the last few items, as over a picture of (items, width).

source  Tang and Wang 2018, arXiv:1809.07426. Without the vector per user, which no new user has; item vectors shared
        between input and output; one next item as target
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mimigenrec.baselines.network import Network


class Caser(nn.Module):
    """L: the window, items that a state sees."""

    def __init__(self, n_items: int, network: Network):
        super().__init__()
        self.window = network.window
        vertical = max(1, network.filters // 4)
        self.items = nn.Embedding(n_items + 1, network.width, padding_idx=0)  # 0 is padding
        self.horizontal = nn.ModuleList(
            nn.Conv1d(network.width, network.filters, height) for height in range(1, self.window + 1)
        )
        self.vertical = nn.Linear(self.window, vertical, bias=False)  # over time, one and the same for every dimension
        self.out = nn.Linear(network.filters * self.window + vertical * network.width, network.width)
        self.dropout = nn.Dropout(network.dropout)
        nn.init.normal_(self.items.weight, std=network.width**-0.5)
        with torch.no_grad():
            self.items.weight[0] = 0

    def states(self, items: Tensor) -> Tensor:
        """items (B, T) numbers, 0 behind the end -> (B, T, width): what is expected after each position."""
        B, T = items.shape
        ago = F.pad(items, (self.window - 1, 0)).unfold(1, self.window, 1)  # (B, T, L) the last L items of each
        x = self.items(ago.reshape(B * T, self.window)).transpose(1, 2)  # (B * T, width, L)
        found = [F.relu(filters(x)).amax(-1) for filters in self.horizontal]  # (B * T, filters) each
        found.append(self.vertical(x).flatten(1))
        return self.out(self.dropout(torch.cat(found, dim=1))).view(B, T, -1)
