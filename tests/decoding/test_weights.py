"""A folder that is no whole model is named, whichever way it is broken; a whole one loads as transformers loads it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mimigenrec.decoding.weights import check_complete, check_finite, load_causal_lm
from tests.conftest import make_model

WEIGHT = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """{"tied", "untied", "shards"}: folders of a small model."""
    root = tmp_path_factory.mktemp("models")
    make_model(320).save_pretrained(root / "tied")
    make_model(320, tie=False).save_pretrained(root / "untied")
    make_model(320).save_pretrained(root / "shards", max_shard_size="40KB")
    return {name: root / name for name in ("tied", "untied", "shards")}


@pytest.fixture
def broken(saved, tmp_path):
    """broken("tied") -> a copy to break."""
    return lambda name: shutil.copytree(saved[name], tmp_path / name)


def edit(folder: Path, change) -> None:
    """change: a function of the dict of tensors in model.safetensors."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("name", ["tied", "untied", "shards"])
def test_a_whole_model_loads_with_the_weights_that_were_saved(saved, name):
    expected = make_model(320, tie=name != "untied").state_dict()
    loaded = load_causal_lm(saved[name]).state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[key], expected[key]) for key in expected)


def test_a_tied_head_may_be_saved_under_either_name(broken):
    folder = broken("tied")
    edit(folder, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}))
    check_complete(folder)


def test_the_dtype_asked_for_is_the_one_loaded(saved):
    assert load_causal_lm(saved["tied"], dtype=torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("tied", lambda t: t.pop(WEIGHT), f"lack 1 of the weights that config.json asks for, {WEIGHT} first"),
        ("untied", lambda t: t.pop("lm_head.weight"), "lack 1 of the weights .*lm_head.weight first"),
        (
            "tied",
            lambda t: t.update({WEIGHT: torch.zeros(3, 3)}),
            f"1 of the weights in another shape .*{WEIGHT} first",
        ),
        ("tied", lambda t: t.update({"model.layers.7.x": torch.zeros(2)}), "does not have, model.layers.7.x first"),
    ],
)
def test_a_weight_that_is_missing_too_much_or_of_another_shape_is_named(broken, name, change, message, caplog):
    folder = broken(name)
    edit(folder, change)
    with pytest.raises(ValueError, match=message):
        load_causal_lm(folder)
    assert not caplog.records  # the error alone speaks


def test_a_model_of_fewer_layers_than_its_weights_is_refused(broken):
    folder = broken("tied")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1, "layer_types": None}))
    with pytest.raises(ValueError, match="the architecture in config.json does not have, model.layers.1"):
        load_causal_lm(folder)


def cut(path: Path, to: int) -> None:
    path.write_bytes(path.read_bytes()[:to])


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("tied", lambda f: cut(f / "model.safetensors", 5000), "model.safetensors is cut short or damaged"),
        ("tied", lambda f: cut(f / "model.safetensors", 0), "model.safetensors is cut short or damaged"),
        ("tied", lambda f: (f / "model.safetensors").unlink(), "holds no weights"),
        ("tied", lambda f: (f / "config.json").unlink(), "config.json is missing"),
        ("tied", lambda f: (f / "config.json").write_text("{"), "config.json is not JSON"),
        ("tied", lambda f: (f / "config.json").write_text("[]"), "config.json must hold a map"),
        ("tied", lambda f: (f / "config.json").write_text("{}"), "transformers cannot load .*model_type"),
        ("tied", lambda f: (f / "config.json").write_text('{"model_type": "vit"}'), "as a causal language model"),
        ("shards", lambda f: min(f.glob("model-*")).unlink(), "model-00001-of-.* is missing, which"),
        ("shards", lambda f: cut(max(f.glob("model-*")), 50), "model-0.* is cut short or damaged"),
        ("shards", lambda f: (f / "model.safetensors.index.json").write_text("{"), "index.json is not JSON"),
        (
            "shards",
            lambda f: (f / "model.safetensors.index.json").write_text("{}"),
            "weight_map is missing",
        ),
    ],
)
def test_a_file_that_is_missing_cut_or_no_model_is_named(broken, name, damage, message):
    folder = broken(name)
    damage(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_causal_lm(folder)


def test_a_folder_that_is_not_there_is_no_hub_name(tmp_path):
    with pytest.raises(ValueError, match="is not a folder here"):
        load_causal_lm(tmp_path / "nowhere")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_first_weight_that_is_not_finite_is_named(value, dtype):
    model = make_model(320).to(dtype)
    check_finite(model, "sft")
    model.model.layers[1].mlp.up_proj.weight.data[5, 3] = value
    model.model.norm.weight.data[0] = value
    with pytest.raises(ValueError, match=r"sft: 2 of \d+ weights hold NaN or infinity, model.layers.1.mlp.up_proj"):
        check_finite(model, "sft")


def test_a_saved_model_with_one_nan_is_not_loaded(broken):
    folder = broken("tied")
    edit(folder, lambda tensors: tensors[WEIGHT][0].fill_(torch.nan))
    with pytest.raises(ValueError, match=f"1 of .* hold NaN or infinity, {WEIGHT} first"):
        load_causal_lm(folder)
