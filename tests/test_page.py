"""A page in both its forms: what is said, what is escaped, what stands beside the Markdown."""

import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest

from mimigenrec.page import (
    Card,
    Folded,
    Paragraph,
    Picture,
    Pictures,
    Section,
    Span,
    Subheading,
    Table,
    pictures_of,
    svg_file,
    to_html,
    to_markdown,
)

SVG = '<svg viewBox="0 0 9 9" role="img" aria-label="nine"><circle cx="4" cy="4" r="4" fill="var(--c0)"/></svg>'
EVERYTHING = [
    Section("Said", [Card("good", "it works", ["because"]), Card("", "plainly")]),
    Section(
        "Shown",
        [
            Subheading("a heading"),
            Paragraph(["words and ", Span("<a_1>", "code"), Span("<b_2>", "wrong")]),
            Table(["name", "value"], [["one", [Span("0.5", "best"), Span(" [0, 1]", "under")]], ["two", ""]]),
            Pictures([Picture("nine", "Nine", SVG)]),
            Folded("more", [Pictures([Picture("again", "Again", SVG)], wide=True)]),
        ],
    ),
]


class Reader(HTMLParser):
    """Texts of a page, and whether every element that was opened is closed."""

    def __init__(self, page):
        super().__init__()
        self.texts, self.open, self.outside = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "circle", "line", "rect", "path", "html"):
            self.open.append(tag)
        self.outside += [value for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag != "html":
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_both_forms_say_the_same():
    page, text = (write("Title", "subtitle", EVERYTHING, "foot") for write in (to_html, to_markdown))
    reader = Reader(page)
    assert reader.open == []
    for said in ("Title", "subtitle", "it works", "because", "plainly", "a heading", "<a_1>", "0.5", "more", "foot"):
        assert any(said in part for part in reader.texts), said
        assert said in text, said


def test_a_page_needs_nothing_from_outside():
    page = to_html("Title", "", EVERYTHING, "")
    assert Reader(page).outside == []
    assert "http" not in page and "@import" not in page and "url(" not in page


def test_markdown_by_hand():
    assert to_markdown("T", "s", EVERYTHING[1:], "f") == (
        "# T\n\ns\n\n## Shown\n\n#### a heading\n\nwords and `<a_1>`**`<b_2>`**\n\n"
        "| name | value |\n| --- | --- |\n| one | **0.5** [0, 1] |\n| two |  |\n\n"
        "![Nine](nine.svg)\n\n**more**\n\n![Again](again.svg)\n\nf\n"
    )


def test_a_mark_of_bold_stands_at_the_word_and_not_at_its_spaces():
    text = to_markdown("T", "", [Section("S", [Paragraph(["a", Span(" b ", "good"), Span("", "bad"), "c"])])], "")
    assert "\n\na **b** c\n" in text


@pytest.mark.parametrize(
    ("title", "markdown"),
    [
        ("<script>alert(1)</script>", "\\<script>alert(1)\\</script>"),
        ("5 < 6 and *new*", "5 < 6 and \\*new\\*"),
        ("[click](http://x)", "[click]\\(http://x)"),
        ("snake_case and _this_", "snake_case and \\_this\\_"),
        ("two\nlines", "two lines"),
        ("back\\slash `tick`", "back\\\\slash \\`tick\\`"),
    ],
)
def test_what_a_catalogue_calls_its_items_never_becomes_markup(title, markdown):
    sections = [Section("S", [Paragraph(title), Table(["h"], [[title]])])]
    page = to_html("T", "", sections, "")
    assert Reader(page).open == [] and "<script" not in page
    assert f"\n\n{markdown}\n\n" in to_markdown("T", "", sections, "")


def test_a_bar_in_a_cell_does_not_end_it():
    assert "| a \\| b |" in to_markdown("T", "", [Section("S", [Table(["h"], [["a | b"]])])], "")


def test_pictures_inside_details_are_found_and_stand_alone_as_files():
    pictures = pictures_of(EVERYTHING[1].blocks)
    assert [picture.name for picture in pictures] == ["nine", "again"]
    root = ElementTree.fromstring(svg_file(pictures[0].svg))
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and (root.get("width"), root.get("height")) == ("9", "9")
    assert "--c0:" in root[0].text and root[1].get("fill") == "var(--card)"  # its colours, and a ground to stand on


def test_titles_and_heads_are_no_markup_either():
    sections = [Section("<b>", [Table(["<script>x</script>", "a | b"], [["1", "2"]])])]
    text = to_markdown("# <script>alert(1)</script>\nnext", "", sections, "")
    assert text.startswith("# # \\<script>alert(1)\\</script> next\n")
    assert "## \\<b>" in text and "| \\<script>x\\</script> | a \\| b |" in text
