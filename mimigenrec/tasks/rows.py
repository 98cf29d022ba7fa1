"""The rows of a data folder, each format with its writer and its reader.

sft/<split>.json    what LLaMA-Factory trains on; all rows of a file are of one kind
    alpaca          {"system", "instruction", "input", "output"}         one question and its answer
    messages        {"messages": [{"role", "content"}, ...]}             a chat of one or more questions and answers
rl/<split>.json     what TRL asks and rewards
                    {"data_source", "prompt": messages, "ability", "reward_model": {"style", "ground_truth"},
                     "extra_info": {"split", "index", "task"}}
rows/<split>.json   who is asked: {"user", "row", "history", "target"}, row for row beside sft/<split>.json

Further keys are left alone: other columns of RL rows are the rewards'.
"""

from pathlib import Path
from typing import Any

from mimigenrec.chat import ANSWERING, ASKING, Kind, Messages, Row, kind_of, messages, row_chat, user_text
from mimigenrec.contract import Contract
from mimigenrec.errors import UserError
from mimigenrec.interactions.inter_file import History
from mimigenrec.schema import check, read_rows, shown, words
from mimigenrec.tasks.sample import Sample

MADE_BY = "mimigenrec preprocess"
MESSAGES = [{"role": str, "content": str}]
SFT_ROWS = {
    "alpaca": {"output": str, "system?": str, "instruction?": str, "input?": str},
    "messages": {"messages": MESSAGES},
}
RL_ROW = {"prompt": MESSAGES, "reward_model": {"ground_truth": str}}
USER_ROW = {"user": str, "row": int, "history": [str], "target": str}


def to_sft_row(sample: Sample, contract: Contract, split: str) -> dict[str, str]:
    instruction, question = contract.ask(sample.template, split, **sample.values)
    return {"system": contract.system, "instruction": instruction, "input": question, "output": sample.answer}


def to_chat_row(row: Row) -> dict[str, Messages]:
    """The same row of the kind messages."""
    return {"messages": row_chat(row)}


def read_sft_rows(path: str | Path, kind: Kind | None = None) -> list[dict[str, Any]]:
    """The rows of an sft/<split>.json, at least one, all of one kind: that of the first where none is asked for.

    Raises UserError naming file, row and key for a row of another form, and for a chat that LLaMA-Factory would leave
    out of the training.
    """
    rows = read_rows(path, {}, MADE_BY)
    kind = kind or kind_of(rows[0])
    for i, row in enumerate(rows):
        check(row, SFT_ROWS[kind], f"{path}, row {i}", f"it comes from {MADE_BY}")
        if kind == "messages":
            check_turns(row["messages"], f"{path}, row {i}")
    return rows


def check_turns(chat: Messages, place: str) -> None:
    """Raises UserError unless questions and answers alternate, behind a system text or none, and an answer is last."""
    first = int(bool(chat) and chat[0]["role"] == "system")
    for i, message in enumerate(chat[first:], first):
        roles = (ASKING, ANSWERING)[(i - first) % 2]
        if message["role"] not in roles:
            raise UserError(
                f"{place}: messages[{i}].role must be {' or '.join(roles)}, found {message['role']!r}: questions and "
                f"answers alternate, and LLaMA-Factory trains on no other row"
            )
    if len(chat) == first or (len(chat) - first) % 2:
        raise UserError(f"{place}: messages must end with an answer ({' or '.join(ANSWERING)}), found {shown(chat)}")


def to_rl_row(
    sample: Sample, contract: Contract, split: str, task: str, ability: str, data_source: str, index: int
) -> dict[str, Any]:
    """The classic wording's RL prompt is the input alone, as in the original files; ours is what SFT trained on."""
    instruction, question = contract.ask(sample.template, split, **sample.values)
    user = question if contract.wording == "classic" else user_text(instruction, question)
    return {
        "data_source": data_source,
        "prompt": messages(contract.system, user),
        "ability": ability,
        "reward_model": {"style": "rule", "ground_truth": sample.answer},
        "extra_info": {"split": split, "index": index if sample.row is None else sample.row, "task": task},
    }


def read_rl_rows(path: str | Path) -> list[dict[str, Any]]:
    """The rows of an rl/<split>.json, at least one.

    Raises UserError naming file and row for one without prompt messages or target, or with other columns than the
    first, since TRL wants a table.
    """
    rows = read_rows(path, RL_ROW, MADE_BY)
    for i, row in enumerate(rows):
        if not row["prompt"]:
            raise UserError(f"{path}, row {i}: prompt must be {words(RL_ROW['prompt'])}, found an empty one")
        if row.keys() != rows[0].keys():
            raise UserError(f"{path}, row {i}: has the columns {sorted(row)}, row 0 has {sorted(rows[0])}")
    return rows


def to_user_row(history: History) -> dict[str, Any]:
    return {"user": history.user, "row": history.row, "history": history.items, "target": history.target}


def read_user_rows(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a rows/<split>.json, at least one. Raises UserError naming file, row and key."""
    return read_rows(path, USER_ROW, MADE_BY)
