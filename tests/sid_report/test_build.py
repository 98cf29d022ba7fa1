import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from mimigenrec.chat import messages
from mimigenrec.cli import COMMANDS, parse
from mimigenrec.contract import Contract
from mimigenrec.errors import UserError
from mimigenrec.items import id_order
from mimigenrec.sid_report.build import SidReportConfig, main
from mimigenrec.sid_report.verdicts import failed_gates, parse_gate
from mimigenrec.sids.tokens import write_index
from mimigenrec.vectors.store import write_vectors
from tests.conftest import TOY_SIDS

EVIL = "</title><script>alert(1)</script> & <b>|"


@pytest.fixture
def files(raw_toy, tmp_path):
    """Everything the report can read about the toy, by flag."""
    items = json.loads((raw_toy / "toy" / "toy.item.json").read_text())
    for item in items:
        items[item]["categories"] = f"Things,Kind {int(item) % 3}"
    items["2"]["title"] = items["3"]["title"] = EVIL
    items["2"]["description"] = items["3"]["description"] = ["in", "parts"]
    (tmp_path / "item.json").write_text(json.dumps(items))
    np.save(tmp_path / "emb.npy", np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32))
    write_index(tmp_path / "before.json", TOY_SIDS | {"0": TOY_SIDS["1"]})
    raw = raw_toy / "toy"
    return {
        "index": raw / "toy.index.json",
        "items": tmp_path / "item.json",
        "embeddings": tmp_path / "emb.npy",
        "train": raw / "toy.train.inter",
        "test": raw / "toy.test.inter",
        "earlier": tmp_path / "before.json",
    }


def run(output, files, *flags):
    argv = [f"--{name}={path}" for name, path in files.items()]
    main(*parse(SidReportConfig, argv=[*argv, f"--output={output}", *flags]))
    return json.loads((output / "sid_report.json").read_text())


def test_the_index_alone_is_enough(files, tmp_path):
    report = run(tmp_path / "out", {"index": files["index"]})
    assert report["figures"]["collisions"] == 0.25 and report["figures"]["level1.codes"] == 3
    assert not any(name.startswith(("neighbours", "copurchase", "category", "churn")) for name in report["figures"])


def test_every_file_adds_its_figures_and_all_figures_are_numbers(files, tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    more = {"tokenizer": tmp_path / "tokenizer", "neighbours": 3}
    report = run(tmp_path / "out", files | more, "--sizes", "4", "4", "8")
    figures = report["figures"]
    for name in (
        "level1.perplexity level3.choices level1.used hr1_ceiling identical_texts category.lift "
        "copurchase.level1.lift neighbours.level2.share churn.kept churn.level1.agreement tokens_split"
    ).split():
        assert isinstance(figures[name], (int, float)), name
    assert (figures["identical_texts"], figures["collisions_by_text"]) == (2, 1)
    assert figures["churn.kept"] == 7 / 8 and figures["tokens_split"] == 0
    assert set(report["about"]["inputs"]) == {str(path) for path in files.values()}


class Page(HTMLParser):
    VOID = ("meta", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.links = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_checkpoint_whose_tokenizer_gives_other_ids_than_it_was_trained_on_is_refused(files, tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "ckpt")
    prompt = messages("", "thing number")
    replace(Contract.of("contract", tokenizer), golden=((prompt, [0]),)).write(tmp_path / "ckpt")
    with pytest.raises(UserError, match="gives other token ids than its model was trained on"):
        run(tmp_path / "out", {"index": files["index"], "tokenizer": tmp_path / "ckpt"})


def test_the_page_is_whole_asks_for_nothing_and_runs_no_text_of_the_data(files, tmp_path):
    run(tmp_path / "out", files | {"neighbours": 3})
    text = (tmp_path / "out" / "sid_report.html").read_text()
    page = Page(text)
    assert page.open == [] and page.links == [] and "script" not in page.tags and "link" not in page.tags
    assert "url(" not in text and "@import" not in text and "http" not in text
    assert page.tags.count("svg") == 1 + 1 + 3 + 6 and "&lt;script&gt;" in text
    assert "nan" not in re.sub(r"<[^>]*>", "", text).lower().split()


def test_markdown_tables_have_equal_rows(files, tmp_path):
    run(tmp_path / "out", files | {"neighbours": 3, "title": "a | b"})
    lines = (tmp_path / "out" / "sid_report.md").read_text().splitlines()
    assert lines[0] == "# a | b" and "## Train transitions that share the first codes" in lines
    table = 0
    for line in lines:
        bars = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        assert not table or not bars or bars == table, line
        table = bars


def test_a_failed_gate_ends_the_run_after_the_report_is_written(files, tmp_path):
    gates = ("--fail-on", "collisions>0.05", "items<8")
    with pytest.raises(SystemExit, match=r"1 of 2 gates failed: collisions>0.05 \(collisions is 0.25\)"):
        run(tmp_path / "out", {"index": files["index"]}, *gates)
    report = json.loads((tmp_path / "out" / "sid_report.json").read_text())
    assert [gate["failed"] for gate in report["gates"]] == [True, False]
    assert "1 of 2 gates failed" in (tmp_path / "out" / "sid_report.html").read_text()


def test_passed_gates_end_well(files, tmp_path):
    assert not run(tmp_path / "out", {"index": files["index"]}, "--fail_on", "collisions>0.3")["gates"][0]["failed"]


@pytest.mark.parametrize(
    "gate", ["collisions>1e999", "collisions>1.2.3", "__class__>0", "items.__class__>0", "x[0]>1"]
)
def test_a_gate_that_cannot_be_checked_does_not_pass(files, tmp_path, gate):
    with pytest.raises(ValueError, match="--fail_on"):
        run(tmp_path / "out", {"index": files["index"]}, "--fail_on", gate)


def test_a_figure_that_is_no_number_fails_its_gate():
    with pytest.raises(ValueError, match="the figure 'share' is nan, so it cannot be compared"):
        failed_gates([parse_gate("share<0.5")], {"share": float("nan")})


@pytest.mark.parametrize("flags", ["--neighbours 0", "--queries 0", "--sizes 0", "--seed -1"])
def test_numbers_out_of_their_range_are_refused(files, tmp_path, flags, capsys):
    with pytest.raises(SystemExit):
        run(tmp_path / "out", {"index": files["index"]}, *flags.split())
    assert "it must be at least" in capsys.readouterr().err


def of_named_items(tmp_path, names, kinds):
    """item.json, index and vectors of items whose kinds are what their vectors and first codes say; files by flag."""
    (tmp_path / "C.item.json").write_text(json.dumps({name: {"title": f"thing {name}"} for name in names}))
    order = sorted(names, key=id_order)
    vectors = np.eye(3, dtype=np.float32)[[kinds[name] for name in order]]
    vectors += np.random.default_rng(0).normal(size=vectors.shape).astype(np.float32) / 100
    write_vectors(tmp_path / "C.emb-x.npy", vectors, order, model="x", normalised=False)
    sids = {name: (f"<a_{kinds[name]}>", f"<b_{place}>") for place, name in enumerate(names)}
    write_index(tmp_path / "C.index.json", sids)
    files = {"index": "C.index.json", "items": "C.item.json", "embeddings": "C.emb-x.npy"}
    return {flag: tmp_path / file for flag, file in files.items()}, sids


NAMES = [
    [str(i) for i in range(12)],
    ["5", "0", "12", "2", "40", "7", "9", "33", "21", "100", "101", "8"],  # with gaps, in no order
    ["shoe", "9", "B00X", "10", "hat", "2", "a/b", "glove", "100", "é", "Z", "7"],
]


@pytest.mark.parametrize("names", NAMES, ids=["counted", "gaps", "names"])
def test_an_item_is_judged_by_its_own_vector_whatever_its_id(names, tmp_path):
    files, sids = of_named_items(tmp_path, names, {name: place % 3 for place, name in enumerate(names)})
    flags = ("--neighbours", "2")
    assert run(tmp_path / "out", files, *flags)["figures"]["neighbours.level1.share"] == 1
    write_index(files["index"], {name: sids[name] for place, name in enumerate(names) if place not in (0, 4)})
    assert (
        run(tmp_path / "out", files, *flags)["figures"]["neighbours.level1.share"] == 1
    )  # each has two of its kind left


def test_vectors_of_other_items_or_without_their_items_are_refused(tmp_path):
    files, sids = of_named_items(tmp_path, NAMES[1], {name: place % 3 for place, name in enumerate(NAMES[1])})
    with pytest.raises(ValueError, match="--embeddings needs --items"):
        run(tmp_path / "out", {flag: path for flag, path in files.items() if flag != "items"})
    content = json.loads(files["items"].read_text())
    files["items"].write_text(json.dumps({"6" if name == "7" else name: known for name, known in content.items()}))
    with pytest.raises(ValueError, match="C.emb-x.npy was made for 12 items in another order or with other ids"):
        run(tmp_path / "out", files)
    write_index(files["index"], sids | {"999": ("<a_1>", "<b_99>")})
    files["items"].write_text(json.dumps(content))
    with pytest.raises(ValueError, match="lacks 1 items of the index, '999' first"):
        run(tmp_path / "out", files)


def test_an_index_with_an_item_twice_is_refused(tmp_path):
    (tmp_path / "i.json").write_text('{"0": ["<a_0>"], "1": ["<a_1>"], "0": ["<a_2>"]}')
    with pytest.raises(ValueError, match="i.json holds the key '0' twice"):
        run(tmp_path / "out", {"index": tmp_path / "i.json"})


def test_a_heading_runs_nothing_in_markdown_either(files, tmp_path):
    run(tmp_path / "out", {"index": files["index"], "title": EVIL})
    text = (tmp_path / "out" / "sid_report.md").read_text()
    assert "\\<script>" in text and not re.search(r"(?<!\\)<script>", text)


def test_the_same_run_writes_the_same_files(files, tmp_path):
    for name in ("a", "b"):
        run(tmp_path / "out", files | {"neighbours": 3, "queries": 5})
        (tmp_path / "out").rename(tmp_path / name)
    for kind in ("json", "md", "html"):
        assert (tmp_path / "a" / f"sid_report.{kind}").read_bytes() == (
            tmp_path / "b" / f"sid_report.{kind}"
        ).read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "must map item ids"),
        ('{"0": "x"}', "item '0' needs a map"),
        ('{"x": {}}', "knows no item of the index"),
        ('{"0": {"categories": 3}}', "bad.json: item '0' has categories 3"),
        ('{"0": {"categories": [["A"], [["B"]]]}, "1": {"categories": [[["A"]]]}}', "item '1' has categories"),
        ('{"0": {"categories": {"a": 1}}}', "categories of item '0' must be"),
    ],
)
def test_items_of_another_shape_or_data_set_are_refused(files, tmp_path, content, message):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "out", {"index": files["index"], "items": tmp_path / "bad.json"})
    assert not (tmp_path / "out").exists()


def test_one_item_one_level_can_be_reported(tmp_path):
    write_index(tmp_path / "index.json", {"0": ("<a_0>",)})
    report = run(tmp_path / "out", {"index": tmp_path / "index.json"})
    assert report["figures"]["level1.perplexity"] == 1 and report["overall"] == "bad"


def test_the_command_has_a_name():
    assert COMMANDS["sid-report"][0] == "mimigenrec.sid_report.build"
