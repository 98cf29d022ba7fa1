from types import SimpleNamespace

import pytest

from mimigenrec.grpo.load_reward import checked, load_reward, load_rewards

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
        "import math\n"
        "def steady(completions, value=0.5, **columns):\n    return [value] * len(completions)\n"
        "def short(completions, **columns):\n    return [1.0] * (len(completions) - 1)\n"
        "def nan(completions, **columns):\n    return [1.0, math.nan, 1.0]\n"
        "def text(completions, **columns):\n    return [1, '0.5', 1]\n"
        "def nothing(completions, **columns):\n    pass\n"
        "def none(completions, **columns):\n    return [1.0, None, 1.0]\n"
        "def raises(completions, **columns):\n"
        "    return [1 / (chat[0]['content'] != '<a_3>') for chat in completions]\n"
        "def pairs(completions, **columns):\n    return [1 / (3 - len(completions))] * len(completions)\n"
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
        ("short", "'short' at step 7 returned 2 scores for 3 completions.*sample 2"),
        ("nan", "'nan' at step 7 gave nan for sample 1 .*<a_2>"),
        ("text", "'text' at step 7 gave '0.5' for sample 1 .*finite number"),
        ("nothing", "'nothing' at step 7.*'NoneType' object is not iterable"),
        ("raises", "'raises' at step 7, sample 2 .*<a_3>.*ZeroDivisionError"),
        ("pairs", "'pairs' at step 7, no single sample, only all 3 together: ZeroDivisionError"),
    ],
)
def test_an_answer_that_cannot_be_used_names_reward_step_and_sample(mine, name, message):
    with pytest.raises(ValueError, match=message):
        checked(load_reward(f"mine.{name}"))(**ROWS)


def test_none_means_says_nothing(mine):
    assert checked(load_reward("mine.none"))(**ROWS) == [1.0, None, 1.0]
