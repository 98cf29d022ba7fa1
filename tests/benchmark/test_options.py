"""The user's options, from a map or a file, and the benchmark's over them."""

import pytest

from mimigenrec.benchmark.options import files_in, given, merged, reward_files
from tests.conftest import ROOT


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "sasrec.yaml"
    path.write_text("width: 64\nepochs: 200\noutput: results/sasrec\n")
    return str(path)


def test_a_map_a_file_and_a_file_with_keys_over_it():
    assert given("sft", {"epochs": 1}) == {"epochs": 1}
    assert given("sft", None) == {}


def test_keys_of_the_map_win_over_those_of_the_file(file):
    assert given("baselines: sasrec", file) == {"width": 64, "epochs": 200, "output": "results/sasrec"}
    assert given("baselines: sasrec", {"config": file, "epochs": 3})["epochs"] == 3


def test_of_several_files_the_later_wins_and_the_map_wins_over_all(file, tmp_path):
    wide = tmp_path / "wide.yaml"
    wide.write_text("width: 128\nloss: bce\n")
    options = given("baselines: sasrec", {"config": [file, str(wide)], "epochs": 3})
    assert options == {"width": 128, "loss": "bce", "epochs": 3, "output": "results/sasrec"}
    assert given("baselines: sasrec", {"config": [str(wide), file]})["width"] == 64


def test_ours_wins_over_the_file_and_none_is_left_out(file, tmp_path):
    options = merged("baselines: sasrec", {"config": file, "width": None}, {"output": tmp_path / "x", "seed": None})
    assert options == {"epochs": 200, "output": str(tmp_path / "x")}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("seed", "seeds, at the top"),
        ("k", "evaluate: {k: ...}"),
        ("output_dir", "hand each other their folders"),
        ("overwrite", "changed: rerun"),
    ],
)
def test_what_the_benchmark_sets_is_refused_in_a_map_with_the_reason(name, why):
    with pytest.raises(ValueError, match=f"sft: '{name}' is set by the benchmark") as refused:
        merged("sft", {name: 7}, {name: 8})
    assert why in str(refused.value)


def test_what_is_no_map_and_no_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="grpo: none.yaml is missing"):
        given("grpo", "none.yaml")
    with pytest.raises(FileNotFoundError, match="sft: none.yaml is missing"):
        given("sft", {"config": [str(ROOT / "examples" / "tiny" / "sft.yaml"), "none.yaml"]})
    with pytest.raises(ValueError, match=r"sft: config names \{'lr': 1\}; it takes a YAML file or a list of them"):
        given("sft", {"config": [{"lr": 1}]})
    with pytest.raises(ValueError, match=r"baselines: markov: found 3; it takes a map"):
        given("baselines: markov", 3)
    (tmp_path / "list.yaml").write_text("[1, 2]")
    with pytest.raises(ValueError, match="holds list, not a map"):
        given("grpo", str(tmp_path / "list.yaml"))
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(ValueError, match="is not YAML"):
        given("grpo", str(tmp_path / "bad.yaml"))


def test_files_that_options_name_are_found_wherever_they_stand(tmp_path):
    (tmp_path / "ds.json").write_text("{}")
    named = str(tmp_path / "ds.json")
    assert (
        files_in({"deepspeed": named, "x": [{"y": named}], "z": 3, "none": "no.json"}) == (tmp_path / "ds.json",) * 2
    )


def test_the_files_of_rewards_are_found_once_each_and_those_here_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rewards").mkdir()
    own = tmp_path / "rewards" / "ranking_reward.py"
    own.write_text("")
    assert reward_files(["ranking_reward.rule_reward", "ranking_reward.ndcg", "pkg.mod:function"]) == [own]


def test_a_file_with_a_key_twice_or_in_latin_1_is_named(tmp_path):
    for content, said in (
        (b"epochs: 1\nepochs: 2\n", "'epochs' is given twice"),
        (b"note: \xe9\n", "line 1: not UTF-8"),
    ):
        (tmp_path / "x.yaml").write_bytes(content)
        with pytest.raises(ValueError, match=f"x.yaml.*{said}"):
            given("grpo", str(tmp_path / "x.yaml"))
