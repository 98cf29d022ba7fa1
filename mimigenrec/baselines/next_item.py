"""NextItem: a network over item numbers (SASRec, GRU4Rec, Caser) with the items it knows: train, ask, save, load.

    teacher = NextItem.load("results/sasrec")
    teacher.top_k([["12", "7"]], k=10)          # [[("31", 4.2), ...]]

In a folder: network.safetensors, and network.json with method, hyper-parameters and, per item, how often it is in
train. N items; the network numbers them from 1. B histories at a time.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mimigenrec.baselines.caser import Caser
from mimigenrec.baselines.fitting import fit_network, no_numbers, rows_to_stop_by
from mimigenrec.baselines.gru4rec import GRU4Rec
from mimigenrec.baselines.network import Network, check_network
from mimigenrec.baselines.popularity import Ranked
from mimigenrec.baselines.sasrec import SASRec
from mimigenrec.baselines.sequences import numbers, padded, user_sequences, windows
from mimigenrec.environment.devices import choose_device
from mimigenrec.errors import UserError
from mimigenrec.evaluation.metrics import expected_ndcg, places_from_ranks
from mimigenrec.files import read_json, write_json, writing
from mimigenrec.interactions.inter_file import History

MODELS = {"sasrec": SASRec, "gru4rec": GRU4Rec, "caser": Caser}
BATCH = 256  # histories scored at once


class NextItem:
    """Scores every item for a history. Ids that it does not know are passed over in histories; an empty history gets
    the items by how often they are in train."""

    def __init__(self, method: str, counts: dict[str, int], network: Network, seed: int = 0):
        """counts: item id -> how often it is in train; the items it ranks, at most those."""
        check_network(method, network)
        self.method, self.network, self.counts = method, network, counts
        self.items = list(counts)
        self.number = {item: i for i, item in enumerate(self.items, 1)}
        torch.manual_seed(seed)
        self.device = choose_device(network.device)
        self.model = MODELS[method](len(self.items), network).to(self.device).eval()

    @classmethod
    def train(
        cls,
        method: str,
        items: Iterable[str],
        train: Iterable[History],
        valid: Sequence[History],
        network: Network,
        seed: int,
        folder: str | Path,
        exclude_seen: bool = False,
        overwrite: bool = False,
    ) -> "NextItem":
        """Fitted on the train rows, stopped by NDCG@10 of the valid rows, saved in the folder, which also holds the
        training to go on with. overwrite, and what is raised: as fitting.fit_network and rows_to_stop_by have it."""
        sequences = user_sequences(train)
        met = Counter(item for sequence in sequences for item in sequence)
        recommender = cls(method, {item: met[item] for item in items}, network, seed)
        numbered = [numbers(sequence, recommender.number) for sequence in sequences]
        asked = rows_to_stop_by(valid, recommender.number, network)
        fit_network(
            recommender.model,
            windows(numbered, network.max_history),
            recommender.loss,
            lambda: recommender.ndcg(asked, exclude_seen),
            network,
            seed,
            Path(folder),
            depends_on={
                "method": method,
                "items": recommender.items,
                "valid rows": [[row.items, row.target] for row in asked],
                "exclude_seen": exclude_seen,
            },
            overwrite=overwrite,
        )
        recommender.save(folder)
        return recommender

    def loss(self, batch: list[list[int]]) -> Tensor:
        """Mean over all positions of the sequences, nats."""
        rows = padded(batch, self.device)  # (B, T + 1)
        asked = rows[:, 1:] > 0
        states, targets = self.model.states(rows[:, :-1])[asked], rows[:, 1:][asked]  # (n, width), (n,)
        if self.network.loss == "ce":
            return F.cross_entropy(states @ self.model.items.weight[1:].T, targets - 1)
        drawn = strangers(rows, len(self.items))[asked]  # (n,)
        right, wrong = ((states * self.model.items(item)).sum(-1) for item in (targets, drawn))
        return F.softplus(-right).mean() + F.softplus(wrong).mean()

    @torch.no_grad()
    def ndcg(self, rows: Sequence[History], exclude_seen: bool) -> float:
        """NDCG@10 over all items; a target that is not one of them is a miss."""
        ranks: list[int] = []
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            scores = self._scores([row.items for row in part], exclude_seen, start)
            target = torch.tensor([self.number.get(row.target, 0) for row in part], device=scores.device)
            own = scores.gather(1, (target - 1).clamp(min=0)[:, None])
            rank = (scores > own).sum(1) + 1
            ranks += torch.where((target > 0) & (own[:, 0] > -torch.inf), rank, 0).tolist()
        return float(expected_ndcg(places_from_ranks(ranks), 10).mean())

    def embed(self, items: Sequence[str]) -> np.ndarray:
        """(n, width) float32, the vectors of these items. Raises UserError naming an id that it does not know."""
        unknown = [item for item in items if item not in self.number]
        if unknown:
            raise UserError(f"{self.method} does not know item {unknown[0]!r}, only the {len(self.items)} it ranks")
        rows = torch.tensor([self.number[item] for item in items], dtype=torch.long, device=self.device)
        return self.model.items.weight.detach()[rows].cpu().numpy()

    def score(self, histories: Sequence[Sequence[str]]) -> np.ndarray:
        """(B, N) float32, higher is better; columns in the order of `items`."""
        with torch.no_grad():
            return self._scores(histories).cpu().numpy()

    def top_k(self, histories: Sequence[Sequence[str]], k: int, exclude_seen: bool = False) -> list[Ranked]:
        """The k best items of each history, best first; fewer where the filter leaves no more."""
        return [
            [(self.items[place], score) for place, score in zip(*pair, strict=True) if score > float("-inf")]
            for pair in self._best(histories, min(k, len(self.items)), exclude_seen)
        ]

    def rank_all(self, histories: Sequence[Sequence[str]]) -> Iterator[Iterable[tuple[str, float]]]:
        """All items for each history, best first, with their scores."""
        for places, scores in self._best(histories, len(self.items), exclude_seen=False):
            yield zip((self.items[place] for place in places), scores, strict=True)

    def save(self, folder: str | Path) -> None:
        from safetensors.torch import save

        with writing(Path(folder) / "network.safetensors", "wb") as out:
            out.write(save({name: value.contiguous() for name, value in self.model.cpu().state_dict().items()}))
        self.model.to(self.device)
        about = {"method": self.method, "network": asdict(self.network), "counts": self.counts}
        write_json(Path(folder) / "network.json", about, indent=None)

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto") -> "NextItem":
        """Raises FileNotFoundError, and UserError if network.json or network.safetensors is damaged."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        made_by = "`mimigenrec baseline --method sasrec`, gru4rec or caser"
        described, weights = Path(folder) / "network.json", Path(folder) / "network.safetensors"
        about = read_json(described, made_by, kind=dict)
        try:
            network = Network(**{**about["network"], "device": device})
            recommender = cls(about["method"], about["counts"], network)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{described} does not describe a network ({error!r}); it comes from {made_by}") from error
        if not weights.is_file():
            raise FileNotFoundError(f"{weights} is missing; it comes from {made_by}")
        try:
            recommender.model.load_state_dict(load_file(weights))
        except (SafetensorError, RuntimeError) as error:
            reason = str(error).strip().replace("\n", " ")[:200]
            raise UserError(
                f"{weights} does not hold the network of {described} ({reason}); train it again"
            ) from error
        return recommender

    def _scores(self, histories: Sequence[Sequence[str]], exclude_seen: bool = False, first: int = 0) -> Tensor:
        """(B, N); -inf for an item of the history with exclude_seen.

        Raises UserError naming the row whose scores are no numbers; first is the number of the first row.
        """
        known = [numbers(history, self.number) for history in histories]
        rows = padded([row[-self.network.max_history :] or [1] for row in known], self.device)
        last = (rows > 0).sum(1) - 1
        states = self.model.states(rows)[torch.arange(len(rows), device=rows.device), last]  # (B, width)
        scores = states @ self.model.items.weight[1:].T
        empty = torch.tensor([not row for row in known], device=scores.device)
        counts = torch.tensor(list(self.counts.values()), dtype=scores.dtype, device=scores.device)
        scores = torch.where(empty[:, None], counts, scores)
        if len(bad := (~scores.isfinite()).any(1).nonzero()):
            raise UserError(no_numbers(self.method, first + int(bad[0])))
        if exclude_seen:
            for i, row in enumerate(known):
                scores[i, [number - 1 for number in row]] = float("-inf")
        return scores

    def _best(self, histories, k: int, exclude_seen: bool) -> Iterator[tuple[list[int], list[float]]]:
        for start in range(0, len(histories), BATCH):
            with torch.no_grad():
                scores = self._scores(histories[start : start + BATCH], exclude_seen, start)
            values, places = torch.sort(scores, dim=1, descending=True, stable=True)
            for value, place in zip(values[:, :k].tolist(), places[:, :k].tolist(), strict=True):
                yield place, value


def strangers(rows: Tensor, n_items: int) -> Tensor:
    """rows (B, T + 1) numbers -> (B, T): items drawn evenly from those that the row does not hold.

    Raises UserError if a row holds them all.
    """
    free = torch.ones(len(rows), n_items + 1, device=rows.device).scatter_(1, rows, 0.0)
    free[:, 0] = 0.0
    if not (free.sum(1) > 0).all():
        raise UserError(f"a sequence holds all {n_items} items, so no other can be drawn; use --loss ce")
    return torch.multinomial(free, rows.shape[1] - 1, replacement=True)
