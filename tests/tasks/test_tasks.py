"""Each task by hand, on a catalogue of five items: two share a title, two share a SID, one has no SID."""

import pytest

from mimigenrec.catalog import Catalog
from mimigenrec.contract import Contract
from mimigenrec.interactions.inter_file import History
from mimigenrec.tasks import describe_item, item_text, next_title, sid_history, title_history
from mimigenrec.tasks.build import RL_TASKS, SFT_TASKS

CATALOG = Catalog(
    sids={"1": ("<a>", "<x>"), "2": ("<a>", "<y>"), "3": ("<b>",), "4": ("<b>",)},
    titles={"1": "tape", "2": "tape", "3": "glue", "4": "glue stick", "5": "no SID"},
    descriptions={"1": "holds paper", "3": "sticks", "4": "sticks", "5": "lost"},
)
HISTORIES = [
    History(0, "u", ("1", "5", "3"), "2"),
    History(1, "u", ("5",), "4"),
    History(2, "v", ("1",), "5"),
    History(3, "v", ("9",), "1"),
]
OURS = Contract.of("contract")


def asked(task, contract=OURS):
    return [
        (s.template, *s.values.values(), s.answer, s.row) for s in task.samples(iter(HISTORIES), CATALOG, contract)
    ]


def test_sid_history_writes_items_with_a_sid_and_answers_nothing_for_a_target_without():
    assert asked(sid_history) == [
        ("sid_history", "<a><x><b>", "<a><y>", 0),
        ("sid_history", "", "<b>", 1),
        ("sid_history", "<a><x>", "", 2),
        ("sid_history", "", "<a><x>", 3),
    ]


def test_item_text_asks_for_every_title_and_only_for_titles_of_one_sid():
    assert asked(item_text) == [
        ("sid_to_title", "<a><x>", "tape", None),
        ("sid_to_title", "<a><y>", "tape", None),
        ("sid_to_title", "<b>", "glue", None),
        ("sid_to_title", "<b>", "glue stick", None),
        ("title_to_sid", "glue", "<b>", None),
        ("title_to_sid", "glue stick", "<b>", None),
    ]


def test_next_title_needs_a_title():
    assert [row[1:] for row in asked(next_title)] == [
        ("<a><x><b>", "tape", 0),
        ("", "glue stick", 1),
        ("<a><x>", "no SID", 2),
        ("", "tape", 3),
    ]


def test_title_history_needs_a_title_in_the_history_and_a_sid_for_the_target():
    assert asked(title_history) == [
        ("title_history", "tape\nno SID\nglue", "<a><y>", 0),
        ("title_history", "no SID", "<b>", 1),
    ]
    assert asked(title_history, Contract.of("classic", max_history=2))[0][1] == '"no SID", "glue"'


def test_describe_item_asks_once_per_text_of_one_sid():
    assert asked(describe_item) == [
        ("title_to_sid", "glue", "<b>", None),
        ("title_to_sid", "glue stick", "<b>", None),
        ("description_to_sid", "holds paper", "<a><x>", None),
        ("description_to_sid", "sticks", "<b>", None),
    ]


def test_names_and_abilities_are_the_original_ones():
    assert [task.NAME for task in SFT_TASKS] == ["task1_sid_sft", "task2_sid_item_feat", "task3_fusion_seq"]
    assert [(task.NAME, task.ABILITY) for task in RL_TASKS] == [
        ("task1_sid_sft", "seq_rec"),
        ("task4_hisTitle2sid", "seq_title2sid"),
        ("task5_title_desc2sid", "title_desc2sid"),
    ]


@pytest.mark.parametrize("task", [*SFT_TASKS, *RL_TASKS], ids=lambda task: task.NAME)
def test_every_sample_can_be_written_in_both_wordings(task):
    for wording in ("contract", "classic"):
        contract = Contract.of(wording)
        for sample in task.samples(iter(HISTORIES), CATALOG, contract):
            instruction, question = contract.ask(sample.template, "train", **sample.values)
            assert all(value in question for value in sample.values.values())
