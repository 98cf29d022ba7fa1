import pytest

from mimigenrec.sid_report import structure
from mimigenrec.sid_report.build import flatten
from mimigenrec.sid_report.verdicts import failed_gates, give_verdicts, judge, parse_gate, worst


def verdicts(sids, **sections):
    codes = structure.code_table(sids.values())
    details = {"levels": structure.level_figures(codes), "sids": structure.collision_figures(sids)} | sections
    return {verdict.name: verdict for verdict in give_verdicts(flatten(details))}


def grid(a, b, c, count):
    return {str(i): (f"<a_{i % a}>", f"<b_{i // a % b}>", f"<c_{i // a // b % c}>") for i in range(count)}


@pytest.mark.parametrize(
    ("value", "good", "bad", "state"),
    [
        (0.02, 0.02, 0.1, "good"),
        (0.03, 0.02, 0.1, "watch"),
        (0.11, 0.02, 0.1, "bad"),
        (3.0, 3, 1.5, "good"),
        (2.0, 3, 1.5, "watch"),
        (1.4, 3, 1.5, "bad"),
    ],
)
def test_a_limit_is_read_from_its_better_side(value, good, bad, state):
    assert judge(value, good, bad) == state


def test_a_full_even_tree_is_good_throughout():
    found = verdicts(grid(16, 4, 4, 256))
    assert worst(list(found.values())) == "good"
    assert found["Collisions"].value == "none" and found["Evenness of the first code"].value == "100%"
    assert found["Work of the last code"].value == "4.00 ways"


def test_collapsed_first_level_and_many_collisions_are_bad():
    skewed = {item: ("<a_0>" if int(item) % 10 else sid[0], *sid[1:]) for item, sid in grid(16, 4, 4, 256).items()}
    found = verdicts(skewed)
    assert found["Evenness of the first code"].state == found["Largest cell"].state == "bad"
    assert found["Collisions"].state == "bad"
    one = verdicts({"1": ("<a_0>", "<b_0>"), "2": ("<a_0>", "<b_1>")})
    assert one["Evenness of the first code"].state == "bad"


def test_a_last_code_that_decides_nothing_is_to_be_watched():
    found = verdicts({str(i): (f"<a_{i % 16}>", f"<b_{i // 16}>", f"<c_{i % 7}>") for i in range(256)})
    assert (
        found["Work of the last code"].state == "watch" and "almost nothing" in found["Work of the last code"].meaning
    )


@pytest.mark.parametrize(
    ("share", "lift", "state"), [(0.6, 20, "good"), (0.2, 8, "watch"), (0.9, 1.1, "bad"), (0.0, None, "bad")]
)
def test_neighbours_are_judged_against_chance_first(share, lift, state):
    near = {"levels": [{"level": 1, "share": share, "chance": 0.1, "lift": lift}], "k": 10}
    assert verdicts(grid(16, 4, 4, 256), neighbours=near)["Alike items, alike SIDs"].state == state


@pytest.mark.parametrize(
    ("split", "mangled", "state"), [(0, 0, "good"), (7, 0, "watch"), (2, 0, "bad"), (0, 3, "bad")]
)
def test_a_tokenizer_without_any_token_is_early_and_one_with_some_is_wrong(split, mangled, state):
    tokens = {"tokens": 7, "tokens_split": split, "sids_mangled": mangled}
    assert verdicts(grid(16, 4, 4, 256), tokens=tokens)["Tokenizer"].state == state


def test_a_change_of_sids_is_told_and_does_not_condemn_them():
    sids = grid(16, 4, 4, 256)
    moved = sids | {"0": sids["1"], "1": sids["0"]}
    assert verdicts(sids, churn=structure.churn_figures(sids, sids))["Change since the earlier index"].state == "good"
    found = verdicts(moved, churn=structure.churn_figures(sids, moved))["Change since the earlier index"]
    assert found.state == "watch" and "0.8% now have one that meant another item" in found.meaning


def test_gates_fail_where_their_condition_holds():
    gates = [parse_gate(text) for text in ("collisions>0.05", " level1.perplexity < 64", "items>=8", "items<=7")]
    failed = failed_gates(gates, {"collisions": 0.05, "level1.perplexity": 40.7, "items": 8})
    assert [gate.text for gate in failed] == ["level1.perplexity < 64", "items>=8"]


@pytest.mark.parametrize("text", ["collisions", "collisions=0.1", "collisions>", "collisions>5%", "x>1.2.3", ">1"])
def test_a_gate_that_cannot_be_read_is_refused(text):
    with pytest.raises(ValueError, match="--fail_on"):
        parse_gate(text)


def test_a_gate_on_a_figure_that_is_not_there_does_not_pass():
    with pytest.raises(ValueError, match="no figure 'colisions'.*did you mean collisions"):
        failed_gates([parse_gate("colisions>0.05")], {"collisions": 0.0})
    with pytest.raises(ValueError, match="need the file they are measured on"):
        failed_gates([parse_gate("category.lift<2")], {"category.lift": None})


def test_item_tokens_are_not_blamed_for_sharing_no_first_code():
    near = {"levels": [{"level": 1, "share": 0.0, "chance": 0.0, "lift": None}], "k": 10}
    own = verdicts({str(i): (f"<a_{i}>",) for i in range(100)}, neighbours=near)
    assert worst(list(own.values())) == "watch" and "--init vectors" in own["Alike items, alike SIDs"].meaning
    shared = verdicts({str(i): (f"<a_{i % 90}>",) for i in range(100)}, neighbours=near)
    assert shared["Alike items, alike SIDs"].state == "bad"
