"""Remedies for groups without signal, on groups whose rewards are known without a model."""

import math
from types import SimpleNamespace

import pytest
import torch

from mimigenrec.grpo.groups import Group, masked, resampled, visible
from mimigenrec.grpo.remedies import add_target, spread, used, with_hints, with_remedies

EOS = 9


def group(name, wakes_at=None, levels=3, **facts):
    """A row whose group has a signal with at least wakes_at tokens given; None: never."""
    target = [*range(1, levels + 1), EOS]
    row = {"name": name, "wakes_at": wakes_at, "levels": levels}
    return Group(row, [0], [[5, EOS], [6, EOS]], target=target, **facts)


class Policy:
    """roll and score for such rows; asked: how many groups each call was given, with how many tokens."""

    def __init__(self):
        self.rolled, self.scored = [], []

    def roll(self, rows, hint=0):
        self.rolled.append((len(rows), hint))
        return [group(row["name"], row["wakes_at"], row["levels"], hint=hint) for row in rows]

    def score(self, groups):
        self.scored.append(len(groups))
        for one in groups:
            wakes_at = one.row["wakes_at"]
            one.silent = not one.added and (wakes_at is None or one.hint < wakes_at)
            one.scores = torch.tensor([[0.0], [0.0 if one.silent else 1.0]])


def options(**on):
    return SimpleNamespace(**({"add_target": False, "hints": False, "dynamic_sampling_rounds": 0} | on))


def helped(groups, others=(), levels=3, **on):
    rows = [{"name": name, "wakes_at": wakes_at, "levels": 3} for name, wakes_at in others]
    return with_signal(groups, options(**on), rows, levels, lambda n: n)


def with_signal(groups, args, rows, levels, largest):
    """As BeamGRPOTrainer does it."""
    policy = Policy()

    def remedied(groups):
        return with_remedies(groups, args, levels, policy.roll, policy.score)

    def fresh(rows):
        return remedied(policy.roll(rows))

    found, rounds = resampled(remedied(groups), fresh, rows, args.dynamic_sampling_rounds, largest)
    return found, rounds, policy


def test_the_target_takes_the_last_place_of_a_group_that_misses_it_and_only_there():
    miss, hit = group("miss"), group("hit")
    hit.rollouts = [[1, 2, 3, EOS], [6, EOS]]
    shared = miss.rollouts
    add_target([miss, hit])
    assert miss.rollouts == [[5, EOS], [1, 2, 3, EOS]] and miss.added
    assert hit.rollouts == [[1, 2, 3, EOS], [6, EOS]] and not hit.added
    assert shared == [[5, EOS], [6, EOS]]  # another holder of the list keeps what was rolled out


def test_each_group_gets_the_shortest_hint_that_gives_a_signal():
    groups = [group("none", 0), group("one", 1), group("two", 2), group("three", 3), group("never")]
    found, _, policy = helped(groups, hints=True)
    assert [one.hint for one in found] == [0, 1, 2, 0, 0]
    assert [one.silent for one in found] == [False, False, False, True, True]
    assert policy.rolled == [(4, 1), (3, 2)]  # never the whole target


def test_a_short_sid_is_never_given_whole():
    found, _, policy = helped([group("short", 1, levels=1), group("two", 2, levels=2)], hints=True)
    assert [one.hint for one in found] == [0, 0] and policy.rolled == [(1, 1), (0, 2)]


def test_roll_and_score_are_called_as_often_with_nothing_to_do():
    """Processes meet there: one with silent groups must not wait for one without."""
    calls = []
    for groups in ([group("fine", 0)], [group("silent")]):
        policy = Policy()
        policy.score(groups)
        with_hints(groups, 4, policy.roll, policy.score)
        calls.append((len(policy.rolled), len(policy.scored)))
    assert calls[0] == calls[1]


def test_silent_groups_give_way_to_prompts_with_signal_in_their_places():
    groups = [group("a", 0), group("b"), group("c", 0), group("d")]
    others = [("x", None), ("y", 0), ("z", 0), ("w", 0)]
    found, rounds, policy = helped(groups, others, dynamic_sampling_rounds=5)
    assert [one.row["name"] for one in found] == ["a", "y", "c", "z"] and not any(one.silent for one in found)
    assert [one.drawn for one in found] == [False, True, False, True]
    assert rounds == 2 and policy.rolled == [(2, 0), (1, 0)]  # the first round draws x and y, the second z


def test_rounds_are_bounded_and_what_stays_silent_stays_itself():
    found, rounds, _ = helped(
        [group("a"), group("b")], [(str(i), None) for i in range(100)], dynamic_sampling_rounds=3
    )
    assert [one.row["name"] for one in found] == ["a", "b"] and rounds == 3 and not any(one.drawn for one in found)


def test_a_pool_that_runs_out_ends_the_sampling_in_peace():
    found, _, policy = helped([group("a"), group("b")], [("x", 0)], dynamic_sampling_rounds=4)
    assert [one.row["name"] for one in found] == ["x", "b"]
    assert [n for n, _ in policy.rolled] == [1, 0, 0, 0]


def test_another_process_that_is_silent_keeps_this_one_in_the_rounds():
    groups = [group("fine", 0)]
    _, rounds, policy = with_signal(groups, options(dynamic_sampling_rounds=2), [], 3, lambda n: 1)
    assert rounds == 2 and policy.scored == [1, 0, 0]


def test_hints_come_before_other_prompts_and_serve_them_too():
    found, _, _ = helped(
        [group("hard", 2), group("never")], [("x", None), ("y", 1)], hints=True, dynamic_sampling_rounds=2
    )
    assert [(one.row["name"], one.hint, one.drawn) for one in found] == [("hard", 2, False), ("y", 1, True)]


def test_an_added_target_leaves_nothing_to_replace():
    found, rounds, _ = helped([group("a"), group("b")], [("x", 0)], add_target=True, dynamic_sampling_rounds=2)
    assert rounds == 0 and all(one.added for one in found)


def test_without_remedies_nothing_is_rolled_or_scored():
    groups = [group("a"), group("b")]
    found, rounds, policy = helped(groups)
    assert found == groups and rounds == 0 and policy.rolled == policy.scored == []
    assert all(one.scores is None for one in found)
    helped(groups, add_target=True)
    assert all(one.scores is None for one in groups)  # the target needs no rewards to be missed


def test_spread_by_hand():
    class Trie:
        token = torch.zeros(1)

        def find(self, sids):
            return [sum(sid) for sid in sids]

    one = group("a")
    one.rollouts = [[1, 2, EOS], [1, 3, EOS], [1, 2, EOS], [4, 4, EOS]]
    found = spread([one], Trie(), lambda x: x)
    assert found["level1_entropy"] == pytest.approx(0.75 * math.log(4 / 3) + 0.25 * math.log(4))
    assert found["distinct_sids_share"] == 0.75
    twice = spread([one], Trie(), lambda x: torch.cat([x, x]))  # a second process with the same rollouts
    assert twice["level1_entropy"] == pytest.approx(found["level1_entropy"]) and twice["distinct_sids_share"] == 0.375
    one.rollouts = [[1, EOS]] * 4
    assert spread([one], Trie(), lambda x: x) == {"level1_entropy": 0.0, "distinct_sids_share": 0.25}


def test_remedies_are_counted_by_hand():
    groups = [group("a", hint=1), group("b", hint=2, drawn=True), group("c"), group("d", drawn=True)]
    on = options(hints=True)
    assert used(groups, on, "cpu", lambda x: x) == {"hinted_share": 0.5, "hint_length": 1.5}
    assert used([group("a", added=True), group("b")], options(add_target=True), "cpu", lambda x: x) == {
        "added_target_share": 0.5
    }
    assert "hint_length" not in used([group("a")], on, "cpu", lambda x: x)
    assert used(groups, options(), "cpu", lambda x: x) == {}


def test_given_tokens_are_masked_and_not_counted():
    groups = [group("a", own=[[False, True, True, True], [False, True, True]]), group("b")]  # two rollouts each
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]] * 2)
    old = torch.full((4, 4), -3.0)
    output = {"completion_mask": mask, "old_per_token_logps": old, "num_items_in_batch": torch.tensor(14), "x": 1}
    hidden = masked(output, groups, lambda x: x)
    assert hidden["completion_mask"].tolist() == [[0, 1, 1, 1], [0, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 0]]
    assert hidden["old_per_token_logps"][:2, 0].tolist() == [0, 0] and (hidden["old_per_token_logps"][2:] == -3).all()
    assert hidden["num_items_in_batch"] == 12 and hidden["x"] == 1 and "ref_per_token_logps" not in hidden


def test_a_token_without_a_loss_is_seen_by_what_follows_it_and_padding_by_nobody():
    mask = torch.tensor([[0, 1, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]])
    assert visible(mask).tolist() == [[1, 1, 1, 1, 1, 0], [0] * 6, [1] * 6]
