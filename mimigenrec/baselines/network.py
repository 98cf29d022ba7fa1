"""What the methods that train a network may be told. Read without torch, for --help."""

from dataclasses import dataclass
from typing import Literal

from mimigenrec.cli import arg, check_ranges
from mimigenrec.errors import UserError

METHODS = ("sasrec", "gru4rec", "caser", "tiger")
READ_BY = {  # keys that some of them do not read
    "loss": ("sasrec", "gru4rec", "caser"),
    "layers": ("sasrec", "gru4rec", "tiger"),
    "heads": ("sasrec", "tiger"),
    "window": ("caser",),
    "filters": ("caser",),
}


@dataclass
class Network:
    """Networks: sasrec, gru4rec, caser, tiger."""

    loss: Literal["ce", "bce"] = arg(
        "ce: softmax over all items; bce: the target against one item drawn anew (sasrec, gru4rec, caser)",
        default="ce",
    )
    width: int = arg("size of item vectors and hidden states", default=64, least=1)
    layers: int = arg(
        "number of blocks (sasrec) or layers (gru4rec; tiger's encoder and decoder each)", default=2, least=1
    )
    heads: int = arg("number of attention heads (sasrec, tiger)", default=2, least=1)
    # SASRec's for sparse sets
    dropout: float = arg("share of activations dropped in training", default=0.5, least=0, below=1)
    max_history: int = arg("latest items of a history that are read", default=50, least=1)  # SASRec's
    window: int = arg("items that caser's filters span, max_history at most", default=5, least=1)  # Caser's
    filters: int = arg(
        "number of caser's horizontal filters per height; it has a quarter as many vertical ones", default=16, least=1
    )  # Caser's
    learning_rate: float = arg("learning rate of Adam", default=1e-3, above=0, most=1e6)
    weight_decay: float = arg("weight decay of Adam", default=0.0, least=0)
    batch_size: int = arg("sequences (tiger: rows) per step", default=128, least=1)  # SASRec's
    epochs: int = arg("most passes over train", default=200, least=1)
    # networks stand still at popularity for some ten epochs before they learn more
    patience: int = arg("epochs without a better NDCG@10 on valid before training stops", default=20, least=1)
    valid_rows: int | None = arg(
        "number of valid rows, the first ones, to rank after each epoch", default=None, least=1
    )
    device: str = arg("device to train on; auto: the first GPU, else the CPU", default="auto")


def check_network(method: str, network: Network) -> None:
    """Raises UserError naming the keys that cannot be meant for a method."""
    check_ranges(network)
    if method in READ_BY["heads"] and network.width % network.heads:
        raise UserError(f"--width {network.width} is not a multiple of --heads {network.heads}; change one of them")
    if method in READ_BY["window"] and network.window > network.max_history:
        raise UserError(
            f"--window {network.window} is more than --max_history {network.max_history}: {method} has filters for "
            f"items that it never reads; lower the one or raise the other"
        )
