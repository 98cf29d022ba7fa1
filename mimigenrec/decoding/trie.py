"""SidTrie: all SIDs of a catalogue as sorted edges; where a half-written SID stands and what may follow, for a batch.

Nodes are numbered level by level, and within a level by (parent, token), so the children of a node are neighbours and
node i is also the end of edge i. Three arrays say it all (SIDs a, ab, ad, cb; root 0):

    node          0    1  2    3  4  5            level 0 | level 1 | level 2
    token[node]  -1    a  c    b  d  b            the token that leads into the node
    first         1  3 5 6                        children of i: first[i] .. first[i + 1] - 1; the last level has none
    sid_node     [1, 3, 4, 5]                     where a SID ends, in node order: SID 0 is a, SID 1 is ab, ...

A finished SID closed by EOS is in the state DONE = n_nodes; a row that left the catalogue is in the state OFF = -1.
The item ids of each SID are a table of their own on the host. Sizes: N rows, V vocabulary, K widest node.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mimigenrec.catalog import Catalog
from mimigenrec.errors import UserError
from mimigenrec.files import writing
from mimigenrec.sids.tokens import Sid, distinct_tokens

OFF = -1


class SidTrie:
    """Holds tensors on one device; made by from_catalog, from_sids, from_texts, from_codes, subset or load."""

    def __init__(
        self,
        token: np.ndarray,
        parent: np.ndarray,
        level_sizes: Sequence[int],
        sid_node: np.ndarray,
        item_start: np.ndarray,
        item_row: np.ndarray,
        names: Sequence[str],
        eos_id: int,
        pad_id: int,
    ):
        """token, parent (n_nodes,) with -1 for the root; sid_node (n_sids,) ascending; the items of SID s are
        names[row] for row in item_row[item_start[s] : item_start[s + 1]]."""
        self.eos_id, self.pad_id, self.names = eos_id, pad_id, names
        self.levels = [0, *np.cumsum(level_sizes).tolist()]  # level d is the nodes levels[d] .. levels[d + 1] - 1
        self.depth = len(level_sizes) - 1
        self.n_nodes, self.n_sids, self.n_items = len(token), len(sid_node), int(item_start[-1])
        self.DONE = self.n_nodes
        self.n_inner = self.levels[self.depth]  # nodes above the last level
        first = np.searchsorted(parent[1:], np.arange(self.n_inner + 1)) + 1
        width = np.diff(first)
        bounds = zip(self.levels[: self.depth], self.levels[1:], strict=False)
        self.branch = [int(width[a:b].max()) for a, b in bounds] + [0]  # widest node of each level
        self.largest_token = int(token.max())
        self.token, self.first, self.sid_node = (
            torch.from_numpy(array.astype(np.int32)) for array in (token, first, sid_node)
        )
        self.item_start, self.item_row = item_start.astype(np.int32), item_row.astype(np.int32)

    @classmethod
    def from_catalog(cls, catalog: Catalog, tokenizer) -> "SidTrie":
        """Items of one SID in the order of Catalog.items_of.

        Raises UserError naming a SID token that the tokenizer lacks or splits.
        """
        ids = sid_token_ids(tokenizer, distinct_tokens(catalog.sids))
        groups = catalog.items_of
        codes = np.full((len(groups), max(map(len, groups))), -1, np.int32)
        for level in range(codes.shape[1]):
            codes[:, level] = [ids[sid[level]] if level < len(sid) else -1 for sid in groups]
        pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        names = [item for items in groups.values() for item in items]
        repeats = [len(items) for items in groups.values()]
        return cls.from_codes(np.repeat(codes, repeats, axis=0), tokenizer.eos_token_id, pad_id, names)

    @classmethod
    def from_sids(cls, sids: Mapping[str, Sid], tokenizer) -> "SidTrie":
        """As from_catalog when nothing but the SIDs is known: items of one SID stand by id."""
        return cls.from_catalog(Catalog(sids=dict(sids)), tokenizer)

    @classmethod
    def from_texts(cls, texts: Mapping[str, str], tokenizer) -> tuple["SidTrie", dict[tuple[int, ...], str]]:
        """The trie of whole texts, titles for example, as a model writes them at the start of its answer.

        texts     item id -> text; spaces around it do not count
        returns   the trie, and token ids (without EOS) -> item id, one entry per item
        raises    UserError naming an item whose text is empty or holds the EOS token

        Items whose texts have the same token ids are numbered, so that each can be reached: "Lamp", "Lamp (2)", ...
        in the order of `texts`, without a number that another text has. A text that begins another is closed by EOS.
        """
        stripped = {item: text.strip() for item, text in texts.items()}
        encoded = tokenizer(list(stripped.values()), add_special_tokens=False)["input_ids"] if stripped else []
        paths: dict[tuple[int, ...], str] = {}
        again: list[tuple[str, tuple[int, ...]]] = []
        for item, ids in zip(stripped, map(tuple, encoded), strict=True):
            if not ids or tokenizer.eos_token_id in ids:
                reason = f"holds {tokenizer.eos_token!r}, which ends an answer" if ids else "is empty"
                raise UserError(
                    f"the text of item {item!r} {reason}, so no model can name the item; give another text"
                )
            if paths.setdefault(ids, item) != item:
                again.append((item, ids))
        numbers: dict[tuple[int, ...], int] = {}  # the last one that was tried for each text
        for item, ids in again:
            path = ids
            while path in paths:
                numbers[ids] = numbers.get(ids, 1) + 1
                path = tuple(tokenizer(f"{stripped[item]} ({numbers[ids]})", add_special_tokens=False)["input_ids"])
            paths[path] = item
        codes = np.full((len(paths), max(map(len, paths), default=0)), -1, np.int32)
        for row, path in enumerate(paths):
            codes[row, : len(path)] = path
        pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        return cls.from_codes(codes, tokenizer.eos_token_id, pad_id, list(paths.values())), paths

    @classmethod
    def from_codes(cls, codes: np.ndarray, eos_id: int, pad_id: int, names: Sequence[str]) -> "SidTrie":
        """codes (n_items, levels) token ids, -1 behind the end of a shorter SID; names: the item id of each row.

        Rows with the same SID keep their order. Raises UserError for a row without a token, a token behind a -1,
        EOS as a SID token, or another number of names than rows.
        """
        codes = np.asarray(codes)
        if codes.ndim != 2 or not codes.size or len(names) != len(codes):
            raise UserError(f"codes must be (n_items, levels), not empty, one name a row; got {codes.shape}")
        if (codes[:, 0] < 0).any() or ((codes[:, :-1] < 0) & (codes[:, 1:] >= 0)).any():
            raise UserError("each row of codes is 1 or more token ids, then -1 up to the end of the row")
        if (codes == eos_id).any():
            raise UserError(f"token id {eos_id} is EOS, which closes a SID; it cannot be a part of one")
        span = int(codes.max()) + 1
        token, parent, sizes = [np.array([-1])], [np.array([-1])], [1]
        node = np.zeros(len(codes), np.int64)  # where each item stands so far
        rows = np.arange(len(codes))
        for level in range(codes.shape[1]):
            rows = rows[codes[rows, level] >= 0]
            if not len(rows):
                break
            edges, rank = np.unique(node[rows] * span + codes[rows, level], return_inverse=True)
            node[rows] = sum(sizes) + rank
            parent.append(edges // span)
            token.append(edges % span)
            sizes.append(len(edges))
        order = np.argsort(node, kind="stable")
        sid_node, counts = np.unique(node[order], return_counts=True)
        item_start = np.concatenate([[0], np.cumsum(counts)])
        token, parent = np.concatenate(token), np.concatenate(parent)
        return cls(token, parent, sizes, sid_node, item_start, order, names, eos_id, pad_id)

    @cached_property
    def items(self) -> list[tuple[str, ...]]:
        """Item ids of each SID, in the order in which they are recommended."""
        names = [self.names[row] for row in self.item_row.tolist()]
        cuts = self.item_start.tolist()
        return [tuple(names[a:b]) for a, b in zip(cuts, cuts[1:], strict=False)]

    def items_at(self, sid: int) -> tuple[str, ...]:
        """Item ids of one SID, without building the whole table `items`."""
        rows = self.item_row[self.item_start[sid] : self.item_start[sid + 1]]
        return tuple(self.names[row] for row in rows.tolist())

    @property
    def nbytes(self) -> int:
        """Bytes of the trie proper; the table of item ids is not counted."""
        return sum(array.numel() * array.element_size() for array in (self.token, self.first, self.sid_node))

    def to(self, device) -> "SidTrie":
        """Moves the trie in place (the item table stays on the host); returns it."""
        self.token, self.first, self.sid_node = (x.to(device) for x in (self.token, self.first, self.sid_node))
        return self

    def walk(self, tokens: Tensor) -> Tensor:
        """tokens (N, t), what each row has written behind its prompt -> node (N,)."""
        node = tokens.new_zeros(len(tokens))
        for t in range(tokens.shape[1]):
            node = self.step(node, tokens[:, t])
        return node

    def step(self, node: Tensor, token: Tensor) -> Tensor:
        """node (N,), token (N,) -> node (N,): one token further. Binary search among the node's children."""
        low, stop = self._children_range(node)
        high = stop
        for _ in range(max(self.branch).bit_length()):
            middle = (low + high) // 2
            before = (low < high) & (self._token_at(middle) < token)
            low, high = torch.where(before, middle + 1, low), torch.where(before, high, middle)
        found = (low < stop) & (self._token_at(low) == token)
        closes = (token == self.eos_id) & (self.sid_at(node) >= 0)
        rests = (node == self.DONE) & ((token == self.eos_id) | (token == self.pad_id))
        return torch.where(found, low, torch.where(closes | rests, self.DONE, OFF))

    def sid_at(self, node: Tensor) -> Tensor:
        """node (N,) -> number of the SID that ends there (N,), -1 where none does."""
        if not self.n_sids:
            return torch.full_like(node, -1)
        place = torch.searchsorted(self.sid_node, node.to(torch.int32)).clamp(max=self.n_sids - 1)
        return torch.where(self.sid_node[place] == node, place, -1)

    def children(self, node: Tensor, level: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """node (N,) -> tokens, nodes, valid, each (N, K + 1): what may follow and where it leads.

        The last column is EOS: valid where an item may end (to DONE), at DONE, and off the trie (where it stays OFF),
        so every row has something legal. Other slots are in token order; a slot that is not valid repeats a legal
        token and has node OFF. level: how many tokens every row has written, if known: K is then that level's widest
        node instead of the trie's.
        """
        widest = max(self.branch) if level is None else self.branch[min(level, self.depth)]
        start, stop = self._children_range(node)
        may_end = (self.sid_at(node) >= 0) | (node == self.DONE) | (node == OFF)
        legal = torch.where(may_end, self.eos_id, self._token_at(start))  # (N,) fills the slots that are not valid
        nodes = start[:, None] + torch.arange(widest + 1, device=node.device)  # (N, K + 1)
        valid = nodes < stop[:, None]
        tokens = torch.where(valid, self._token_at(nodes), legal[:, None])
        nodes = nodes.masked_fill_(~valid, OFF)
        valid[:, -1] = may_end  # no node has K + 1 children, so the last column is free for EOS
        nodes[:, -1] = torch.where(may_end & (node != OFF), self.DONE, OFF)
        return tokens, nodes, valid

    def allowed(self, node: Tensor, vocabulary: int, level: int | None = None) -> Tensor:
        """node (N,) -> (N, V) bool, at least one true in each row; off the trie and at DONE only EOS."""
        self.check_vocabulary(vocabulary)
        mask = torch.zeros(len(node), vocabulary, dtype=torch.bool, device=node.device)
        return mask.scatter_(1, self.children(node, level)[0], True)

    def check_vocabulary(self, size: int) -> None:
        """Raises UserError if a model that scores `size` tokens does not reach all SID tokens."""
        if size <= max(self.largest_token, self.eos_id):
            raise UserError(
                f"the model scores {size} tokens but the SIDs go up to token id {self.largest_token}: model and "
                f"tokenizer are not from the same training, or the model is another catalogue's. Take both from one "
                f"checkpoint, or run mimigenrec add-sids and SFT with this catalogue."
            )

    def choices(self, node: Tensor) -> Tensor:
        """node (N,) -> how many tokens may follow (N,), EOS included; where it is 1 the next token is certain."""
        start, stop = self._children_range(node)
        return stop - start + ((self.sid_at(node) >= 0) | (node == self.DONE) | (node == OFF))

    def level_tokens(self, level: int) -> Tensor:
        """(U,) ascending ids of all tokens that lead from nodes of a level to the next, and EOS."""
        return self._level_tokens[min(level, self.depth)].to(self.token.device)

    @cached_property
    def _level_tokens(self) -> list[Tensor]:
        eos = torch.tensor([self.eos_id])
        cuts = [*self.levels[1:], self.n_nodes]
        token = self.token.cpu().long()
        return [torch.cat([token[a:b], eos]).unique() for a, b in zip(cuts, cuts[1:], strict=False)]

    def certain(self, node: Tensor) -> Tensor:
        """node (any shape) -> bool: from here to the end of the SID there is never more than one way, EOS included."""
        self._certain = self._certain.to(self.token.device)
        return self._certain[node]  # OFF is the last entry, DONE the one before

    @cached_property
    def _certain(self) -> Tensor:
        """(n_nodes + 2,) bool, from the last level up."""
        every = torch.arange(self.n_nodes, device=self.token.device)
        certain = self.choices(every) == 1
        for a, b in reversed(list(zip(self.levels, self.levels[1:-1], strict=False))):
            child = self.first[a:b].long().clamp(max=self.n_nodes - 1)
            certain[a:b] &= certain[child] | (self.sid_at(every[a:b]) >= 0)
        return torch.cat([certain, certain.new_ones(2)])

    def branch_total(self, level: int) -> int:
        """How many nodes the level below has."""
        return self.levels[level + 2] - self.levels[level + 1]

    def sids_of(self, items: Collection[str]) -> np.ndarray:
        """The numbers of the SIDs of these items, one per item; ids it does not know are left out."""
        return self._sid_of_row[[self._row_of[item] for item in items if item in self._row_of]]

    def sids_below(self, node: np.ndarray) -> np.ndarray:
        """How many SIDs end at or below each node."""
        return self._sids_below[node]

    @cached_property
    def _sid_of_row(self) -> np.ndarray:
        sid = np.zeros(len(self.names), np.int64)
        sid[self.item_row] = np.repeat(np.arange(self.n_sids), np.diff(self.item_start))
        return sid

    @cached_property
    def _sids_below(self) -> np.ndarray:
        """(n_nodes,) from the last level up."""
        count, first = np.zeros(self.n_nodes, np.int32), self.first.cpu().numpy()
        count[self.sid_node.cpu().numpy()] = 1
        for a, b in reversed(list(zip(self.levels, self.levels[1:-1], strict=False))):
            total = np.concatenate([[0], np.cumsum(count[first[a] : first[b]])])
            count[a:b] += total[first[a + 1 : b + 1] - first[a]] - total[first[a:b] - first[a]]
        return count

    def parent_of(self, node: Tensor) -> Tensor:
        """node (N,), each on the trie and below the root -> (N,)."""
        return torch.searchsorted(self.first, node.to(torch.int32), right=True) - 1

    def find(self, sids: Sequence[Sequence[int]]) -> list[int]:
        """SIDs as token ids without EOS -> their numbers, -1 for one that is not in the trie."""
        longest = max(map(len, sids), default=0)
        padded = torch.tensor([[*sid, *[-1] * (longest - len(sid))] for sid in sids], device=self.token.device)
        node = torch.zeros(len(sids), dtype=torch.long, device=self.token.device)
        for level in range(longest):
            node = torch.where(padded[:, level] < 0, node, self.step(node, padded[:, level]))
        return self.sid_at(node).tolist()

    def sid_tokens(self, sid: Tensor) -> Tensor:
        """sid (N,) numbers of SIDs -> their token ids (N, depth), -1 behind the end of a shorter one."""
        node = self.sid_node[sid].long()
        tokens = torch.full((len(node), self.depth), -1, dtype=torch.long, device=node.device)
        for level in range(self.depth, 0, -1):
            here = node >= self.levels[level]  # rows whose path passes this level
            tokens[:, level - 1] = torch.where(here, self._token_at(node), -1)
            node = torch.where(here, self.parent_of(node), node)
        return tokens

    def subset(self, allow: Collection[str] | None = None, deny: Collection[str] | None = None) -> "SidTrie":
        """The trie of the items in `allow` (None: all) that are not in `deny`; ids it does not know change nothing.

        Needs no sorting: what is left of each level keeps its order. It may be empty (n_sids 0).
        """
        legal = self._legal_items(allow, deny)  # (n_items,) bool
        counts = np.add.reduceat(legal, self.item_start[:-1], dtype=np.int64) if self.n_sids else np.zeros(0)
        token, sid_node = self.token.cpu(), self.sid_node.cpu().numpy()
        parent = np.concatenate([[-1], np.repeat(np.arange(self.n_inner), np.diff(self.first.cpu().numpy()))])
        kept = np.zeros(self.n_nodes, bool)
        kept[0] = True
        kept[sid_node[counts > 0]] = True
        for level in range(self.depth, 0, -1):
            here = np.arange(self.levels[level], self.levels[level + 1])
            kept[parent[here[kept[here]]]] = True
        number = np.cumsum(kept) - 1  # new number of each kept node
        sizes = [int(kept[a:b].sum()) for a, b in zip(self.levels, self.levels[1:], strict=False)]
        trie = SidTrie(
            token.numpy()[kept],
            np.concatenate([[-1], number[parent[kept][1:]]]),
            [size for size in sizes if size],
            number[sid_node[counts > 0]],
            np.concatenate([[0], np.cumsum(counts[counts > 0])]),
            self.item_row[legal],
            self.names,
            self.eos_id,
            self.pad_id,
        )
        return trie.to(self.token.device)

    def save(self, path: str | Path) -> None:
        """One safetensors file."""
        from safetensors.torch import save

        names = torch.frombuffer(bytearray(json.dumps(list(self.names)).encode()), dtype=torch.uint8)
        parent = np.repeat(np.arange(self.n_inner), np.diff(self.first.cpu().numpy())).astype(np.int32)
        tensors = {"token": self.token.cpu(), "parent": torch.from_numpy(parent), "sid_node": self.sid_node.cpu()}
        tensors |= {"item_start": torch.from_numpy(self.item_start), "item_row": torch.from_numpy(self.item_row)}
        tensors["names"] = names
        about = {"eos_id": self.eos_id, "pad_id": self.pad_id, "level_sizes": np.diff(self.levels).tolist()}
        with writing(path, "wb") as out:
            out.write(save(tensors, {key: json.dumps(value) for key, value in about.items()}))

    @classmethod
    def load(cls, path: str | Path) -> "SidTrie":
        from safetensors import safe_open

        with safe_open(path, framework="np") as stored:
            about = {key: json.loads(value) for key, value in stored.metadata().items()}
            arrays = {key: stored.get_tensor(key) for key in stored.keys()}
        names = json.loads(arrays.pop("names").tobytes())
        parent = np.concatenate([[-1], arrays.pop("parent")])
        return cls(parent=parent, names=names, **arrays, **about)

    def _children_range(self, node: Tensor) -> tuple[Tensor, Tensor]:
        """node (N,) -> start, stop (N,) of its children's numbers; equal where it has none."""
        place = torch.where(node == OFF, self.n_inner, node)
        return self.first[place.clamp(max=self.n_inner)].long(), self.first[(place + 1).clamp(max=self.n_inner)].long()

    def _token_at(self, node: Tensor) -> Tensor:
        """The token that leads into each node; any token where the number is past the last node."""
        return self.token[node.clamp(max=self.n_nodes - 1)].long()

    def _legal_items(self, allow: Collection[str] | None, deny: Collection[str] | None) -> np.ndarray:
        """(n_items,) bool, in the order of item_row."""
        legal = np.full(len(self.names), allow is None)
        for names, value in ((allow, True), (deny, False)):
            legal[[self._row_of[name] for name in names or () if name in self._row_of]] = value
        return legal[self.item_row]

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.names)}


def sid_token_ids(tokenizer, tokens: Sequence[str]) -> dict[str, int]:
    """SID token -> its one id. Raises UserError naming the tokens that the tokenizer splits or does not know."""
    ids = dict(zip(tokens, tokenizer.convert_tokens_to_ids(list(tokens)), strict=True))
    whole = tokenizer.encode("".join(tokens), add_special_tokens=False) == list(ids.values())
    if not whole or tokenizer.unk_token_id in ids.values():
        unknown = (None, tokenizer.unk_token_id)
        split = [t for t in tokens if ids[t] in unknown or tokenizer.encode(t, add_special_tokens=False) != [ids[t]]]
        split = split or tokens  # each is whole alone, but not beside the others
        raise UserError(
            f"the tokenizer of {tokenizer.name_or_path!r} does not read {len(split)} of {len(tokens)} SID tokens as "
            f"one token each, {split[0]} among them. The model was not prepared for this catalogue: run `mimigenrec "
            f"add-sids` with its new_tokens.json, or take the checkpoint that was trained on it."
        )
    return ids
