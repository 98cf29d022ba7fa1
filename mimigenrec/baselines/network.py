"""What the methods that train a network may be told. Read without torch, for --help."""

from dataclasses import dataclass
from typing import Literal

from mimigenrec.cli import arg


@dataclass
class Network:
    """Networks: sasrec, gru4rec, caser, tiger."""

    loss: Literal["ce", "bce"] = arg(
        "ce: softmax over all items; bce: the target against one item drawn anew (sasrec, gru4rec, caser)",
        default="ce",
    )
    width: int = arg("of item vectors and hidden states", default=64)
    layers: int = arg("blocks of sasrec, layers of gru4rec and of tiger's encoder and decoder each", default=2)
    heads: int = arg("of attention (sasrec, tiger)", default=2)
    dropout: float = arg("share of activations dropped in training", default=0.5)  # SASRec's for sparse sets
    max_history: int = arg("latest items of a history that are read", default=50)  # SASRec's
    window: int = arg("items that caser's filters span", default=5)  # Caser's
    filters: int = arg("caser's horizontal filters of each height; of vertical ones a quarter", default=16)  # Caser's
    learning_rate: float = arg("of Adam", default=1e-3)
    weight_decay: float = arg("of Adam", default=0.0)
    batch_size: int = arg("sequences (tiger: rows) per step", default=128)  # SASRec's
    epochs: int = arg("passes over train at most", default=200)
    # networks stand still at popularity for some ten epochs before they learn more
    patience: int = arg("epochs without a better NDCG@10 on valid before training stops", default=20)
    valid_rows: int | None = arg("rows of valid asked after each epoch, the first so many", default=None)
    device: str = arg("where to train; auto: the first GPU, else the CPU", default="auto")
