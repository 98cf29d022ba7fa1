import json
import shutil
import sys
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

from mimigenrec.cli import parse
from mimigenrec.logs import read_jsonl
from mimigenrec.sids.quantise import QuantiseConfig, main, name_prefix
from mimigenrec.sids.quantiser import Codebooks, assign
from mimigenrec.sids.tokens import codes_to_sids, read_index, sid_to_codes
from mimigenrec.sids.training import Training
from mimigenrec.vectors.store import write_vectors
from tests.vectors.conftest import items_file

SHORT = Training(epochs=3, hidden=[8], latent=4, device="cpu")


@pytest.fixture
def vectors(tmp_path):
    path = tmp_path / "C.emb-x.npy"
    rng = np.random.default_rng(0)
    values = np.repeat(rng.normal(size=(12, 6)), 2, axis=0).astype(np.float32)  # two items of each vector
    write_vectors(path, values, [str(i) for i in range(24)], model="x", normalised=False)
    return path


def run(shop, vectors, **settings):
    output = settings.pop("output", shop.with_name("C.index.json"))
    main(
        QuantiseConfig(
            items=shop, vectors=vectors, output=output, **{"method": "rqkmeans", "sizes": [4, 4], **settings}
        ),
        SHORT,
    )
    return read_index(output), json.loads(output.with_suffix(".manifest.json").read_text())


@pytest.mark.parametrize("method", ["rqkmeans", "rqkmeans_constrained", "rqkmeans_plus", "rqvae", "opq"])
def test_every_method_writes_an_index_codebooks_and_a_manifest(method, shop, vectors):
    sids, manifest = run(shop, vectors, method=method)
    assert list(sids) == [str(i) for i in range(24)] and {len(sid) for sid in sids.values()} == {2}
    codebooks = Codebooks.load(shop.with_name(f"C.codebooks-{method}.safetensors"))
    codes = np.array([sid_to_codes(sid) for sid in sids.values()])
    assert manifest["same_as_assign"] == (assign(codebooks, np.load(vectors)) == codes).all(1).mean()
    assert manifest["after"] == manifest["before"] and manifest["before"]["largest"] >= 1
    assert codebooks.method == method and codebooks.about["model"] == "x"
    curve = shop.with_name(f"C.curve-{method}.jsonl")
    assert len(read_jsonl(curve)) == 3 if method in ("rqvae", "rqkmeans_plus") else not curve.exists()
    assert not list(shop.parent.glob("*training*")) and not list(shop.parent.glob(".*"))


def test_the_same_command_writes_the_same_files(shop, vectors):
    files = ("C.index.json", "C.codebooks-rqkmeans.safetensors")
    contents = []
    for _ in range(2):
        run(shop, vectors, sizes=[4, 8], collisions="reassign", overwrite=True)
        contents.append([shop.with_name(name).read_bytes() for name in files])
    assert contents[0] == contents[1]


def kept(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("method", ["rqkmeans", "rqvae"])
def test_a_finished_run_does_nothing_and_another_one_replaces_it_only_when_told_to(method, shop, vectors, capsys):
    run(shop, vectors, method=method)
    before = kept(shop.parent)
    capsys.readouterr()
    run(shop, vectors, method=method)
    assert "C.index.json is finished: nothing to do; --overwrite starts anew" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"C.index.json holds a run with other .*seed: 42 then, 7 now.*--overwrite"):
        run(shop, vectors, method=method, seed=7)
    config = QuantiseConfig(items=shop, vectors=vectors, output=shop.with_name("C.index.json"), method=method)
    config.sizes = [4, 4]
    with pytest.raises(ValueError, match="epochs: 3 then, 4 now") if method == "rqvae" else nullcontext():
        main(config, replace(SHORT, epochs=4, device="auto"))  # rqkmeans trains nothing
    assert kept(shop.parent) == before
    run(shop, vectors, method=method, seed=7, overwrite=True)
    assert kept(shop.parent)["C.index.json"] != before["C.index.json"]


def test_vectors_that_were_made_again_are_other_data(shop, vectors):
    run(shop, vectors)
    write_vectors(vectors, np.load(vectors) + 1, [str(i) for i in range(24)], model="x", normalised=False)
    with pytest.raises(ValueError, match="C.emb-x.npy: .* then, .* now"):
        run(shop, vectors)


def test_a_run_killed_behind_any_of_its_files_goes_on(shop, vectors):
    wanted = run(shop, vectors)
    for missing in (["C.index.json"], ["C.index.json", "C.index.manifest.json"]):  # written in the other order
        for name in missing:
            shop.with_name(name).unlink()
        assert run(shop, vectors)[0] == wanted[0]


def test_codebooks_of_another_index_stay(shop, vectors):
    """Two indexes of one method would share the codebooks' file, and new items would get SIDs of the other."""
    run(shop, vectors)
    before = kept(shop.parent)
    with pytest.raises(ValueError, match="C.codebooks-rqkmeans.safetensors holds a run with other .*seed"):
        run(shop, vectors, output=shop.with_name("C.index-other.json"), seed=7)
    assert kept(shop.parent) == before


def test_an_index_that_the_command_did_not_write_stays(shop, vectors):
    shop.with_name("C.index.json").write_text('{"0": ["<a_0>"]}')
    with pytest.raises(ValueError, match="C.index.json is there already, and nothing says that this command wrote it"):
        run(shop, vectors)
    assert shop.with_name("C.index.json").read_text() == '{"0": ["<a_0>"]}'


def test_sids_that_cannot_be_stop_before_anything_is_trained(shop, vectors, monkeypatch):
    monkeypatch.setattr("mimigenrec.sids.rqkmeans.fit", None)
    with pytest.raises(ValueError, match="extra adds a level to 8"):
        run(shop, vectors, sizes=[2] * 8, collisions="extra", method="rqvae")
    with pytest.raises(ValueError, match=r"24 items cannot have SIDs of their own with sizes \[4, 5\]"):
        run(shop, vectors, sizes=[4, 5], collisions="reassign", method="rqvae")
    with pytest.raises(ValueError, match="23 items cannot"):
        run(shop, vectors, sizes=[2, 11], collisions="reassign", merge_same_text=True, method="rqvae")


def test_one_vector_for_all_items_is_refused(shop, tmp_path):
    np.save(tmp_path / "one.npy", np.ones((24, 3)))
    with pytest.raises(ValueError, match="one and the same vector for all 24 items"):
        run(shop, tmp_path / "one.npy")


def test_codebooks_that_are_not_finite_write_nothing(shop, vectors, monkeypatch):
    from mimigenrec.sids import rqkmeans

    whole = rqkmeans.fit

    def fit(vectors, sizes, seed):
        codebooks, codes = whole(vectors, sizes, seed)
        codebooks.levels[1][2, 3] = np.nan
        return codebooks, codes

    monkeypatch.setattr(rqkmeans, "fit", fit)
    with pytest.raises(ValueError, match="codebooks of rqkmeans: 1 of 24 numbers of level.1 are NaN"):
        run(shop, vectors)
    assert not list(shop.parent.glob("*index*")) and not list(shop.parent.glob("*codebooks*"))


@pytest.mark.parametrize(
    "flags",
    "--epochs 0|--epochs -1|--hidden 8 0|--decay 2|--decay 1|--latent 0|--batch_size 0|--learning_rate nan|"
    "--learning_rate 0|--commitment -1|--sizes 4 0|--iterations 0|--points_per_code 0|--rounds -1|--seed -1".split(
        "|"
    ),
)
def test_numbers_out_of_their_range_are_refused(flags, capsys):
    argv = "--items a --vectors b --output c --method rqvae".split()
    with pytest.raises(SystemExit) as error:
        parse(QuantiseConfig, Training, argv=[*argv, *flags.split()])
    assert error.value.code == 2 and "it must be" in capsys.readouterr().err


def test_reassign_tells_all_items_apart_at_the_same_depth(shop, vectors):
    sids, manifest = run(shop, vectors, sizes=[4, 8], collisions="reassign")
    assert len(set(sids.values())) == 24 and {len(sid) for sid in sids.values()} == {2}
    assert manifest["before"]["sharing"] == 24 and manifest["after"]["sharing"] == 0 and manifest["items_moved"] >= 12


def test_the_extra_level_gives_all_items_one_token_more(shop, vectors):
    sids, _ = run(shop, vectors, collisions="extra")
    assert len(set(sids.values())) == 24 and {len(sid) for sid in sids.values()} == {3}
    assert {sid[2] for sid in sids.values()} >= {"<c_0>", "<c_1>"}


def test_items_of_one_text_share_a_sid_when_merged_and_are_reported(shop, vectors):
    sids, manifest = run(shop, vectors, sizes=[4, 8], collisions="reassign", merge_same_text=True)
    assert sids["22"] == sids["23"] and len(set(sids.values())) == 23 and manifest["items_merged"] == 1


def test_levels_may_differ_in_size(shop, vectors):
    sids, manifest = run(shop, vectors, sizes=[2, 3, 4])
    assert [int(sid[0][3:-1]) < 2 for sid in sids.values()] == [True] * 24
    assert manifest["codes_used"][0] == 2 and len(manifest["error_by_level"]) == 3


def test_bad_vectors_and_sizes_stop_the_command_before_anything_is_written(shop, vectors, tmp_path):
    with pytest.raises(ValueError, match="99 codes at level 1 and there are 24 items"):
        run(shop, vectors, sizes=[99])
    with pytest.raises(ValueError, match="9 levels; a SID has 1 to 8"):
        run(shop, vectors, sizes=[2] * 9)
    np.save(tmp_path / "short.npy", np.ones((23, 4)))
    with pytest.raises(ValueError, match="short.npy has 23 rows for 24 items"):
        run(shop, tmp_path / "short.npy")
    broken = np.ones((24, 4))
    broken[5] = np.nan
    np.save(tmp_path / "nan.npy", broken)
    with pytest.raises(ValueError, match="row 5 \\(item '5'\\) holds NaN"):
        run(shop, tmp_path / "nan.npy")
    with pytest.raises(ValueError, match="must be called C.index.json"):
        run(shop, vectors, output=tmp_path / "sids.json")
    assert not list(tmp_path.glob("*index*")) and not list(tmp_path.glob("*codebooks*"))


def test_the_data_set_is_named_by_what_stands_before_index(tmp_path):
    assert name_prefix(tmp_path / "Office_Products.index-rqvae.json") == str(tmp_path / "Office_Products")


def test_flags_of_the_training_stand_beside_those_of_the_command(shop):
    argv = "--items a --vectors b --output c --method rqvae --epochs 7 --sizes 8 4".split()
    config, training = parse(QuantiseConfig, Training, argv=argv)
    assert (config.method, config.sizes, training.epochs) == ("rqvae", [8, 4], 7)


def test_a_missing_extra_is_named_with_its_installation(shop, vectors, monkeypatch):
    for module, settings in (
        ("sklearn.cluster", {}),
        ("faiss", {"backend": "faiss"}),
        ("vector_quantize_pytorch", {"method": "rqvae"}),
    ):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            with pytest.raises(ImportError, match=r"pip install 'mimigenrec\[sids\]'"):
                run(shop, vectors, **settings)


def test_codes_and_sids_turn_into_each_other(tmp_path):
    sids = codes_to_sids(["x", "y"], np.array([[0, 255], [14, 3]]))
    assert sids == {"x": ("<a_0>", "<b_255>"), "y": ("<a_14>", "<b_3>")}
    assert [sid_to_codes(sid) for sid in sids.values()] == [(0, 255), (14, 3)]
    with pytest.raises(ValueError, match=r"\[shoes-3\] of SID"):
        sid_to_codes(("[shoes-3]",))
    with pytest.raises(ValueError, match="3 items need codes"):
        codes_to_sids(["x", "y", "z"], np.zeros((2, 2), int))


def test_a_catalogue_of_one_item_has_a_sid(tmp_path):
    items = items_file(tmp_path / "C.item.json", {"0": "lonely"})
    np.save(tmp_path / "v.npy", np.ones((1, 3)))
    sids, _ = run(items, tmp_path / "v.npy", sizes=[1, 1])
    assert sids == {"0": ("<a_0>", "<b_0>")}


def test_sids_with_an_extra_level_pass_through_preprocessing_whole(raw_toy, toy, tmp_path):
    """What SFT and RL are trained to say, and what the search may say, is the SID with its last token."""
    from mimigenrec.tasks.build import BuildConfig
    from mimigenrec.tasks.build import main as build

    items = list(toy.sids)
    np.save(tmp_path / "v.npy", np.repeat(np.random.default_rng(0).normal(size=(4, 6)), 2, axis=0))
    folder = tmp_path / "toy"
    shutil.copytree(raw_toy / "toy", folder)
    settings = {"sizes": [2, 2], "collisions": "extra", "seed": 0, "overwrite": True}  # the toy's own index
    sids, _ = run(folder / "toy.item.json", tmp_path / "v.npy", output=folder / "toy.index.json", **settings)
    assert list(sids) == items and {len(sid) for sid in sids.values()} == {3}
    build(BuildConfig(raw=tmp_path, category="toy", output_dir=tmp_path / "out" / "toy"))
    written = {"".join(sid) for sid in sids.values()}
    assert read_index(tmp_path / "out" / "toy" / "id2sid.json") == sids
    for row in json.loads((tmp_path / "out" / "toy" / "sft" / "test.json").read_text()):
        assert row["output"] in written
    for row in json.loads((tmp_path / "out" / "toy" / "rl" / "train.json").read_text()):
        assert row["reward_model"]["ground_truth"] in written
