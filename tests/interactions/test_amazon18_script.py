"""data/amazon18_data_process.sh: where it runs, which files it takes and what it says when there are none.

The script stands in a copy of the repository's folders. In place of `mimigenrec` it starts a program that prints its
arguments; tests/test_commands.py runs it with the real one.
"""

import json
import os
import shutil
import subprocess

import pytest

from tests.conftest import ROOT

TOYS = ("Toys_and_Games_5", "meta_Toys_and_Games")


@pytest.fixture
def repository(tmp_path):
    """The folders that the script knows, without any raw file."""
    top = tmp_path / "the repository"
    for name in ("data/amazon18_data_process.sh", "data/download_amazon18.sh", "examples/prepare/amazon18.yaml"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, top / name)
    return top


def put(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


@pytest.fixture
def process(repository, tmp_path):
    """process("Toys", cwd=..., RAW=...) -> what the script did; `process.calls` reads the commands in its output."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "mimigenrec").write_text('#!/bin/sh\nprintf "%s\\n" "CALL $PWD" "$@"\n')
    (programs / "mimigenrec").chmod(0o755)

    def run(*categories, cwd=repository, script=repository / "data" / "amazon18_data_process.sh", **variables):
        env = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", **{k: str(v) for k, v in variables.items()}}
        return subprocess.run(["bash", script, *categories], cwd=cwd, env=env, capture_output=True, text=True)

    return run


def calls(done):
    """Per started command: the flags with their values, paths as the file system knows them."""
    assert done.returncode == 0, done.stderr
    commands = []
    for text in done.stdout.split("CALL ")[1:]:
        folder, command, *words = text.splitlines()
        assert command == "prepare"
        joined = "\n".join(words)
        flags = {}
        for part in joined.split("--")[1:]:
            name, value = part.split("\n", 1)
            flags[name] = value.strip()
        flags["interactions"] = json.loads(flags["interactions"])
        for name in ("config", "output_dir"):
            flags[name] = os.path.normpath(os.path.join(folder, flags[name]))
        for name in ("interactions", "items"):
            [path] = flags["interactions"][name]
            flags["interactions"][name] = os.path.normpath(os.path.join(folder, path))
        commands.append(flags)
    return commands


@pytest.mark.parametrize("cwd", ["the repository", "the repository/data", "elsewhere"])
def test_it_runs_from_any_folder_and_does_the_same(process, repository, tmp_path, cwd):
    (tmp_path / "elsewhere").mkdir()
    put(repository / "data", *(f"{name}.json" for name in TOYS))
    script = "amazon18_data_process.sh" if cwd.endswith("data") else repository / "data" / "amazon18_data_process.sh"
    [flags] = calls(process("Toys_and_Games", cwd=tmp_path / cwd, script=script))
    assert flags["output_dir"] == str(repository / "data" / "Amazon18")  # where preprocess_data_sft_rl.sh looks
    assert flags["config"] == str(repository / "examples" / "prepare" / "amazon18.yaml")
    assert flags["category"] == "Toys_and_Games"
    assert flags["interactions"]["interactions"] == str(repository / "data" / "Toys_and_Games_5.json")
    assert flags["interactions"]["items"] == str(repository / "data" / "meta_Toys_and_Games.json")


@pytest.mark.parametrize("ending", ["json", "json.gz"])
@pytest.mark.parametrize("place", ["data", "data/amazon18", "RAW"])
def test_it_finds_either_form_in_each_folder(process, repository, tmp_path, place, ending):
    folder = tmp_path / "mine" if place == "RAW" else repository / place
    put(folder, *(f"{name}.{ending}" for name in TOYS))
    [flags] = calls(process("Toys_and_Games", **({"RAW": folder} if place == "RAW" else {})))
    assert flags["interactions"]["interactions"] == str(folder / f"Toys_and_Games_5.{ending}")
    assert flags["interactions"]["items"] == str(folder / f"meta_Toys_and_Games.{ending}")


def test_the_packed_form_the_first_folder_and_raw_alone_are_taken(process, repository, tmp_path):
    put(repository / "data", "Toys_and_Games_5.json", "Toys_and_Games_5.json.gz")
    put(repository / "data" / "amazon18", *(f"{name}.json.gz" for name in TOYS))
    [flags] = calls(process("Toys_and_Games"))
    assert flags["interactions"]["interactions"] == str(repository / "data" / "Toys_and_Games_5.json.gz")
    assert flags["interactions"]["items"] == str(repository / "data" / "amazon18" / "meta_Toys_and_Games.json.gz")
    put(tmp_path / "mine", "Toys_and_Games_5.json")
    done = process("Toys_and_Games", RAW=tmp_path / "mine")  # its metadata must not come from another folder
    assert done.returncode == 1 and "no meta_Toys_and_Games.json" in done.stderr and not done.stdout


def test_paths_that_the_user_gives_are_relative_to_the_users_folder(process, tmp_path):
    put(tmp_path / "elsewhere" / "raw", *(f"{name}.json" for name in TOYS))
    variables = {"RAW": "raw", "OUTPUT": "out", "CONFIG": "my.yaml"}
    [flags] = calls(process("Toys_and_Games", cwd=tmp_path / "elsewhere", **variables))
    assert flags["output_dir"] == str(tmp_path / "elsewhere" / "out")
    assert flags["config"] == str(tmp_path / "elsewhere" / "my.yaml")
    assert flags["interactions"]["interactions"] == str(tmp_path / "elsewhere" / "raw" / "Toys_and_Games_5.json")


def test_without_arguments_it_takes_every_category_that_is_there(process, repository):
    put(repository / "data", *(f"{name}.json" for name in TOYS))
    put(repository / "data" / "amazon18", *(f"{name}.json.gz" for name in (*TOYS, "Gift_Cards_5", "meta_Gift_Cards")))
    assert [flags["category"] for flags in calls(process())] == ["Gift_Cards", "Toys_and_Games"]


def test_windows_are_those_of_the_category_or_of_the_variables(process, repository):
    put(repository / "data", *(f"{name}.json" for name in (*TOYS, "Gift_Cards_5", "meta_Gift_Cards")))
    windows = [(f["interactions"]["since"], f["interactions"]["until"]) for f in calls(process())]
    assert windows == [("2016-10", "2018-11"), ("2017-02", "2018-11")]
    [flags] = calls(process("Gift_Cards", SINCE="2015", UNTIL="2016-05"))
    assert (flags["interactions"]["since"], flags["interactions"]["until"]) == ("2015", "2016-05")


def test_what_other_windows_made_is_replaced_only_when_told_to(process, repository):
    put(repository / "data", "Gift_Cards_5.json", "meta_Gift_Cards.json")
    assert [call.get("overwrite") for call in calls(process())] == [None]
    assert [call.get("overwrite") for call in calls(process(OVERWRITE=1))] == ["true"]


def test_a_missing_file_stops_before_any_category_and_says_where_it_looked(process, repository):
    put(repository / "data", *(f"{name}.json" for name in TOYS))
    done = process("Toys_and_Games", "Office_Products")
    assert done.returncode == 1 and not done.stdout
    for words in (
        "no Office_Products_5.json.gz and no Office_Products_5.json in",
        f"  {repository}/data\n  {repository}/data/amazon18\n",
        f"bash {repository}/data/download_amazon18.sh Office_Products",
    ):
        assert words in done.stderr


def test_an_empty_folder_is_named_with_the_command_that_fills_it(process, repository, tmp_path):
    done = process(RAW=tmp_path / "empty")
    assert done.returncode == 1 and f"json in\n  {tmp_path}/empty\nSet RAW" in done.stderr
    assert f"OUTPUT={tmp_path}/empty bash {repository}/data/download_amazon18.sh" in done.stderr
