import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from mimigenrec.cli import COMMANDS, parse
from mimigenrec.sids.doctor import DoctorConfig, category_path, main
from mimigenrec.sids.tokens import write_index
from tests.conftest import TOY_SIDS

EVIL = "</title><script>alert(1)</script> & <b>|"


@pytest.fixture
def files(raw_toy, tmp_path):
    """Everything the doctor can read about the toy, by flag."""
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
    main(*parse(DoctorConfig, argv=[*argv, f"--output={output}", *flags]))
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
    [("[]", "must map item ids"), ('{"0": "x"}', "must map item ids"), ('{"x": {}}', "knows no item of the index")],
)
def test_items_of_another_shape_or_data_set_are_refused(files, tmp_path, content, message):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "out", {"index": files["index"], "items": tmp_path / "bad.json"})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("A, B,,C", ("A", "B", "C")),
        (["A", "B"], ("A", "B")),
        ([["A", "B"], ["C"]], ("A", "B")),
        ("", ()),
        (None, ()),
        ([], ()),
    ],
)
def test_categories_come_in_every_form_of_the_data_sets(value, path):
    assert category_path({"categories": value}) == path


def test_one_item_one_level_can_be_reported(tmp_path):
    write_index(tmp_path / "index.json", {"0": ("<a_0>",)})
    report = run(tmp_path / "out", {"index": tmp_path / "index.json"})
    assert report["figures"]["level1.perplexity"] == 1 and report["overall"] == "bad"


def test_the_command_has_a_name():
    assert COMMANDS["sid-report"][0] == "mimigenrec.sids.doctor"
