import json

import pytest

from mimigenrec.claim import begin_folder, claim_folder, finish_folder, replace_folder, temporary_of
from mimigenrec.errors import UserError
from mimigenrec.manifest import make_manifest


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def asked(lr=1, data=None, **options):
    return make_manifest({"lr": lr, "output": "a", **options}, [data] if data else [], None, command="cook")


def write(folder, now):
    begin_folder(folder, now)
    (folder / "dish").write_text("warm")
    finish_folder(folder, now)


def test_a_new_or_empty_folder_is_free(out):
    assert claim_folder(out, asked())
    out.mkdir()
    assert claim_folder(out, asked())


def test_what_is_finished_is_left_alone_and_said(out, capsys):
    write(out, asked())
    assert sorted(path.name for path in out.iterdir()) == ["dish", "manifest.json"]
    assert not claim_folder(out, asked(), made=("dish",))
    assert capsys.readouterr().out == f"{out} is finished: nothing to do; --overwrite starts anew\n"
    assert claim_folder(out, asked(), made=("dish",), overwrite=True)
    (out / "dish").unlink()
    assert claim_folder(out, asked(), made=("dish",))  # finished no more


def test_other_settings_or_data_are_refused_with_what_differs(out, tmp_path):
    data = tmp_path / "rows.json"
    data.write_text("1")
    write(out, asked(data=data))
    with pytest.raises(UserError, match=r"lr: 1 then, 2 now.*--overwrite"):
        claim_folder(out, asked(lr=2, data=data))
    assert claim_folder(out, asked(lr=2, data=data), overwrite=True)
    data.write_text("2")
    with pytest.raises(UserError, match="rows.json: .* then"):
        claim_folder(out, asked(data=data))
    moved = make_manifest({"lr": 1, "output": "b"}, [data], None, command="cook")
    data.write_text("1")
    assert not claim_folder(out, {**asked(data=data), "config": moved["config"]}, free=("output",))


def test_what_others_wrote_is_refused_always(out, tmp_path):
    out.mkdir()
    (out / "thesis.tex").write_text("years")
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"did not write \(thesis.tex\)"):
            claim_folder(out, asked(), overwrite=overwrite)
        (out / "manifest.json").write_text(json.dumps({"command": "sft"}))
        with pytest.raises(UserError, match="holds what sft wrote"):
            claim_folder(out, asked(), overwrite=overwrite)
        (out / "manifest.json").write_text("[]")
        with pytest.raises(UserError, match="did not write"):
            claim_folder(out, asked(), overwrite=overwrite)
        (out / "manifest.json").unlink()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        claim_folder(tmp_path / "file", asked())


def test_a_folder_that_was_left_half_written_is_gone_on_with(out):
    write(out, asked())
    begin_folder(out, asked(lr=2))  # and killed
    assert not (out / "manifest.json").exists()
    assert claim_folder(out, asked(lr=2), made=("dish",))


def test_a_folder_takes_the_place_of_another_unless_somebody_put_a_file_there(out):
    for text in ("1", "2"):
        new = temporary_of(out)
        new.mkdir()
        (new / "dish").write_text(text)
        replace_folder(new, out)
    assert (out / "dish").read_text() == "2" and [path.name for path in out.parent.iterdir()] == ["out"]
    (out / "notes").write_text("mine")
    new = temporary_of(out)
    new.mkdir()
    with pytest.raises(UserError, match="also holds dish, notes, which would be lost"):
        replace_folder(new, out)
    assert (out / "notes").read_text() == "mine" and not new.exists()
