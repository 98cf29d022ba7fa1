"""What LLaMA-Factory makes of a row, beside what we make of it: the same token ids, or the data are refused.

SFT trains on LLaMA-Factory's rendering of a row; RL and evaluation ask with `chat.prompt_ids`. LLaMA-Factory
either parses the tokenizer's chat template (no `template:` in its YAML) or uses one of its own by name, and neither is
always what the tokenizer itself renders: a reasoning template, for one, puts an empty thought before every answer.
"""

import copy
import difflib
import os
from collections.abc import Callable, Iterable
from typing import Any

from mimigenrec.chat import ANSWERING, Kind, Row, ends_answers, kind_of, prompt_ids, row_chat
from mimigenrec.contract import Contract, placeholders
from mimigenrec.errors import UserError

# How LLaMA-Factory is to read the rows. A role, once columns or tags are given, is unset where it is not named.
FORMATS: dict[Kind, dict[str, Any]] = {
    "alpaca": {"columns": {"prompt": "instruction", "query": "input", "response": "output", "system": "system"}},
    "messages": {
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "observation_tag": "observation",
            "function_tag": "function",
            "system_tag": "system",
        },
    },
}
IGNORED = -100  # a label that no loss counts: LLaMA-Factory's IGNORE_INDEX, and torch's

# Values for trying out a contract without data: what a template may trim, escape, or join with its neighbours.
PROBES = ("<a_1><b_2>", "It's a 1/2\" tube, {new} & 100% sealed", "- Ünï, 日本語 🙂 ...")


def check_rendering(
    tokenizer,
    contract: Contract | None,
    template: str | None = None,
    rows: Iterable[Row] | None = None,
    mask_history: bool = False,
) -> None:
    """Raises UserError, showing both renderings, unless LLaMA-Factory trains on the ids that RL and evaluation see.

    template       a name of LLaMA-Factory's (`template:` in its YAML); None: the parsed chat template of the tokenizer
    rows           SFT rows to compare, alpaca or chats; None: rows made up from the contract
    mask_history   LLaMA-Factory's key: of a chat only the last answer is trained

    Of every answer that is trained two things are compared: its prompt, which is all that stands before it, and the
    beginning of what is trained: its own ids, then EOS, as the trie will ask for them, unless the chat template leaves
    answers open. What LLaMA-Factory trains after EOS (a line feed, mostly) is never generated; it must be the same
    after each answer of a chat, so that no part of a question is trained.
    """
    encode = lf_encoder(tokenizer, template, mask_history)
    end = [tokenizer.eos_token_id] if ends_answers(tokenizer) else []
    for row in _probe_rows(contract) if rows is None else rows:
        chat = row_chat(row)
        turns = [i for i, message in enumerate(chat) if message["role"] in ANSWERING][-1 if mask_history else 0 :]
        prompts = prompt_ids(tokenizer, [chat[:turn] for turn in turns])
        answers = [[*tokenizer.encode(chat[turn]["content"], add_special_tokens=False), *end] for turn in turns]
        ids, labels = encode(row)
        spans = trained_spans(labels)
        spans += [(len(ids), len(ids))] * (len(turns) - len(spans))  # an open answer may be empty
        start, stop = spans[-1]
        beyond = labels[start:stop][len(answers[-1]) :]
        for prompt, answer, (start, stop) in zip(prompts, answers, spans, strict=False):
            if ids[:start] != prompt:
                raise _difference(tokenizer, template, "prompt", ids[:start], prompt)
            trained = labels[start:stop]
            if trained[: len(answer)] != answer or trained[len(answer) :] != beyond:
                raise _difference(tokenizer, template, "answer", trained, answer)
        if len(spans) > len(turns):
            raise _difference(tokenizer, template, "end", labels[slice(*spans[len(turns)])], [])


def trained_spans(labels: list[int]) -> list[tuple[int, int]]:
    """(start, stop) of each run of labels that the loss counts."""
    counts = [False, *(label != IGNORED for label in labels), False]
    edges = [i for i in range(len(labels) + 1) if counts[i] != counts[i + 1]]
    return list(zip(edges[::2], edges[1::2], strict=True))


def lf_encoder(
    tokenizer, template: str | None = None, mask_history: bool = False
) -> Callable[[Row], tuple[list[int], list[int]]]:
    """LLaMA-Factory's own path from an SFT row to ids and labels: converter, template, supervised processor (0.9.5).

    Raises UserError if LLaMA-Factory has no such template. The tokenizer is left as it was.
    """
    from llamafactory.data.converter import AlpacaDatasetConverter, SharegptDatasetConverter
    from llamafactory.data.parser import DatasetAttr
    from llamafactory.data.processor import SupervisedDatasetProcessor
    from llamafactory.data.template import TEMPLATES, get_template_and_fix_tokenizer
    from llamafactory.hparams import DataArguments

    tokenizer = copy.deepcopy(tokenizer)  # LLaMA-Factory may replace its EOS and its chat template
    arguments = DataArguments(template=template, cutoff_len=1 << 30, mask_history=mask_history)
    if template is not None and template not in TEMPLATES:
        near = difflib.get_close_matches(template, TEMPLATES, n=1)
        raise UserError(
            f"template {template!r} is none of LLaMA-Factory's"
            + (f"; did you mean {near[0]!r}?" if near else "")
            + "; leave it out to take the tokenizer's own"
        )
    fixed = get_template_and_fix_tokenizer(tokenizer, arguments)
    processor = SupervisedDatasetProcessor(fixed, tokenizer, None, arguments)

    def converter(kind: Kind):
        read_as = DatasetAttr("file", "rows")
        read_as.join(FORMATS[kind])
        return {"alpaca": AlpacaDatasetConverter, "messages": SharegptDatasetConverter}[kind](read_as, arguments)

    convert = {kind: converter(kind) for kind in FORMATS}

    def encode(row: Row) -> tuple[list[int], list[int]]:
        example = convert[kind_of(row)]({"system": "", "instruction": "", "input": "", **row})
        return processor._encode_data_example(
            example["_prompt"], example["_response"], example["_system"], example["_tools"], [], [], []
        )

    return encode


def _probe_rows(contract: Contract) -> Iterable[Row]:
    values = {"sids": PROBES[0], "sid": PROBES[0], "titles": contract.write_titles(PROBES[1:])}
    for name, (instruction, question) in contract.templates.items():
        for text in PROBES[1:]:
            filled = question.format(**{field: values.get(field, text) for field in placeholders(question)})
            answer = text if name in ("sid_to_title", "next_title") else PROBES[0]
            yield {"system": contract.system, "instruction": instruction, "input": filled, "output": answer}


def _difference(tokenizer, template: str | None, what: str, trained: list[int], expected: list[int]) -> UserError:
    at = len(os.path.commonprefix([trained, expected]))
    near = slice(max(0, at - 10), at + 20)
    used = f"template {template!r}" if template else "the chat template it parses from the tokenizer"
    return UserError(
        f"LLaMA-Factory with {used} and the tokenizer {tokenizer.name_or_path!r} write the {what} differently from "
        f"token {at} on: LLaMA-Factory trains on {tokenizer.decode(trained[near])!r}, RL and evaluation would see "
        f"{tokenizer.decode(expected[near])!r}. Give --template, and `template:` in the SFT YAML, a name of "
        f"LLaMA-Factory's that fits the model (qwen3_nothink for Qwen3), or start from another model."
    )
