"""GRU4Rec: a recurrent network over the history, its state compared with every item's vector.

source  Hidasi et al. 2016, arXiv:1511.06939. Trained at every position of whole sequences by the shared losses, in
        place of session-parallel batches with TOP1; item vectors shared between input and output
"""

import torch
from torch import Tensor, nn

from mimigenrec.baselines.network import Network


class GRU4Rec(nn.Module):
    def __init__(self, n_items: int, network: Network):
        super().__init__()
        self.items = nn.Embedding(n_items + 1, network.width, padding_idx=0)  # 0 is padding
        between = network.dropout if network.layers > 1 else 0.0
        self.gru = nn.GRU(network.width, network.width, network.layers, batch_first=True, dropout=between)
        self.out = nn.Linear(network.width, network.width)
        self.dropout = nn.Dropout(network.dropout)
        nn.init.normal_(self.items.weight, std=network.width**-0.5)
        with torch.no_grad():
            self.items.weight[0] = 0

    def states(self, items: Tensor) -> Tensor:
        """items (B, T) numbers, 0 behind the end -> (B, T, width): what is expected after each position."""
        return self.out(self.gru(self.dropout(self.items(items)))[0])
