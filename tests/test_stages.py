"""When a stage is done, and what a slip in its options is told as."""

import sys

import pytest

from mimigenrec.errors import UserError
from mimigenrec.stages import Stage, refusals, standing


@pytest.fixture
def stage(tmp_path):
    return Stage("sft/1", "sft", "mimigenrec.sids.quantise", {"epochs": 2}, (tmp_path / "a", tmp_path / "b"))


def facts(**options):
    return {"options": options, "inputs": {"x/train.inter": "12ab"}}


def test_a_stage_is_done_when_its_facts_and_all_its_files_are_there(stage):
    assert standing(stage, facts(epochs=2), None) == ("to do", [])
    for path in stage.writes:
        assert standing(stage, facts(epochs=2), facts(epochs=2)).word == "to do"
        path.write_text("")
    assert standing(stage, facts(epochs=2), facts(epochs=2)) == ("done", [])


def test_what_has_changed_is_named_also_where_it_failed_before(stage):
    before = {**facts(epochs=3, rate=0.1), "inputs": {"x/train.inter": "0", "x/gone": "1"}, "state": "failed"}
    word, changes = standing(stage, facts(epochs=2), before)
    assert word == "changed" and changes == [
        "epochs was 3, is 2",
        "rate was 0.1, is not given",
        "x/train.inter has changed or is new",
        "x/gone is read no more",
    ]


@pytest.mark.parametrize("state", ["failed", "begun"])
def test_what_did_not_come_to_an_end_is_neither_done_nor_changed(state, stage):
    assert standing(stage, facts(epochs=2), {**facts(epochs=2), "state": state}) == (state, [])


def test_the_dataclasses_of_a_command_are_its_options(stage):
    assert [config.__name__ for config in stage.configs] == ["QuantiseConfig", "Training"]


def test_a_refusal_names_the_key_and_one_stage_of_each_key_is_asked(stage, capsys):
    asked = []

    def ask(stage):
        asked.append(stage.name)
        sys.stdout.write("not shown")
        if stage.key == "sft":
            sys.stderr.write("error: no such key\nx --help lists what it takes\n")
            sys.exit(2)
        if stage.key == "grpo":
            raise UserError("no reward")

    stages = [stage, stage._replace(name="sft/2"), stage._replace(key="grpo"), stage._replace(key="fine")]
    assert refusals(stages, ask) == ["sft: no such key", "grpo: no reward"]
    assert asked == ["sft/2", "sft/1", "sft/1"] and capsys.readouterr() == ("", "")
