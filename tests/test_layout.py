"""The house's arrows: a room imports only rooms above it, and foreign insides are behind one door each."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mimigenrec"
ORDER = (
    "errors files schema lock logs manifest claim fit flags cli hub extras environment page svg stages protocols "
    "request_cache endpoint sharded items chat interactions vectors sids catalog sid_assign prepare contract "
    "sid_report checkpoint rewarding rendering tasks decoding evaluation report training web sft grpo baselines "
    "plots benchmark"
).split()
WINGS = ("control", "dialogue", "retrieval", "preference", "serving")
DOORS = {"openai": {"protocols"}, "google": {"protocols"}, "tenacity": {"endpoint"}}
DOORS |= {"llamafactory": {"sft", "rendering"}, "trl": {"training", "grpo", *WINGS}}
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    """files.py -> "files"; tasks/build.py -> "tasks"; __init__.py -> ""."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imported(path: Path) -> set[str]:
    """Dotted names of every import of a file, those inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}, line {node.lineno}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_rooms_above_it_and_only_its_own_framework(path):
    room = room_of(path)
    assert not room or room in ORDER or room in WINGS, f"{path} is in a room that neither ORDER nor WINGS names"
    if not room:  # the package's own names come from anywhere
        above = [*ORDER, *WINGS]
    elif room in WINGS:  # the whole spine, and no other wing
        above = [*ORDER, room]
    else:
        above = ORDER[: ORDER.index(room) + 1]
    for name in imported(path):
        top, _, rest = name.partition(".")
        if top == "mimigenrec" and rest:
            other = rest.partition(".")[0]
            assert other in above, f"{path} imports {name}, which is not above {room}"
        if top in DOORS:
            assert room in DOORS[top], f"{path} imports {name}; {top} is known in {sorted(DOORS[top])} alone"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_is_evaluated_or_unpickled(path):
    assert not {name.partition(".")[0] for name in imported(path)} & {"pickle", "marshal", "shelve", "dill"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("eval", "exec"), f"{path}, line {node.lineno}"


def test_rl_evaluation_and_serving_start_without_llamafactory():
    modules = "grpo.train grpo.preview evaluation.run evaluation.compare baselines.train decoding.recommend plots"
    hidden = "import sys, importlib\nsys.modules['llamafactory'] = None  # from here on, as if not installed\n"
    code = f"{hidden}for name in {modules.split()}: importlib.import_module(f'mimigenrec.{{name}}')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_folder_holds_what_its_name_says():
    rooms = {room_of(path) for path in FILES}
    assert not rooms & {"core", "common", "utils", "modules", "components"}
