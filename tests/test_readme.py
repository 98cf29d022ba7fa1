"""What the README and the pages of docs/ tell people to type exists and does what it says."""

import dataclasses
import importlib
import re

import pytest

from mimigenrec.cli import COMMANDS
from mimigenrec.flags import names_of
from mimigenrec.rewarding import load_rewards
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/README.md")])


def calls_of(text: str) -> list[tuple[str, str]]:
    """("evaluate", "--model M --k 10") of every call in shell blocks and in code within a line."""
    shell = re.sub(r"\\\n", " ", "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)))
    inline = "\n".join(re.findall(r"`(mimigenrec [^`]+)`", text))
    return re.findall(r"mimigenrec ([a-z-]+)([^\n`#;&|]*)", shell + "\n" + inline)


CALLS = [
    pytest.param(*call, id=f"{page.relative_to(ROOT)}-{call[0]}")
    for page in PAGES
    for call in calls_of(page.read_text())
]


def fields_of(command: str) -> set[str]:
    """All keys that a command's config dataclasses have."""
    module = importlib.import_module(COMMANDS[command][0])
    kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and dataclasses.is_dataclass(kind)]
    return {name for kind in kinds for field in dataclasses.fields(kind) for name in names_of(field)}


@pytest.mark.parametrize(("command", "rest"), CALLS)
def test_every_command_line_names_a_command_and_keys_that_it_has(command, rest):
    assert command in COMMANDS, f"there is no mimigenrec {command}"
    for flag in re.findall(r"--([a-z0-9_]+)", rest):
        assert flag in fields_of(command) | {"help", "config"}, f"mimigenrec {command} has no --{flag}"


def test_every_command_has_a_row_in_the_table():
    table = README[README.index("## Commands") : README.index("## What the stages write")]
    assert {command for command in COMMANDS if f"`{command}`" not in table} == set()


def test_every_file_it_points_to_is_there():
    for path in re.findall(r"`((?:docs|examples|rewards|data)/[\w./-]+\.\w+)`", README):
        assert (ROOT / path).is_file() or path.startswith("data/"), path
    for script in re.findall(r"bash (\w+\.sh)", README):
        assert (ROOT / script).is_file()


def test_the_ten_line_reward_works_as_shown(tmp_path, monkeypatch):
    [code] = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "def same_aisle" in block]
    (tmp_path / "rewards").mkdir()
    (tmp_path / "rewards" / "first_level.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    [reward] = load_rewards(["first_level.same_aisle"], {"first_level.same_aisle": {"weight": 0.2}})
    chats = [[{"role": "assistant", "content": text}] for text in ("<a_1><b_2>", "<a_2><b_2>", "")]
    assert reward(completions=chats, reward_model=[{"ground_truth": "<a_1><b_9>"}] * 3) == [0.2, 0.0, 0.0]
