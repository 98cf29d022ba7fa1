"""How one sample is written for a model: wording, template, hash. SFT, RL and evaluation all ask here.

`mimigenrec.chat` makes messages and token ids of it. `prompt_contract.json` travels with the data and with every
checkpoint:

    {"wording", "system", "templates": {name: [instruction, input]}, "between_sids", "between_titles", "quote_titles",
     "max_history": null | number, "chat_template": null | text, "hash", "support": "vocab" | "trie",
     "golden": [{"prompt": messages, "ids"}, ...]}

max_history is how many items of a history are written, the latest ones. chat_template is null in the data unless a
tokenizer was given; a checkpoint's is its tokenizer's. The hash leaves out what stands in checkpoints alone:

support   by which scores its items are ranked (decoding/search.py), as training measured it
golden    20 prompts of the training rows with the token ids that SFT trained on. proven_tokenizer compares them,
          since another version of transformers may read other ids from the same files without an error
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

from mimigenrec.chat import Messages, chat_template, ends_answers, load_tokenizer, prompt_ids
from mimigenrec.errors import UserError
from mimigenrec.files import read_json, write_json
from mimigenrec.schema import check, shown

FILE = "prompt_contract.json"
FORMAT = {
    "wording": str,
    "system": str,
    "templates": {str: [str]},
    "between_sids": str,
    "between_titles": str,
    "quote_titles": bool,
    "max_history?": (int, None),
    "chat_template?": (str, None),
    "hash": str,
    "support?": (str, None),
    "golden?": [{"prompt": [{"role": str, "content": str}], "ids": [int]}],
}

log = logging.getLogger(__name__)

# Template name -> (instruction, input). A name ending in "@test" replaces the wording for the test split.
WORDINGS: dict[str, dict[str, Any]] = {
    # SIDs follow each other without spaces: a level is told by its token's name, and a space before an added token
    # would cost a token of its own.
    "contract": {
        "system": "You are a recommender. Items are named by semantic IDs.",
        "templates": {
            "sid_history": ("Which item comes next? Answer with its semantic ID.", "{sids}"),
            "sid_to_title": ("What is the title of this item?", "{sid}"),
            "title_to_sid": ("Which item has this title? Answer with its semantic ID.", "{title}"),
            "next_title": ("What is the title of the item that comes next?", "{sids}"),
            "title_history": ("Which item comes after these titles? Answer with its semantic ID.", "{titles}"),
            "description_to_sid": ("Which item is described here? Answer with its semantic ID.", "{description}"),
        },
        "between_sids": "",
        "between_titles": "\n",
        "quote_titles": False,
    },
    # For models from scratch, which have no use for sentences: a history is its SIDs and nothing else. With the chat
    # template "short" of make-base the answer follows as one more SID, so that train_on_prompt makes every item of a
    # row a target.
    "compact": {
        "system": "",
        "templates": {
            "sid_history": ("", "{sids}"),
            "sid_to_title": ("title of:", "{sid}"),
            "title_to_sid": ("item:", "{title}"),
            "next_title": ("next title:", "{sids}"),
            "title_history": ("next item:", "{titles}"),
            "description_to_sid": ("item described:", "{description}"),
        },
        "between_sids": "",
        "between_titles": "\n",
        "quote_titles": False,
    },
    # The sentences of the original MIMIGenRec files, so that people can compare row by row with files they have.
    "classic": {
        "system": "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.",
        "templates": {
            "sid_history": (
                "Can you predict the next possible item that the user may expect?",
                "The user has interacted with items {sids} in chronological order. Can you predict the next possible "
                "item that the user may expect?",
            ),
            "sid_history@test": (
                "Can you predict the next possible item that the user may expect?",
                "Can you predict the next possible item the user may expect, given the following chronological "
                "interaction history: {sids}",
            ),
            "sid_to_title": ("Answer the question about item identification.", 'What is the title of item "{sid}"?'),
            "title_to_sid": (
                "Answer the question about item identification.",
                "Which item has the title: {title}?",
            ),
            "next_title": (
                "Can you recommend the next item for the user based on their interaction history?",
                "The user has sequentially interacted with items {sids}. Can you recommend the next item for him? "
                "Tell me the title of the item",
            ),
            "title_history": (
                "",
                "Given the title sequence of user historical interactive items: {titles}, can you recommend a "
                "suitable next item for the user?",
            ),
            "description_to_sid": (
                "",
                'An item can be described as follows: "{description}". Which item is it describing?',
            ),
        },
        "between_sids": ", ",
        "between_titles": ", ",
        "quote_titles": True,
    },
}


@dataclass(frozen=True)
class Contract:
    """A wording and, once a tokenizer is known, its chat template. Two contracts are the same if their hashes are."""

    wording: str
    system: str
    templates: Mapping[str, tuple[str, str]]
    between_sids: str
    between_titles: str
    quote_titles: bool
    max_history: int | None = None
    chat_template: str | None = None
    support: str | None = None
    golden: tuple[tuple[Messages, list[int]], ...] = ()

    @classmethod
    def of(cls, wording: str | Mapping[str, Any], tokenizer=None, max_history: int | None = None) -> "Contract":
        """The contract of one of WORDINGS, by its name, or of a wording given as data: {"name": "control", "system",
        "templates", ...}, what an entry of WORDINGS holds. The joining keys may be left out; they are then those of
        wording "contract".

        Raises UserError if there is no such wording, for data of another form, naming the key, or if max_history is
        less than 1.
        """
        if isinstance(wording, str) and wording not in WORDINGS:
            raise UserError(f"wording {wording!r} is not known; choose one of {', '.join(WORDINGS)}")
        if max_history is not None and max_history < 1:
            raise UserError(f"max_history is {max_history}; at least one item of a history must be written")
        template = None if tokenizer is None else chat_template(tokenizer)
        name, words = (wording, WORDINGS[wording]) if isinstance(wording, str) else checked_wording(wording)
        return cls(name, **words, max_history=max_history, chat_template=template)

    def ask(self, template: str, split: str = "train", **values: str) -> tuple[str, str]:
        """(instruction, input) for a template of this wording, filled in. Braces in the values stay as they are."""
        instruction, question = self.templates.get(f"{template}@{split}", self.templates[template])
        return instruction, question.format(**values)

    def write_sids(self, sids: Sequence[Sequence[str]]) -> str:
        """A history of SIDs, oldest first, as the model reads it: its last max_history ones."""
        return self.between_sids.join("".join(sid) for sid in self._latest(sids))

    def write_titles(self, titles: Sequence[str]) -> str:
        latest = self._latest(titles)
        return self.between_titles.join(f'"{title}"' if self.quote_titles else title for title in latest)

    def _latest(self, items: Sequence) -> Sequence:
        return items if self.max_history is None else items[-self.max_history :]

    def data_text(self) -> str:
        """The part that data and checkpoint must share, as canonical text."""
        return json.dumps(
            {
                "wording": self.wording,
                "system": self.system,
                "templates": {name: list(pair) for name, pair in self.templates.items()},
                "between_sids": self.between_sids,
                "between_titles": self.between_titles,
                "quote_titles": self.quote_titles,
                "max_history": self.max_history,
            },
            sort_keys=True,
            ensure_ascii=False,
        )

    @property
    def hash(self) -> str:
        text = self.data_text() + "\n" + (self.chat_template or "")
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def write(self, folder: str | Path) -> None:
        content = {**json.loads(self.data_text()), "chat_template": self.chat_template, "hash": self.hash}
        if self.support:
            content["support"] = self.support
        if self.golden:
            content["golden"] = [{"prompt": prompt, "ids": ids} for prompt, ids in self.golden]
        write_json(Path(folder) / FILE, content)


def checked_wording(wording: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """(name, what an entry of WORDINGS holds) of a wording given as data. Raises UserError naming the key."""
    usual = WORDINGS["contract"]
    schema = {"name": str, "system": str, "templates": dict}
    schema |= {f"{key}?": type(value) for key, value in usual.items() if key not in schema}
    known = {key.removesuffix("?") for key in schema}
    check(dict(wording), schema, "wording")
    name = wording["name"]
    if name in WORDINGS or not name:
        raise UserError(f"wording: name must be one of its own, found {name!r}; {', '.join(WORDINGS)} are ours")
    if strange := [key for key in wording if key not in known]:
        raise UserError(f"wording {name!r}: there is no key {strange[0]!r}; it has {', '.join(sorted(known))}")
    templates = {}
    for template, pair in wording["templates"].items():
        place = f"wording {name!r}, templates.{template}"
        if not isinstance(pair, list | tuple) or [type(text) for text in pair] != [str, str]:
            raise UserError(f"{place}: must be the two texts of instruction and input, found {shown(pair)}")
        try:
            placeholders(pair[1])
        except ValueError as error:
            raise UserError(f"{place}: {error}; write {{name}} for a value, and {{{{ }}}} for a brace") from error
        templates[template] = tuple(pair)
    return name, {**{key: wording.get(key, value) for key, value in usual.items()}, "templates": templates}


def placeholders(text: str) -> list[str]:
    """Names of the values that a template's input is filled in with. Raises ValueError if there is anything else in
    its braces."""
    parts = [part for part in Formatter().parse(text) if part[1] is not None]
    for _, field, spec, conversion in parts:
        if not field.isidentifier() or spec or conversion:
            written = field + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            raise ValueError(f"{{{written}}} is no name of a value")
    return [field for _, field, _, _ in parts]


def read_contract(folder: str | Path) -> Contract | None:
    """The contract of a data folder or checkpoint; None where there is none. Raises UserError if it was edited."""
    path = Path(folder) / FILE
    if not path.is_file():
        return None
    content = read_json(path, made_by="preprocess_data_sft_rl.py", kind=dict)
    check(content, FORMAT, f"{path} is not a prompt contract", "copy it again from the data folder")
    stored = content.pop("hash")
    templates = {name: tuple(pair) for name, pair in content["templates"].items()}
    golden = tuple((pair["prompt"], pair["ids"]) for pair in content.pop("golden", ()))
    support = content.get("support")
    if support not in (None, "vocab", "trie") or content.keys() - {name.removesuffix("?") for name in FORMAT}:
        raise UserError(
            f"{path} is not a prompt contract: support is {support!r}, keys are {', '.join(content)}; copy it again "
            f"from the data folder"
        )
    contract = Contract(**{**content, "templates": templates, "golden": golden})
    if contract.hash != stored:
        raise UserError(f"{path} says hash {stored} but its content gives {contract.hash}: it was edited by hand")
    return contract


def check_same(data: Contract, checkpoint: Contract, data_path: str | Path, checkpoint_path: str | Path) -> None:
    """Raises UserError showing the first differing characters unless the two write prompts in the same way.

    The chat template is compared only where both know one.
    """
    pairs = [(data.data_text(), checkpoint.data_text(), "wording")]
    if data.chat_template and checkpoint.chat_template:
        pairs.append((data.chat_template, checkpoint.chat_template, "chat template"))
    for text, other, part in pairs:
        if text != other:
            where = _difference(text, other, data_path, checkpoint_path)
            raise UserError(
                f"prompt contracts differ in their {part} {where}. A model asked in other words than it was trained "
                f"with gives numbers that mean nothing: build the data again with the checkpoint's wording, or train "
                f"on these data."
            )


def check_template(contract: Contract, tokenizer, contract_path: str | Path) -> None:
    """Raises UserError if a tokenizer has another chat template than the one that its contract was made with."""
    template = chat_template(tokenizer)
    if contract.chat_template and contract.chat_template != template:
        where = _difference(contract.chat_template, template, contract_path, tokenizer.name_or_path)
        raise UserError(
            f"the chat template is not that of {FILE}; they differ {where}. Take data and checkpoint that belong "
            f"together: put the template back, or build the data again with --tokenizer {tokenizer.name_or_path}"
        )


def _difference(text: str, other: str, path: str | Path, other_path: str | Path) -> str:
    """The first differing characters of two texts, with some before and after."""
    at = len(os.path.commonprefix([text, other]))
    near = slice(max(0, at - 20), at + 40)
    return f"from character {at} on: {path} has {text[near]!r}, {other_path} has {other[near]!r}"


def proven_tokenizer(folder: str | Path, **settings):
    """The tokenizer of a checkpoint, proven to give the token ids that its contract remembers.

    Raises as chat.load_tokenizer does; UserError if a golden prompt of the folder's contract has other ids, or the
    tokenizer another chat template.
    """
    tokenizer = load_tokenizer(folder, **settings)
    contract = read_contract(folder)
    if contract and contract.golden:
        check_golden(contract, tokenizer, folder)
    return tokenizer


def check_golden(contract: Contract, tokenizer, folder: str | Path) -> None:
    """Raises UserError showing the first prompt whose token ids are not those that its checkpoint trained on."""
    check_template(contract, tokenizer, Path(folder) / FILE)
    prompts = [prompt for prompt, _ in contract.golden]
    for (prompt, ids), ids_now in zip(contract.golden, prompt_ids(tokenizer, prompts), strict=True):
        if ids_now != ids:
            at = len(os.path.commonprefix([ids_now, ids]))
            raise UserError(
                f"the tokenizer of {folder} gives other token ids than its model was trained on: from token {at} on, "
                f"{prompt[-1]['content'][:60]!r} has {ids_now[at : at + 5]} in place of {ids[at : at + 5]}. Put back "
                f"the tokenizer's files as training wrote them, or install the versions that manifest.json names there"
            )


def choose_support(wanted: str | None, contract: Contract | None, checkpoint: str | Path) -> str:
    """By which scores a checkpoint's items are ranked: as wanted, else as its contract says, else "vocab".

    Warns if the two differ, since the figures are then not those that training measured, and if neither says.
    """
    trained = contract.support if contract else None
    if trained is None and wanted is None:
        log.warning(
            "%s does not say by which scores it was trained to rank (no support in %s); taking vocab. If it was "
            "trained with support trie, give --support trie",
            checkpoint,
            FILE,
        )
    if wanted and trained and wanted != trained:
        log.warning(
            "%s was trained to be ranked by support %s, and is asked to rank by %s; leave --support out to rank as "
            "its training did",
            checkpoint,
            trained,
            wanted,
        )
    return wanted or trained or "vocab"


def check_support(tokenizer, support: str) -> None:
    """Raises UserError if scores would hold an end that was never trained."""
    if support == "vocab" and not ends_answers(tokenizer):
        raise UserError(
            "the chat template of this model writes no end behind an answer, so support vocab would score items by an "
            "end that was never trained; use support trie (eval_support: trie in mimigenrec sft)"
        )
