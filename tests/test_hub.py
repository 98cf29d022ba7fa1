"""A folder, a name on the hub, or neither: asked of nobody but the file system and the hub's own rule."""

import pytest

from mimigenrec.errors import UserError
from mimigenrec.hub import is_folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    (tmp_path / "saves" / "sft").mkdir(parents=True)
    (tmp_path / "x.safetensors").write_bytes(b"")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["saves/sft", "./saves/sft", "saves"])
def test_a_folder_that_is_there(name):
    assert is_folder(name, "--model")


@pytest.mark.parametrize("name", ["gpt2", "Qwen/Qwen2.5-0.5B-Instruct", "other/sft"])
def test_a_name_that_the_hub_could_have(name):
    assert not is_folder(name, "--model")


@pytest.mark.parametrize(
    "name",
    [
        "saves/stf",
        "./gone",
        "../gone",
        "/gone/model",
        "~/gone",
        "a/b/c",
        "saves/sft/checkpoint-3",
        "x.safetensors",
    ],
)
def test_a_path_that_is_not_there_is_never_a_name(name):
    with pytest.raises(UserError, match=f"--model '{name}' is not a folder here.*; correct the path"):
        is_folder(name, "--model")


@pytest.mark.parametrize("name", ["a b", "Qwen/Qwen2.5 0.5B", "-gpt2", "x..y", "org/model.git"])
def test_what_is_neither_is_refused(name):
    with pytest.raises(UserError, match="neither a folder here nor a name on the Hugging Face hub"):
        is_folder(name, "--model")


def test_an_empty_name_is_refused():
    with pytest.raises(UserError, match="--model '' is not a folder here"):
        is_folder("", "--model")
