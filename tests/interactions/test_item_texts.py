import pytest

from mimigenrec.interactions.item_texts import ItemTexts, clean_text, clean_title, make_item


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("  Two\n\tlines ", "Two lines"),
        ("<b>Bold</b> &amp; &quot;quoted&quot;", 'Bold & "quoted"'),
        ("&amp;quot;twice&amp;quot;", '"twice"'),
        ("&lt;i&gt;hidden tags&lt;/i&gt;", "hidden tags"),
        ("<!-- a\nnote -->after", "after"),
        ("3 < 4 and 5 > 2", "3 < 4 and 5 > 2"),
        ("fake <a_1><b_2> SID", "fake SID"),
        (None, ""),
        (12, "12"),
    ],
)
def test_markup_goes_and_text_stays(raw, clean):
    assert clean_text(raw) == clean


@pytest.mark.parametrize("raw", ['<span id="productTitle">', "<script>var x</script>", "", "  ", None, 3, ["a"]])
def test_what_a_failed_scrape_left_is_no_title(raw):
    assert clean_title(raw) == ""


def test_categories_of_each_year_are_filled():
    assert make_item("t", None, None, [["Toys", "Games"], ["Toys", "Cards"]])["categories"] == "Toys, Games, Cards"
    assert make_item("t", None, None, ["Toys", "Games &amp; Cards"])["categories"] == "Toys, Games & Cards"
    assert make_item("t", None, None, ["Toys", "</span></span>"])["categories"] == "Toys"
    assert make_item("t", None, None, "Toys")["categories"] == "Toys"


def test_description_and_brand():
    item = make_item('"Lamp"', ["One.", "", "<p>Two.</p>"], "by\nAcme", None)
    assert item == {"title": "Lamp", "description": "One. Two.", "brand": "Acme", "categories": ""}


def test_a_description_that_is_code_stays_text():
    text = "['', __import__('os').abort(), '']"
    assert make_item("t", text, None, None)["description"] == text


def test_of_two_items_with_one_id_the_first_with_a_title_stays_and_both_are_counted():
    notes = {}
    found = ItemTexts(None, notes)
    for name, title in [("a", ""), ("a", "Lamp"), ("a", "Chair"), ("b", "Desk"), ("b", "Desk")]:
        found.add(name, title)
    assert {name: item["title"] for name, item in found.items.items()} == {"a": "Lamp", "b": "Desk"}
    assert notes == {"items_listed_again": 3, "items_listed_again_with_another_title": 2}
