import pytest
import torch

from mimigenrec.cli import parse
from mimigenrec.contract import Contract
from mimigenrec.grpo.preview import PreviewConfig, main
from mimigenrec.rewarding import group_advantages
from mimigenrec.sids.tokens import write_index


def preview(sft, rl_data, *options):
    argv = ["--model", str(sft), "--data", str(rl_data), "--num_generations", "7", *options]
    main(*parse(PreviewConfig, argv=argv))


def test_it_prints_every_rollout_of_every_group(sft, rl_data, capsys):
    rewards = ["--rewards", "ranking_reward.rule_reward", "ranking_reward.ndcg_rule_reward"]
    preview(sft, rl_data, *rewards, "--groups", "3", "--reward_weights", "1", "2")
    text = capsys.readouterr().out
    assert text.count("target <") == 3 and text.count("\n* ") == 3  # seven beams are the whole catalogue: all hit
    assert "groups 3   without signal 0 (0%)   with the target 3" in text
    assert "rule_reward  ndcg_rule_reward" in text


def test_its_advantages_are_those_of_the_trainer(sft, rl_data, make_trainer):
    scores = []

    def spy(completions, rank_in_group, **columns):
        scores.append([float(rank == 1) for rank in rank_in_group])
        return scores[-1]

    trainer = make_trainer([spy], max_steps=1)
    trainer.train()
    ours = group_advantages(torch.tensor(scores[0]).view(-1, 4)).flatten()
    torch.testing.assert_close(ours, torch.tensor(list(trainer._logs["advantages"])))


def test_a_group_without_signal_is_told(sft, rl_data, capsys, tmp_path, monkeypatch):
    (tmp_path / "rewards").mkdir()
    (tmp_path / "rewards" / "flat.py").write_text(
        "def one(completions, **columns):\n    return [1.0] * len(completions)\n"
    )
    monkeypatch.chdir(tmp_path)
    preview(sft, rl_data, "--rewards", "flat.one", "--groups", "2", "--rollout", "sample")
    assert "without signal 2 (100%)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options, message",
    [
        (["--num_generations", "8"], "num_generations=8 .* the catalogue has 7"),
        (["--reward_weights", "1", "2"], "2 numbers for 1 rewards"),
    ],
)
def test_settings_that_cannot_work_are_refused(sft, rl_data, options, message):
    with pytest.raises(ValueError, match=message):
        preview(sft, rl_data, "--rewards", "ranking_reward.rule_reward", *options)


def test_another_catalogue_or_wording_is_refused_as_in_training(sft, rl_data, toy, tmp_path):
    one = ["--rewards", "ranking_reward.rule_reward"]
    write_index(tmp_path / "id2sid.json", {**toy.sids, "0": toy.sids["1"]})
    with pytest.raises(ValueError, match="another catalogue.*item '0'"):
        preview(sft, rl_data, *one, "--index", str(tmp_path / "id2sid.json"))
    (tmp_path / "rl").mkdir()
    (tmp_path / "rl" / "train.json").write_bytes((rl_data / "rl" / "train.json").read_bytes())
    write_index(tmp_path / "id2sid.json", toy.sids)
    Contract.of("classic").write(tmp_path)
    with pytest.raises(ValueError, match="contracts differ"):
        preview(sft, tmp_path, *one)
