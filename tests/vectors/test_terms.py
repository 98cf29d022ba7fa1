"""Terms of a text, and that titles of one kind come out near each other in every language that the rules are for."""

import json
import logging

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mimigenrec.vectors.embed import EmbedConfig, main
from mimigenrec.vectors.store import read_about
from mimigenrec.vectors.terms import earlier_terms, terms
from mimigenrec.vectors.tfidf import Tfidf
from tests.vectors.conftest import items_file

KINDS = {
    "en": [
        "wireless earphones",
        "cotton mens shirt",
        "steel thermos cup",
        "kids puzzle blocks",
        "electric toothbrush",
    ],
    "zh": ["无线蓝牙耳机", "纯棉男士短袖", "不锈钢保温杯", "儿童益智积木", "家用电动牙刷"],
    "ja": ["ワイヤレスイヤホン", "メンズ綿Tシャツ", "ステンレス水筒", "知育ブロック", "電動歯ブラシ"],
    "th": ["หูฟังไร้สาย", "เสื้อยืดผู้ชาย", "แก้วเก็บความเย็น", "ตัวต่อเสริมพัฒนาการ", "แปรงสีฟันไฟฟ้า"],
    "hi": ["वायरलेस हेडफ़ोन", "सूती शर्ट", "स्टील की बोतल", "बच्चों की पहेली", "इलेक्ट्रिक टूथब्रश"],
}
WORDS = {
    "en": ["new", "premium", "portable", "mini", "huge", "light", "waterproof", "silent"],
    "zh": ["新款", "高档", "便携", "迷你", "超大", "轻薄", "防水", "静音"],
    "ja": ["新型", "高級", "携帯用", "ミニ", "特大", "薄型", "防水", "静音"],
    "th": ["รุ่นใหม่", "พรีเมียม", "แบบพกพา", "มินิ", "ขนาดใหญ่", "บางเบา", "กันน้ำ", "เสียงเงียบ"],
    "hi": ["नया", "प्रीमियम", "पोर्टेबल", "छोटा", "बड़ा", "हल्का", "जलरोधक", "शांत"],
}


def titles_of(language, mixed=False, count=60):
    rng = np.random.default_rng(0)
    gap = " " if language in ("en", "hi") else ""
    titles = {}
    for i in range(count):
        a, b, c = rng.choice(WORDS[language], 3, replace=False)
        title = gap.join([a, b, KINDS[language][i % 5], c])
        titles[str(i)] = f"{rng.choice(['Sony', 'Nike'])}{title} USB{i}" if mixed else title
    return titles


def share_of_kind(vectors):
    """Of the 5 nearest of each item, how many are of its kind; 0.19 by chance."""
    alike = vectors @ vectors.T
    np.fill_diagonal(alike, -9)
    near = np.argsort(-alike, axis=1)[:, :5]
    return float((near % 5 == np.arange(len(vectors))[:, None] % 5).mean())


def embed(folder, titles, **settings):
    items = items_file(folder / "C.item.json", titles)
    main(EmbedConfig(items=items, output=folder / "C.emb-tfidf.npy", **{"dim": 32, **settings}))
    return np.load(folder / "C.emb-tfidf.npy")


@pytest.mark.parametrize("mixed", [False, True], ids=["alone", "beside Latin words"])
@pytest.mark.parametrize("language", ["zh", "ja", "th", "hi"])
def test_titles_of_one_kind_are_neighbours_in_every_script(language, mixed, tmp_path, caplog):
    least = 0.84 if language == "hi" else 0.95  # words alone, at best: hi 0.75 beside Latin ones, zh, ja 0.19, th 0.83
    assert share_of_kind(embed(tmp_path, titles_of(language, mixed))) > least
    assert "share no word" not in caplog.text


def test_english_keeps_the_terms_that_it_had():
    text = "A 3-in-1 Café USB3.0 hub's 12V supply_line; naïve, x y"
    assert sorted(terms(text)) == sorted(earlier_terms(text))


def test_runs_without_spaces_become_pieces_and_what_stands_beside_them_words():
    assert sorted(terms("Sony耳机 X2")) == sorted(["sony", "x2", "耳", "机", "耳机"])
    assert terms("耳") == ["耳"] and sorted(terms("กขค")) == sorted(["กข", "ขค", "กขค"])
    assert terms("हिन्दी") == ["हिन्दी"]  # its vowel signs are no letters to Python
    assert sorted(terms("ＵＳＢﾃﾚﾋﾞ")) == sorted(terms("USBテレビ"))


def test_new_items_find_their_kind_with_what_was_learnt(tmp_path):
    old = embed(tmp_path, titles_of("zh"))
    (tmp_path / "new").mkdir()
    fitted = tmp_path / "C.emb-tfidf.encoder.safetensors"
    new = embed(tmp_path / "new", {"90": "耳机无线", "91": "电动牙刷头"}, fitted=fitted)
    assert [int(row) % 5 for row in (new @ old.T).argmax(1)] == [0, 4]
    assert (
        read_about(tmp_path / "new" / "C.emb-tfidf.npy")["model"] == read_about(tmp_path / "C.emb-tfidf.npy")["model"]
    )


def earlier_file(path, texts):
    """What a version that knew words alone wrote."""
    Tfidf.fit(texts, 8, 0).save(path)
    save_file(load_file(path), path)  # without metadata


def test_what_an_earlier_version_learnt_from_words_is_read_as_it_was(tmp_path, caplog):
    texts = list(titles_of("en").values())
    earlier_file(tmp_path / "old.safetensors", texts)
    learnt = Tfidf.load(tmp_path / "old.safetensors")
    np.testing.assert_array_equal(learnt.encode(texts), Tfidf.fit(texts, 8, 0).encode(texts))
    assert not learnt.encode(["无线蓝牙耳机"]).any() and not caplog.text
    earlier_file(tmp_path / "zh.safetensors", list(titles_of("zh").values()))
    Tfidf.load(tmp_path / "zh.safetensors")
    assert "took a title without spaces for one word" in caplog.text


def damaged(path, how):
    arrays = load_file(path)
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    elif how == "text":
        path.write_text("hello")
    elif how == "key":
        save_file({"idf": arrays["idf"]}, path)
    elif how == "nan":
        save_file(arrays | {"idf": arrays["idf"] * np.float32("nan")}, path)
    elif how == "width":
        save_file(arrays | {"idf": arrays["idf"][:-1]}, path)
    else:
        content = {"words": b'{"a": 1}', "json": b"[1", "bytes": b"\xff\xfe", "twice": json.dumps(["a", "a"]).encode()}
        save_file(arrays | {"words": np.frombuffer(content[how], dtype=np.uint8)}, path)


@pytest.mark.parametrize("how", ["cut", "text", "key", "nan", "width", "words", "json", "bytes", "twice"])
def test_a_damaged_file_is_named(how, tmp_path):
    path = tmp_path / "x.encoder.safetensors"
    Tfidf.fit(["red lamp", "blue lamp", "old chair"], 2, 0).save(path)
    damaged(path, how)
    with pytest.raises(ValueError, match="--fitted .*x.encoder.safetensors is (not what|damaged)"):
        Tfidf.load(path)


@pytest.mark.parametrize("strangers", [0, 2, 3])
def test_a_warning_says_when_most_texts_share_no_word_with_any_other(strangers, caplog):
    texts = ["red lamp", "old lamp", ""] + [f"word{i} thing{i}" for i in range(strangers)]
    with caplog.at_level(logging.WARNING):
        Tfidf.fit(texts, 2, 0)
    assert ("share no word with any other" in caplog.text) == (strangers > 2)
    assert strangers < 3 or "3 of 5 texts" in caplog.text
