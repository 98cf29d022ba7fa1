import math
import re
from types import SimpleNamespace

import pytest
import torch

from mimigenrec import rewarding
from mimigenrec.errors import UserError
from mimigenrec.rewarding import (
    answer_chats,
    ask_rewards,
    check_spread,
    check_weights,
    checked,
    group_advantages,
    load_reward,
    load_rewards,
    weighted_sums,
    without_signal,
)

ROWS = {
    "completions": [[{"role": "assistant", "content": text}] for text in ("<a_1>", "<a_2>", "<a_3>")],
    "reward_model": [{"ground_truth": "<a_2>"}] * 3,
    "trainer_state": SimpleNamespace(global_step=7),
}


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A working directory with rewards/mine.py and a package pkg/mod.py."""
    (tmp_path / "rewards").mkdir()
    (tmp_path / "rewards" / "mine.py").write_text(
        "import json, math, sys, torch\n"
        "def steady(completions, value=0.5, **columns):\n    return [value] * len(completions)\n"
        "def short(completions, **columns):\n    return [1.0] * (len(completions) - 1)\n"
        "def nan(completions, **columns):\n    return [1.0, math.nan, 1.0]\n"
        "def nothing(completions, **columns):\n    pass\n"
        "def raises(completions, **columns):\n"
        "    a = completions\n"
        "    return [1 / (chat[0]['content'] != '<a_3>') for chat in a]\n"
        "def pairs(completions, **columns):\n    return [1 / (3 - len(completions))] * len(completions)\n"
        "def inner(completions, **columns):\n    return json.loads('no')\n"
        "def leaves(completions, **columns):\n    sys.exit(0)\n"
        "def narrow(completions, trainer_state):\n    return [1.0]\n"
        "def none(completions, **columns):\n    return [1.0, None, 1.0]\n"
        "def text(completions, **columns):\n    return [1, '0.5', 1]\n"
        "def big(completions, **columns):\n    return [1e308, 0, 0]\n"
        "def huge(completions, **columns):\n    return [10**400, 0, 0]\n"
        "def pair(completions, **columns):\n    return [torch.ones(2)] * 3\n"
        "def one_text(completions, **columns):\n    return '111'\n"
        "def a_map(completions, **columns):\n    return {0: 1.0, 1: 0.0, 2: 0.0}\n"
        "def later(completions, **columns):\n"
        "    async def answer():\n        return [1.0]\n"
        "    return answer()\n"
    )
    (tmp_path / "pkg_of_mine").mkdir()
    (tmp_path / "pkg_of_mine" / "mod.py").write_text("def steady(completions, **columns):\n    return [2.0]\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_shipped_reward_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reward = load_reward("ranking_reward.rule_reward")
    assert reward.__name__ == "rule_reward" and reward(**ROWS) == [0, 1, 0]


def test_a_file_dropped_into_rewards_works(mine):
    assert load_reward("mine.steady")(**ROWS) == [0.5, 0.5, 0.5]


def test_the_users_folder_wins_over_the_shipped_one(mine):
    (mine / "rewards" / "ranking_reward.py").write_text("def rule_reward(completions, **columns):\n    return [9.0]\n")
    assert load_reward("ranking_reward.rule_reward")(**ROWS) == [9.0]


def test_a_module_is_named_with_a_colon(mine):
    assert load_reward("pkg_of_mine.mod:steady")(**ROWS) == [2.0]


def test_parameters_are_bound_by_name(mine):
    assert load_reward("mine.steady", {"value": 3.0})(**ROWS) == [3.0, 3.0, 3.0]


@pytest.mark.parametrize("parameters", [{"valeu": 1}, {"completions": 1}, {"columns": 1}])
def test_an_unknown_parameter_says_which_there_are(mine, parameters):
    with pytest.raises(ValueError, match=r"mine.steady.*has no parameter.*\['value'\]"):
        load_reward("mine.steady", parameters)


def test_parameters_for_no_reward_are_refused(mine):
    with pytest.raises(ValueError, match="mine.stedy.*not among the rewards"):
        load_rewards(["mine.steady"], {"mine.stedy": {"value": 1}})


def test_a_missing_file_lists_what_is_there(mine):
    with pytest.raises(FileNotFoundError, match="no file mien.py.*'mine'.*ranking_reward"):
        load_reward("mien.steady")
    with pytest.raises(FileNotFoundError, match="file.function"):
        load_reward("steady")


def test_a_missing_function_lists_what_is_there(mine):
    with pytest.raises(ValueError, match="no function 'stead'; it has .*'steady'"):
        load_reward("mine.stead")


def test_a_module_that_cannot_be_imported_is_named(mine):
    with pytest.raises(ValueError, match="cannot import 'pkg_of_nobody'"):
        load_reward("pkg_of_nobody:steady")


def test_no_reward_and_the_same_twice_are_refused(mine):
    with pytest.raises(ValueError, match="no reward given"):
        load_rewards([])
    with pytest.raises(ValueError, match="given twice"):
        load_rewards(["mine.steady", "mine.steady"])


def test_two_functions_of_one_name_keep_their_metrics_apart(mine):
    names = ["mine.steady", "pkg_of_mine.mod:steady"]
    assert [reward.__name__ for reward in load_rewards(names)] == names


@pytest.mark.parametrize(
    "name, message",
    [
        ("short", r"'short' \(rewards/mine.py, line 4\) at step 7 returned 2 scores for 3 completions.*sample 2"),
        ("nan", r"'nan' \(rewards/mine.py, line 6\) at step 7 gave nan for sample 1 .*<a_2>"),
        ("text", "'text' .* gave '0.5' for sample 1 .*finite number"),
        ("big", "'big' .* gave 1e[+]308 for sample 0 .*largest is 3.4e38"),
        ("huge", "'huge' .* gave 1000.* for sample 0"),
        ("pair", r"'pair' .* gave tensor\(\[1., 1.\]\) for sample 0"),
        ("nothing", "'nothing' .* returned NoneType 'None'; it must return a list of numbers"),
        ("one_text", "'one_text' .* returned str '111'"),
        ("a_map", "'a_map' .* returned dict "),
        ("later", "'later' .* returned coroutine "),
        ("raises", r"'raises' \(rewards/mine.py, line 12\) at step 7, sample 2 .*<a_3>.*ZeroDivisionError"),
        ("pairs", "'pairs' .* no single sample, only all 3 together: ZeroDivisionError"),
        ("inner", r"'inner' \(rewards/mine.py, line 16\) .* JSONDecodeError"),  # its author's line, not json's
        ("leaves", r"'leaves' \(rewards/mine.py, line 18\) .* it calls sys.exit\(0\)"),
        ("narrow", r"'narrow' \(rewards/mine.py, line 19\) .* unexpected keyword argument 'reward_model'"),
    ],
)
@pytest.mark.filterwarnings("error")  # of a coroutine that was never awaited
def test_an_answer_that_cannot_be_used_names_reward_line_step_and_sample(mine, name, message):
    with pytest.raises(UserError, match=message):
        checked(load_reward(f"mine.{name}"))(**ROWS)


def test_none_means_says_nothing(mine):
    assert checked(load_reward("mine.none"))(**ROWS) == [1.0, None, 1.0]


def test_a_tensor_a_generator_and_a_tuple_are_scores_too():
    for answer in (torch.tensor([1.0, 0.0, 2.0]), (x for x in (1, 0, 2)), (True, False, 2.0)):

        def reward(answer=answer, **columns):
            return answer

        assert checked(reward)(**ROWS) == [1.0, 0.0, 2.0]


def test_ctrl_c_is_not_the_rewards_fault():
    def slow(completions, **columns):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checked(slow)(**ROWS)


@pytest.mark.parametrize(
    "text, message",
    [
        ("def f(:\n", r"reward 'bad.f' cannot be loaded \(rewards/bad.py, line 1\): SyntaxError: "),
        (
            "x = 1\nimport package_of_nobody\n",
            r"\(rewards/bad.py, line 2\): ModuleNotFoundError: No module named 'pack",
        ),
        ("\n\nopen('nowhere.txt')\n", r"\(rewards/bad.py, line 3\): FileNotFoundError: .*nowhere.txt"),
        ("import sys\nsys.exit(0)\n", r"\(rewards/bad.py, line 2\): it calls sys.exit\(0\)"),
        ("async def f(completions, **columns):\n    return []\n", r"'bad.f' \(rewards/bad.py, line 1\) is async"),
        ("f = 3\n", "bad.py has no function 'f'"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_named_with_its_line(mine, text, message):
    (mine / "rewards" / "bad.py").write_text(text)
    with pytest.raises(UserError, match=message):
        load_reward("bad.f")


@pytest.mark.parametrize("name, text", [("syntax", "\ndef f(:\n"), ("leaves", "import sys\nsys.exit(0)\n")])
def test_a_module_that_cannot_be_loaded_is_named_with_its_line(mine, name, text):
    (mine / f"module_that_{name}.py").write_text(text)
    with pytest.raises(UserError, match=rf"cannot import 'module_that_{name}' \(module_that_{name}.py, line 2\): "):
        load_reward(f"module_that_{name}:f")


@pytest.mark.parametrize("name", ["../outside.f", "sub/outside.f", "/tmp/outside.f", r"..\outside.f"])
def test_a_path_reaches_nothing_outside_of_rewards(mine, name):
    (mine / "outside.py").write_text("def f(completions, **columns):\n    return []\n")
    with pytest.raises(UserError, match=f"reward {re.escape(repr(name))} is a path; put the file into rewards/"):
        load_reward(name)
    with pytest.raises(UserError, match="is no name of a module"):
        load_reward("../outside:f")


@pytest.mark.parametrize(
    "args", [["mine.steady"], {"mine.steady": 3}, {"mine.steady": {"value": float("nan")}}, "mine.steady"]
)
def test_reward_args_of_another_form_are_refused(mine, args):
    with pytest.raises(UserError, match="reward_args"):
        load_rewards(["mine.steady"], args)


def test_weights_are_one_each_and_not_all_nothing():
    check_weights(None, ["a", "b"])
    check_weights([0.0, 1.0], ["a", "b"])
    with pytest.raises(UserError, match="1 numbers for 2 rewards"):
        check_weights([1.0], ["a", "b"])
    with pytest.raises(UserError, match="reward_weights are all 0"):
        check_weights([0.0, 0.0], ["a", "b"])


def test_rewards_whose_spread_leaves_float32_are_refused():
    check_spread(torch.tensor([[0.0, 1e18], [1.0, 1.0]]), "step 3: ")
    with pytest.raises(UserError, match="step 3: the rewards of a group differ .* between -3e.38 and 3e.38"):
        check_spread(torch.tensor([[-3e38, 3e38]]), "step 3: ")


def test_a_reward_gets_columns_prompts_and_its_place_in_the_group():
    seen = {}

    def spy(completions, **columns):
        seen.update(columns, completions=completions)
        return range(len(completions))

    def partly(**columns):
        return [None, 1, 2, 3]

    rows = [{"prompt": prompt, "reward_model": {"ground_truth": "<a_2>"}, "user": 7} for prompt in "ppqq"]
    scores = ask_rewards([spy, partly], rows, answer_chats("abcd"), [[1], [2], [3], [4]], 2, first_group=5)
    assert scores[1:] == [[1, 1], [2, 2], [3, 3]] and scores[0][0] == 0 and math.isnan(scores[0][1])
    assert seen == {
        "prompts": list("ppqq"),
        "completions": [[{"role": "assistant", "content": text}] for text in "abcd"],
        "completion_ids": [[1], [2], [3], [4]],
        "reward_model": [{"ground_truth": "<a_2>"}] * 4,
        "user": [7] * 4,
        "group_index": [5, 5, 6, 6],
        "rank_in_group": [0, 1, 0, 1],
        "trainer_state": None,
    }


def test_a_completion_of_which_no_reward_says_anything_is_named(caplog):
    ask_rewards([lambda **columns: [1.0, None]], [{"prompt": "p"}] * 2, answer_chats("ab"), [[1], [2]], 2)
    assert "no reward says anything about sample 1 (completion 'b'" in caplog.text


def test_a_target_is_named_whatever_reward_model_holds(caplog):
    for held in ({"ground_truth": "x"}, "x"):
        caplog.clear()
        row = {"prompt": "p", "reward_model": held}
        ask_rewards([lambda **columns: [1.0, None]], [row] * 2, answer_chats("ab"), [[1], [2]], 2)
        assert "sample 1 (completion 'b', target 'x')" in caplog.text


def test_the_file_is_told_of_a_package_whose_name_begins_like_ours(tmp_path, monkeypatch):
    (tmp_path / "genrec_rewards.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(rewarding, "__file__", str(tmp_path / "genrec" / "rewarding.py"))
    with pytest.raises(UserError, match=r"genrec_rewards.py, line 1\): ZeroDivisionError"):
        load_reward("genrec_rewards:reward")


def test_sums_signal_and_advantages_by_hand():
    scores = torch.tensor([[[1.0, 1.0], [0.0, torch.nan]], [[2.0, 0.0], [0.0, 1.0]]])  # 2 groups of 2, 2 rewards
    sums = weighted_sums(scores, torch.tensor([1.0, 2.0]))
    assert sums.tolist() == [[3.0, 0.0], [2.0, 2.0]]
    assert without_signal(sums).tolist() == [False, True]
    spread = 4.5**0.5  # of 3 and 0
    torch.testing.assert_close(group_advantages(sums), torch.tensor([[1.5, -1.5], [0, 0]]) / (spread + 1e-4))
