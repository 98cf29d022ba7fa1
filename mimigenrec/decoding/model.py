"""MIMIGenRec: a stock model with its tokenizer, trie, prompt contract and items; recommends from item ids.

A checkpoint folder is self-contained: besides the stock Hugging Face files it holds id2sid.json, items.json and
prompt_contract.json. A LoRA adapter folder with them works as well.
"""

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from mimigenrec.catalog import Catalog, load_catalog, write_items
from mimigenrec.chat import messages, prompt_ids, user_text
from mimigenrec.checkpoint import COMPANIONS, is_adapter
from mimigenrec.contract import FILE as CONTRACT_FILE
from mimigenrec.contract import (
    Contract,
    check_template,
    choose_support,
    proven_tokenizer,
    read_contract,
)
from mimigenrec.decoding.adapter import load_adapter
from mimigenrec.decoding.search import Items, Recommendation, Support, per_prompt, recommend
from mimigenrec.decoding.trie import SidTrie
from mimigenrec.decoding.weights import load_causal_lm
from mimigenrec.environment.devices import choose_device
from mimigenrec.errors import UserError
from mimigenrec.sids.tokens import write_index

log = logging.getLogger(__name__)


class MIMIGenRec:
    """.model (eval mode), .tokenizer, .trie, .contract, .catalog, .support (by which scores it was trained to rank)"""

    def __init__(self, model, tokenizer, catalog: Catalog, contract: Contract, folder: str | Path | None = None):
        self.model, self.tokenizer = model.eval(), tokenizer
        self.contract, self.folder = contract, folder
        self._take_up(catalog)

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, device=None, dtype=None, base: str | Path | None = None
    ) -> "MIMIGenRec":
        """A checkpoint of `mimigenrec sft` or `mimigenrec grpo`, merged or LoRA adapter.

        device   default: the first GPU, else the CPU          dtype   default: as stored
        base     of a LoRA adapter, where it lies now; default: where it lay when the adapter was trained
        Raises FileNotFoundError if id2sid.json is missing, UserError if tokenizer or model do not know its SIDs, or
        if a weight is missing, NaN or infinite.
        """
        folder = Path(folder)
        if not (folder / "id2sid.json").is_file():
            raise FileNotFoundError(
                f"{folder / 'id2sid.json'} is missing, so nothing says which items this checkpoint knows; copy "
                f"{', '.join(COMPANIONS)} there from the data folder it was trained on"
            )
        tokenizer = proven_tokenizer(folder)
        contract = read_contract(folder)
        if contract is None:
            log.warning("%s has no %s: asking in our own wording, which may not be its own", folder, CONTRACT_FILE)
            contract = Contract.of("contract", tokenizer)
        check_template(contract, tokenizer, folder / CONTRACT_FILE)
        model = load_model(folder, dtype=dtype, base=base)
        model.to(choose_device(device))
        return cls(model, tokenizer, load_catalog(folder), contract, folder)

    def reload(self) -> None:
        """Takes up id2sid.json and items.json as they now stand in the folder, after sid-assign for example.

        A search under way ends with the trie it began with. Raises as from_pretrained does, and then nothing changes.
        """
        self._take_up(load_catalog(self.folder))

    def _take_up(self, catalog: Catalog) -> None:
        trie = SidTrie.from_catalog(catalog, self.tokenizer)
        trie.check_vocabulary(len(self.model.get_input_embeddings().weight))
        self.catalog, self.trie = catalog, trie.to(self.model.device)

    def recommend(
        self,
        histories: Sequence[Sequence[str]],
        k: int = 10,
        beams: int | None = None,
        exclude_seen: bool = False,
        allow: Items = None,
        deny: Items = None,
        support: Support | None = None,
        batch_size: int = 8,
        allow_each: Sequence[Items] | None = None,
        deny_each: Sequence[Items] | None = None,
    ) -> list[list[Recommendation]]:
        """The k best next items for each history (item ids, oldest first); fewer where fewer are legal.

        beams         default max(k, 50)
        exclude_seen  never recommends what is in the history
        allow, deny   item ids for all histories
        allow_each, deny_each   in their place: item ids, or None, per history
        support       default: the checkpoint's own; another one warns
        Raises UserError for an unknown item id, for a history without an item that has a SID, and NotFinite for
        scores that are NaN or infinite.
        """
        support = self.support if support is None else choose_support(support, self.contract, self.folder)
        prompts = self.prompts(histories)
        if exclude_seen:
            denied = per_prompt("deny", deny, deny_each, len(prompts))
            deny_each = [{*history, *(items or ())} for history, items in zip(histories, denied, strict=True)]
            deny = None
        beams = max(k, 50) if beams is None else beams
        settings = {"k": k, "beams": beams, "support": support, "batch_size": batch_size}
        filters = {"allow": allow, "deny": deny, "allow_each": allow_each, "deny_each": deny_each}
        return recommend(self.model, self.tokenizer, self.trie, prompts, **settings, **filters)

    @cached_property
    def support(self) -> Support:
        """As the contract says; where it does not, "vocab" with a warning, once."""
        return choose_support(None, self.contract, self.folder)

    def prompts(self, histories: Sequence[Sequence[str]]) -> list[list[int]]:
        """Token ids of "what comes next?" for each history; items without a SID are left out."""
        asked = []
        for place, history in enumerate(histories):
            for item in history:
                if item not in self.catalog.sids and item not in self.catalog.titles:
                    raise UserError(f"history {place}: item {item!r} is not in the catalogue of {self.folder}")
            sids = [self.catalog.sids[item] for item in history if item in self.catalog.sids]
            if not sids:
                raise UserError(f"history {place} holds no item with a SID ({list(history)}); give one or more")
            question = self.contract.ask("sid_history", "test", sids=self.contract.write_sids(sids))
            asked.append(messages(self.contract.system, user_text(*question)))
        return prompt_ids(self.tokenizer, asked)

    def save_pretrained(self, folder: str | Path) -> None:
        """A self-contained checkpoint, its model files stock."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        write_index(Path(folder) / "id2sid.json", self.catalog.sids)
        write_items(Path(folder) / "items.json", self.catalog)
        self.contract.write(folder)


def load_model(folder: str | Path, dtype=None, base: str | Path | None = None):
    """A stock causal language model on the CPU; with adapter_config.json in the folder, base and adapter.

    base   where the adapter's base lies now; default: where it lay when it was trained. See decoding/adapter.py
    """
    if is_adapter(folder):
        return load_adapter(folder, base, dtype)
    if base is not None:
        raise UserError(f"--base {base} is for a LoRA adapter, and {folder} is a whole model; leave it out")
    return load_causal_lm(folder, dtype=dtype or "auto")
