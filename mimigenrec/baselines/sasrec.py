"""SASRec: self-attention over the history, one state per position that is compared with every item's vector.

source  Kang and McAuley 2018, arXiv:1808.09781: learnt positions, normalised queries, residual blocks, item vectors
        shared between input and output. Theirs trains with loss bce, one head, max_history 50; ce is the stronger one
        (Klenitskiy and Vasilev 2023, arXiv:2309.07602)
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mimigenrec.baselines.network import Network


class SASRec(nn.Module):
    def __init__(self, n_items: int, network: Network):
        super().__init__()
        self.items = nn.Embedding(n_items + 1, network.width, padding_idx=0)  # 0 is padding
        self.positions = nn.Embedding(network.max_history, network.width)
        self.blocks = nn.ModuleList(Block(network) for _ in range(network.layers))
        self.norm = nn.LayerNorm(network.width)
        self.dropout = nn.Dropout(network.dropout)
        for table in (self.items, self.positions):
            nn.init.normal_(table.weight, std=0.02)
        with torch.no_grad():
            self.items.weight[0] = 0

    def states(self, items: Tensor) -> Tensor:
        """items (B, T) numbers, 0 behind the end -> (B, T, width): what is expected after each position.

        Positions count back from the last item of each row, which has always the same one.
        """
        length = (items > 0).sum(1, keepdim=True)  # (B, 1)
        place = torch.arange(items.shape[1], device=items.device) - length + self.positions.num_embeddings
        place = place.clamp(max=self.positions.num_embeddings - 1)  # of padding, which nothing looks at
        x = self.items(items) * self.items.embedding_dim**0.5 + self.positions(place)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class Block(nn.Module):
    def __init__(self, network: Network):
        super().__init__()
        width = network.width
        self.heads, self.drop = network.heads, network.dropout
        self.query, self.key_value, self.out = (
            nn.Linear(width, width),
            nn.Linear(width, 2 * width),
            nn.Linear(width, width),
        )
        self.before_attention, self.before_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.forward_layers = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Dropout(self.drop), nn.Linear(width, width), nn.Dropout(self.drop)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) -> the same; each position sees itself and those before it, so padding changes nothing."""
        query = self.before_attention(x)
        key, value = self.key_value(x).chunk(2, dim=-1)
        split = [part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query(query), key, value)]
        seen = F.scaled_dot_product_attention(*split, is_causal=True, dropout_p=self.drop if self.training else 0.0)
        x = query + self.out(seen.transpose(1, 2).flatten(2))
        x = self.before_forward(x)
        return x + self.forward_layers(x)
