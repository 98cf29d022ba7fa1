"""Each row format: what is written is read, and what is of another form is named."""

import json

import pytest

from mimigenrec.chat import row_answer, row_chat, row_messages
from mimigenrec.contract import Contract
from mimigenrec.interactions.inter_file import History
from mimigenrec.tasks.rows import (
    read_rl_rows,
    read_sft_rows,
    read_user_rows,
    to_chat_row,
    to_rl_row,
    to_sft_row,
    to_user_row,
)
from mimigenrec.tasks.sample import Sample

SAMPLE = Sample("sid_history", {"sids": "<a_1>"}, "<a_2>", row=4)


def said(*turns):
    """("user", "Which?"), ... -> messages."""
    return [{"role": role, "content": text} for role, text in turns]


CHAT = {"messages": said(("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "<a_1>"))}


def written(folder, rows):
    path = folder / "rows.json"
    path.write_text(json.dumps(rows))
    return path


@pytest.mark.parametrize("wording", ["contract", "compact", "classic"])
def test_rows_of_all_formats_come_back_as_written(tmp_path, wording):
    contract = Contract.of(wording)
    sft = to_sft_row(SAMPLE, contract, "train")
    assert read_sft_rows(written(tmp_path, [sft])) == [sft]
    assert read_sft_rows(written(tmp_path, [to_chat_row(sft), CHAT])) == [to_chat_row(sft), CHAT]
    rl = to_rl_row(SAMPLE, contract, "train", "task", "ability", "toy", index=9)
    assert read_rl_rows(written(tmp_path, [rl])) == [rl]
    row = to_user_row(History(3, "u", ["1", "2"], "7"))
    assert row == {"user": "u", "row": 3, "history": ["1", "2"], "target": "7"}
    assert read_user_rows(written(tmp_path, [row])) == [row]


@pytest.mark.parametrize("wording", ["contract", "compact", "classic"])
def test_an_alpaca_row_and_its_chat_ask_and_answer_the_same(wording):
    row = to_sft_row(SAMPLE, Contract.of(wording), "test")
    chat = to_chat_row(row)
    assert row_messages(chat) == row_messages(row) and row_answer(chat) == row_answer(row) == "<a_2>"
    assert row_chat(chat) == row_chat(row) == [*row_messages(row), *said(("assistant", "<a_2>"))]


def test_the_prompt_of_a_chat_is_all_before_its_last_answer():
    assert row_messages(CHAT) == CHAT["messages"][:4] and row_answer(CHAT) == "<a_1>"


ALPACA = {"instruction": "I", "input": "x", "output": "y"}
BAD_SFT = [
    ([], "must hold at least one row"),
    ([ALPACA, {"input": "x"}], "row 1: output is missing, which must be a text"),
    ([{**ALPACA, "input": 5}], "row 0: input must be a text, found 5"),
    ([ALPACA, CHAT], "row 1: output is missing"),
    ([CHAT, ALPACA], "row 1: messages is missing, which must be a list of maps with 'role' and 'content'"),
    ([{"messages": "hi"}], "row 0: messages must be a list of maps"),
    ([{"messages": [{"role": "user"}]}], r"row 0: messages\[0\].content is missing"),
    (
        [{"messages": said(("user", "a"), ("user", "b"))}],
        r"messages\[1\].role must be assistant or function, found 'user'",
    ),
    ([{"messages": said(("assistant", "a"))}], r"messages\[0\].role must be user or observation, found 'assistant'"),
    ([{"messages": said(("user", "a"), ("assistant", "b"), ("system", "c"))}], r"messages\[2\].role must be user or"),
    (
        [{"messages": said(("human", "a"), ("gpt", "b"))}],
        r"messages\[0\].role must be user or observation, found 'human'",
    ),
    ([{"messages": said(("system", "a"), ("user", "b"))}], "messages must end with an answer"),
    ([{"messages": said(("system", "a"))}], "messages must end with an answer"),
    ([{"messages": []}], "messages must end with an answer"),
]


@pytest.mark.parametrize(("rows", "message"), BAD_SFT)
def test_an_sft_row_of_another_form_is_named(tmp_path, rows, message):
    with pytest.raises(ValueError, match=rf"rows\.json.*{message}"):
        read_sft_rows(written(tmp_path, rows))


def test_rows_of_another_kind_than_the_registered_one_are_named(tmp_path):
    with pytest.raises(ValueError, match="row 0: messages is missing"):
        read_sft_rows(written(tmp_path, [ALPACA]), "messages")
    with pytest.raises(ValueError, match="row 0: output is missing"):
        read_sft_rows(written(tmp_path, [CHAT]), "alpaca")


def test_calls_of_functions_and_what_they_gave_are_turns_too(tmp_path):
    chat = {"messages": said(("user", "a"), ("function", "f()"), ("observation", "7"), ("assistant", "<a_1>"))}
    assert read_sft_rows(written(tmp_path, [chat])) == [chat]


def test_rl_prompts_may_have_several_turns_and_columns_are_the_same_in_all_rows(tmp_path):
    row = {"prompt": CHAT["messages"][:4], "reward_model": {"ground_truth": "<a_1>"}, "weight": 2}
    assert read_rl_rows(written(tmp_path, [row])) == [row]
    with pytest.raises(ValueError, match=r"row 1: has the columns \['prompt', 'reward_model'\], row 0 has"):
        read_rl_rows(written(tmp_path, [row, {key: row[key] for key in ("prompt", "reward_model")}]))
    with pytest.raises(ValueError, match="row 0: prompt must be a list of maps.*found an empty one"):
        read_rl_rows(written(tmp_path, [row | {"prompt": []}]))
