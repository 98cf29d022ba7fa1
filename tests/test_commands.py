"""The commands that the document of MIMIGenRec prints, as people type them, on toy data in a copy of the repository.

A stage has the document's line, ours, and the files that ours must leave. Each stage reads what the stages before it
wrote. Where another test already runs a line, the stage names that test instead.
"""

import gzip
import os
import shutil
import subprocess
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple

import pytest

from mimigenrec.checkpoint import copy_companions
from mimigenrec.files import read_json
from mimigenrec.tasks.title_history import NAME as TASK4
from tests.conftest import ROOT, make_model, make_tokenizer

C = "Industrial_and_Scientific"
RAW, DATA = f"data/Amazon18/{C}/{C}", f"data/{C}"
VERSIONS = """import sys
for p in ['torch', 'transformers', 'trl', 'accelerate', 'peft', 'datasets']:
    try:
        m = __import__(p); print(p, getattr(m, '__version__', '?'))
    except Exception as e: print(p, 'not installed')
print('python', sys.version.split()[0])
"""


class Stage(NamedTuple):
    document: str
    ours: str = ""  # run by a shell in the root of the copy
    writes: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()  # they run what `ours` does not; paths below tests/


STAGES = {
    "install": Stage("pip install -e .", tests=("test_wheel.py::test_commands_are_found_in_an_empty_folder",)),
    "environment": Stage(
        f"python -c {VERSIONS!r}",
        "mimigenrec env",
        tests=("test_commands.py::test_the_snippet_prints_the_versions_of_installed_packages",),
    ),
    "download": Stage(
        "cd data; wget C_5.json.gz meta_C.json.gz; gunzip",
        tests=(
            "interactions/test_download.py::test_files_arrive_whole_with_their_checksums_and_are_not_fetched_twice",
        ),
    ),
    "filter": Stage(
        "bash amazon18_data_process.sh",
        "cd data && bash amazon18_data_process.sh",
        tuple(
            f"{RAW}.{kind}"
            for kind in "item2id user2id review.json item.json inter.json train.inter valid.inter test.inter".split()
        ),
        ("interactions/test_amazon18_script.py::test_it_runs_from_any_folder_and_does_the_same",),
    ),
    "embeddings": Stage(
        "bash rq/text2emb/amazon_text2emb.sh",
        f"mimigenrec embed --items {RAW}.item.json --output {RAW}.emb-qwen-td.npy",
        (f"{RAW}.emb-qwen-td.npy",),
        ("vectors/test_embed.py::test_a_hugging_face_encoder_gives_what_each_text_gives_alone",),
    ),
    "SIDs": Stage(
        "bash rq/rqvae.sh; bash rq/generate_indices.sh",
        f"mimigenrec quantise --items {RAW}.item.json --vectors {RAW}.emb-qwen-td.npy --output {RAW}.index.json "
        "--method rqkmeans --sizes 16 16 16 --overwrite",  # in place of the index that the line above made
        (f"{RAW}.index.json",),
        ("sids/test_quantise.py::test_every_method_writes_an_index_codebooks_and_a_manifest",),
    ),
    "preprocess": Stage(
        "bash preprocess_data_sft_rl.sh",
        f"DATA_DIR=data/Amazon18 CATEGORY={C} OUTPUT_DIR={DATA} TASK4_SAMPLE=20 SEED=7 bash preprocess_data_sft_rl.sh",
        tuple(
            f"{DATA}/{name}"
            for name in (
                "new_tokens.json",
                "id2sid.json",
                *(f"{kind}/{split}.json" for kind in ("sft", "rl") for split in ("train", "valid", "test")),
            )
        ),
        ("tasks/test_script.py::test_bare_it_reads_and_writes_where_the_document_does",),
    ),
    "SFT": Stage(
        "bash sft.sh; llamafactory-cli train x.yaml",
        tests=(
            "examples/test_recipes.py::test_sft_sh_prepares_and_trains",
            "examples/test_stock.py::test_a_recipe_trains_two_steps_under_the_stock_program",
            "sft/test_train.py::test_one_command_from_a_plain_model_and_the_stock_program_train_the_same",
        ),
    ),
    "RL": Stage(
        "bash trl_trainer.sh",
        tests=(
            "test_journey.py::test_every_result_has_metrics_pictures_and_a_manifest",
            "grpo/test_launch.py::test_the_variables_reach_the_command",
            "grpo/test_train.py::test_the_rl_folder_itself_and_files_of_others_will_do",
        ),
    ),
    "evaluate": Stage(
        "bash evaluate.sh",
        f"exp_name=saves/sft test_data_path={DATA}/sft/test.json output_dir=results/toy bash evaluate.sh --limit 4",
        ("results/toy/final_result.json", "results/toy/metrics.json", "results/toy/metrics.tsv"),
        ("evaluation/test_script.py::test_a_name_may_be_edited_within_the_script",),
    ),
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """A copy of what people start, with the raw files of a toy shop unpacked in data/, as the document has them."""
    top = tmp_path_factory.mktemp("repository")
    for path in (*ROOT.glob("*.sh"), *ROOT.glob("data/*.sh"), ROOT / "preprocess_data_sft_rl.py"):
        copy = top / path.relative_to(ROOT)
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(path, copy)
    recipe = (ROOT / "examples" / "prepare" / "amazon18.yaml").read_text()
    assert "[256, 256, 256]" in recipe
    (top / "examples" / "prepare").mkdir(parents=True)
    smaller = recipe.replace("[256, 256, 256]", "[16, 16, 16]")  # the toy shop has fewer than 256 items
    (top / "examples" / "prepare" / "amazon18.yaml").write_text(smaller)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "examples" / "tiny")
        import make_toy
    make_toy.main(make_toy.ToyConfig(top / "shop", users=200))
    for packed, name in (("toy_5.json.gz", f"{C}_5.json"), ("meta_toy.json.gz", f"meta_{C}.json")):
        (top / "data" / name).write_bytes(gzip.decompress((top / "shop" / packed).read_bytes()))
    return top


@pytest.fixture(scope="module")
def reach(repository, warm_path):
    """reach(name) runs the stages up to that one, each only once."""
    done = set()

    def up_to(name):
        for stage in list(STAGES)[: list(STAGES).index(name) + 1]:
            if stage in done or not STAGES[stage].ours:
                continue
            if stage == "evaluate":  # what SFT leaves, which other tests run
                save_checkpoint(repository / "saves" / "sft", repository / DATA)
            run = subprocess.run(
                ["bash", "-c", STAGES[stage].ours],
                cwd=repository,
                env={**os.environ, "PATH": warm_path, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
            )
            assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
            done.add(stage)

    return up_to


def save_checkpoint(folder: Path, data: Path) -> None:
    """A random model that knows the SIDs of a data folder, complete as `mimigenrec sft` leaves it."""
    tokenizer = make_tokenizer(sid_tokens=read_json(data / "new_tokens.json", made_by="preprocessing"))
    make_model(len(tokenizer), eos_token_id=tokenizer.eos_token_id, pad_token_id=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    copy_companions(data, folder)


@pytest.mark.parametrize("name", [name for name, stage in STAGES.items() if stage.ours])
def test_a_line_of_the_document_does_its_job(name, repository, reach):
    reach(name)
    missing = [path for path in STAGES[name].writes if not (repository / path).is_file()]
    assert not missing


@pytest.mark.parametrize(("name", "test"), [(name, test) for name, stage in STAGES.items() for test in stage.tests])
def test_the_test_that_a_stage_names_is_there(name, test):
    file, function = test.split("::")
    assert f"\ndef {function}(" in (ROOT / "tests" / file).read_text()


def test_every_stage_is_run_or_names_a_test():
    assert all(stage.ours or stage.tests for stage in STAGES.values())


def test_the_snippet_prints_the_versions_of_installed_packages(capsys):
    exec(VERSIONS)  # in this process, where most of the packages are imported already
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 7 and "not installed" not in printed and "?" not in printed


def test_the_five_variables_of_preprocessing_take_effect(repository, reach):
    reach("preprocess")
    manifest = read_json(repository / DATA / "manifest.json", made_by="preprocessing")
    assert manifest["counts"]["samples"]["rl/train.json"][TASK4] == 20
    assert manifest["config"]["seed"] == 7
    assert manifest["config"]["raw"] == "data/Amazon18" and manifest["config"]["output_dir"] == DATA


def test_evaluation_asks_the_rows_of_the_test_file(repository, reach):
    reach("evaluate")
    metrics = read_json(repository / "results" / "toy" / "metrics.json", made_by="evaluate")
    rows = read_json(repository / DATA / "sft" / "test.json", made_by="preprocessing")
    assert metrics["n_rows"] == 4 < len(rows)
    ranked = read_json(repository / "results" / "toy" / "final_result.json", made_by="evaluate")
    assert [row["target_sid"] for row in ranked] == [row["output"] for row in rows[:4]]


def test_both_programs_of_llamafactory_are_installed():
    programs = {entry.name: entry.value for entry in entry_points(group="console_scripts")}
    assert programs["llamafactory-cli"] == programs["lmf"] == "llamafactory.cli:main"
