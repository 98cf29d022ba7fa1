"""The built wheel, installed without its dependencies in an empty folder: commands and shipped rewards are found.

Slow: installed with its dependencies in an empty environment, where the toy journey then runs.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    [wheel] = out.glob("mimigenrec-*.whl")
    return wheel


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory) -> Path:
    """A folder with the unpacked wheel, as pip would lay it out."""
    site = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    return site


def run(site: Path, where: Path, code: str) -> str:
    """Runs code in `where` with the wheel's package, not the checkout's."""
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(site)!r})\n{code}"]
    return subprocess.run(command, cwd=where, check=True, capture_output=True, text=True).stdout


def test_it_holds_the_package_and_the_rewards_and_nothing_else(wheel):
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"mimigenrec"}
    assert "mimigenrec/shipped_rewards/ranking_reward.py" in zipfile.ZipFile(wheel).namelist()


def test_commands_are_found_in_an_empty_folder(site, tmp_path):
    code = "from mimigenrec import cli\nprint(cli.__file__)\nsys.argv = ['mimigenrec', '--help']\ncli.main()"
    printed = run(site, tmp_path, code)
    assert printed.startswith(str(site)) and "preprocess" in printed and "recommend" in printed
    assert (site / "bin" / "mimigenrec").is_file()


def test_every_command_names_a_module_of_the_wheel(site, tmp_path):
    code = (
        "import importlib.util\nfrom mimigenrec.cli import COMMANDS\n"
        "print([name for name, (module, _) in COMMANDS.items() if importlib.util.find_spec(module) is None])"
    )
    assert run(site, tmp_path, code).strip() == "[]"


def test_shipped_rewards_are_found_and_a_local_file_wins(site, tmp_path):
    code = (
        "from mimigenrec.rewarding import load_rewards\n"
        "[reward] = load_rewards(['ranking_reward.rule_reward'])\n"
        "chat = [[{'role': 'assistant', 'content': '<a_1>'}]]\n"
        "print(reward(completions=chat, reward_model=[{'ground_truth': '<a_1>'}]))"
    )
    assert run(site, tmp_path, code).strip() == "[1.0]"
    (tmp_path / "rewards").mkdir()
    local = "def rule_reward(completions, **columns):\n    return [7.0] * len(completions)\n"
    (tmp_path / "rewards" / "ranking_reward.py").write_text(local)
    assert run(site, tmp_path, code).strip() == "[7.0]"


def source_copy(folder: Path) -> Path:
    """The files that git knows, as a user's download has them."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture
def empty(tmp_path):
    """The bin folder of a new environment, which goes with the test: it takes 7 GB once torch is in it."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    yield tmp_path / "venv" / "bin"
    shutil.rmtree(tmp_path / "venv")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "folder"])
def test_the_toy_journey_runs_in_an_empty_environment(kind, wheel, empty, tmp_path):
    """`pip install mimigenrec-*.whl` and `pip install .`, not editable, with the tested versions."""
    source = source_copy(tmp_path / "source")
    versions = ROOT / "constraints" / f"py{sys.version_info.major}{sys.version_info.minor}.txt"
    what = f"{wheel if kind == 'wheel' else source}[raw,sids]"
    pip = [empty / "python", "-m", "pip", "install", "--quiet", "-c", versions, what]
    done = subprocess.run(pip, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    shutil.rmtree(source / "mimigenrec")  # the installed package is all there is
    env = {**os.environ, "PATH": f"{empty}:{os.environ['PATH']}", "QUICK": "1", "ROOT": str(tmp_path / "out")}
    done = subprocess.run(["bash", "examples/tiny/run.sh"], cwd=source, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "out" / "results" / "tiny" / "rl" / "metrics.json").is_file()
