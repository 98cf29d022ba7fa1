"""TIGER: an encoder reads the SIDs of the history, a decoder writes the SID of what comes next, inside the trie.

source  Rajput et al. 2023, arXiv:2305.05065: T5 trained from scratch. Without the token per user, which no new user
        has. The search is transformers' own generate() with TrieLogitsProcessor

Token ids: 0 padding and start of the decoder, 1 the end of a SID and of a history, then the SID tokens by name.
"""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessorList, T5Config, T5ForConditionalGeneration

from mimigenrec.baselines.fitting import fit_network, no_numbers, rows_to_stop_by
from mimigenrec.baselines.network import Network, check_network
from mimigenrec.baselines.sequences import padded, user_sequences
from mimigenrec.catalog import Catalog
from mimigenrec.decoding.finite import NotFinite
from mimigenrec.decoding.processor import TrieLogitsProcessor
from mimigenrec.decoding.trie import SidTrie
from mimigenrec.environment.devices import choose_device
from mimigenrec.errors import UserError
from mimigenrec.evaluation.metrics import Group, expected_ndcg, sid_places
from mimigenrec.interactions.inter_file import History
from mimigenrec.sids.tokens import Sid, distinct_tokens, join_sid, write_index

PAD, END = 0, 1
ROWS_AT_ONCE = 800  # beams of all histories searched together
FINISHED = -1e8  # generate() fills up with rows scored near -1e9 where the trie has fewer SIDs than beams


class Tiger:
    def __init__(self, catalog: Catalog, network: Network, seed: int = 0):
        check_network("tiger", network)
        self.catalog, self.network = catalog, network
        self.number = {token: i for i, token in enumerate(distinct_tokens(catalog.sids), 2)}
        self.tokens = {item: [self.number[token] for token in sid] for item, sid in catalog.sids.items()}
        self.names = ["", "", *self.number]
        torch.manual_seed(seed)
        config = T5Config(
            vocab_size=len(self.number) + 2,
            d_model=network.width,
            d_kv=network.width // network.heads,
            d_ff=4 * network.width,
            num_layers=network.layers,
            num_heads=network.heads,
            dropout_rate=network.dropout,
            pad_token_id=PAD,
            eos_token_id=END,
            decoder_start_token_id=PAD,
        )
        self.device = choose_device(network.device)
        self.model = T5ForConditionalGeneration(config).to(self.device).eval()
        self.trie = self._trie().to(self.device)

    def train(
        self,
        train: Sequence[History],
        valid: Sequence[History],
        seed: int,
        folder: str | Path,
        exclude_seen: bool,
        overwrite: bool = False,
    ) -> None:
        """Every position of every sequence is a row. Stopped by NDCG@10 of SIDs on the valid rows."""
        examples = []
        for sequence in user_sequences(train):
            for i, target in enumerate(sequence):
                source = self.source(sequence[:i])
                if target in self.tokens and len(source) > 1:
                    examples.append((source, [*self.tokens[target], END]))
        asked = rows_to_stop_by(valid, self.tokens, self.network)

        def ndcg() -> float:
            lists = list(self.lists([row.items for row in asked], 10, exclude_seen))
            targets = [join_sid(self.catalog.sids.get(row.target, ())) for row in asked]
            return float(expected_ndcg(sid_places(lists, targets), 10).mean())

        known = [[item, list(sid)] for item, sid in self.catalog.sids.items()]
        depends_on = {
            "method": "tiger",
            "items": known,
            "valid rows": [[row.items, row.target] for row in asked],
            "exclude_seen": exclude_seen,
        }
        fit_network(self.model, examples, self.loss, ndcg, self.network, seed, Path(folder), depends_on, overwrite)
        self.model.save_pretrained(folder)
        write_index(Path(folder) / "id2sid.json", self.catalog.sids)

    def source(self, history: Sequence[str]) -> list[int]:
        """Token ids of the history's latest items, closed by END; items without a SID are left out."""
        known = [self.tokens[item] for item in history if item in self.tokens][-self.network.max_history :]
        return [*(token for tokens in known for token in tokens), END]

    def loss(self, batch: list[tuple[list[int], list[int]]]) -> Tensor:
        """Mean over the tokens of the targets, nats."""
        sources, targets = (padded(part, self.device) for part in zip(*batch, strict=True))
        labels = targets.masked_fill(targets == PAD, -100)
        return self.model(input_ids=sources, attention_mask=(sources != PAD).long(), labels=labels).loss

    def lists(self, histories: Sequence[Sequence[str]], k: int, exclude_seen: bool = False) -> Iterator[list[Group]]:
        """k SIDs with their items, best first; scores are log-probabilities. An empty history gets an empty list.

        With exclude_seen a SID stays while one of its items does, and the search is as much wider as the filter can
        take from any row.
        """
        seen = [set(history) if exclude_seen else set() for history in histories]
        beams = k + max((self._gone(own) for own in seen), default=0)
        at_once = max(1, ROWS_AT_ONCE // beams)
        for start in range(0, len(histories), at_once):
            part = slice(start, start + at_once)
            for found, own in zip(self.search(histories[part], beams, start), seen[part], strict=True):
                groups = [
                    {"sid": join_sid(sid), "items": items, "score": score}
                    for sid, score in found
                    if (items := [item for item in self.catalog.items_of[sid] if item not in own])
                ]
                yield groups[:k]

    @torch.no_grad()
    def search(self, histories: Sequence[Sequence[str]], beams: int, first: int = 0) -> list[list[tuple[Sid, float]]]:
        """The best SIDs of each history with their log-probabilities; fewer than `beams` if there are no more.

        Raises UserError naming the row whose scores are no numbers; first is the number of the first row.
        """
        sources = [self.source(history) for history in histories]
        asked = [i for i, source in enumerate(sources) if len(source) > 1]
        lists: list[list[tuple[Sid, float]]] = [[] for _ in histories]
        if not asked:
            return lists
        rows = padded([sources[i] for i in asked], self.device)
        try:
            out = self.model.generate(
                input_ids=rows,
                attention_mask=(rows != PAD).long(),
                logits_processor=LogitsProcessorList([TrieLogitsProcessor(self.trie, prompt_length=1)]),
                num_beams=beams,
                num_return_sequences=beams,
                do_sample=False,
                early_stopping="never",
                length_penalty=0.0,
                max_new_tokens=self.trie.depth + 1,
                return_dict_in_generate=True,
                output_scores=True,
            )
        except NotFinite as error:
            raise UserError(no_numbers("tiger", first + asked[error.row // beams])) from error
        scores = out.sequences_scores.tolist()
        for n, written in enumerate(out.sequences[:, 1:].tolist()):
            if scores[n] > FINISHED:
                sid = tuple(self.names[token] for token in written if token not in (PAD, END))
                lists[asked[n // beams]].append((sid, scores[n]))
        return lists

    def _gone(self, seen: Collection[str]) -> int:
        """How many SIDs have no item left."""
        sids = {self.catalog.sids[item] for item in seen if item in self.catalog.sids}
        return sum(seen.issuperset(self.catalog.items_of[sid]) for sid in sids)

    def _trie(self) -> SidTrie:
        rows = [(item, self.tokens[item]) for items in self.catalog.items_of.values() for item in items]
        codes = np.full((len(rows), max(len(tokens) for _, tokens in rows)), -1, np.int32)
        for row, (_, tokens) in zip(codes, rows, strict=True):
            row[: len(tokens)] = tokens
        return SidTrie.from_codes(codes, END, PAD, [item for item, _ in rows])
