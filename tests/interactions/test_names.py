import pytest

from mimigenrec.cli import parse
from mimigenrec.errors import UserError
from mimigenrec.interactions.build import InteractionsConfig
from mimigenrec.interactions.names import check_category, is_id
from mimigenrec.interactions.table import Columns


@pytest.mark.parametrize("category", ["Toys_and_Games", "ml-1m", "Home & Kitchen", "v1.2+x", "書籍", "_x", "7"])
def test_categories(category):
    check_category(category)


@pytest.mark.parametrize(
    "category", ["", " ", "../../esc", "a/b", "a\\b", ".", "..", ".x", "-x", "a,b", "a ", "a\nb", "a\0"]
)
def test_no_categories(build, tmp_path, category):
    with pytest.raises(UserError, match="--category is .*it is the first part of file names"):
        build([tmp_path / "none"], category=category)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["a b", "007", " a", "\N{WOMAN}\N{ZERO WIDTH JOINER}\N{GIRL}", "\u05d0\u200f", "a\u00a0b"]
)
def test_ids(name):
    assert is_id(name) and len(f"{name}\t0".splitlines()) == 1


@pytest.mark.parametrize(
    "name", ["", " ", "\u3000", "a\tb", "a\r", "\x00", "a\x85", "a\u2028", "\ud800", None, 5, 1.5]
)
def test_no_ids(name):
    assert not is_id(name)


@pytest.mark.parametrize(
    "flag",
    ["user_k=-5", "item_k=-1", "max_title_words=-1", "history=-3", "max_bad_lines=-1", "seed=-1", "seed=4294967296"]
    + ["min_rating=nan"],
)
def test_numbers_out_of_their_range_are_refused_at_the_door(flag, capsys):
    needed = ["source=amazon", "interactions=x", "category=C", "output_dir=out"]
    with pytest.raises(SystemExit) as stopped:
        parse(InteractionsConfig, Columns, argv=["--source", "amazon", "--interactions", "x", *needed[2:], flag])
    assert stopped.value.code == 2 and f"--{flag.partition('=')[0]} is " in capsys.readouterr().err


def test_users_of_given_ids_hold_no_white_space(build, tmp_path):
    lines = [f"Captain {user}\t{item}\t5\t{1_500_000_000 + item}\n" for user in "ab" for item in range(4)]
    (tmp_path / "u.data").write_text("".join(lines))
    with pytest.raises(
        UserError, match="--ids given needs user ids without white space, found 'Captain a'. Use --ids new"
    ):
        build([tmp_path / "u.data"], source="movielens", split="leave_one_out", ids="given")
    out = build([tmp_path / "u.data"], source="movielens", split="leave_one_out")
    assert out.user2id == {"Captain a": "0", "Captain b": "1"}
