"""CSV files of paths and labels: what is taken, and what is refused by its line."""

import numpy as np
import pytest
from test_data_folder import load, write_csv, write_image

from unlearn_jax.data.table import class_names, label_numbers, read_table
from unlearn_jax.errors import InputError


def table(tmp_path, text):
    path = tmp_path / "list.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path, read_table(path)


def test_fields_may_hold_line_breaks_commas_and_quotes(tmp_path):
    path, found = table(tmp_path, 'path,label\r\n"a\nb.png","snow\nleopard"\r\nab.png,snowleopard'
                                  '\r\n"c,d ""e"".png",cat\r\n\r\nf.png,dog\r\n')
    assert [(r.line, r.path, r.label) for r in found.rows] == [
        (2, "a\nb.png", "snow\nleopard"), (5, "ab.png", "snowleopard"), (6, 'c,d "e".png', "cat"),
        (8, "f.png", "dog")]
    assert class_names(path, found) == ("cat", "dog", "snow\nleopard", "snowleopard")


@pytest.mark.parametrize("end", ["\u2028", "\x85", "\x0b", "\x0c", "\x1c", "\u2029"])
def test_only_the_ends_of_lines_end_lines(tmp_path, end):
    _, found = table(tmp_path, f"path,label\na{end}b.png,snow{end}leopard\nc.png,dog\n")
    assert [(r.line, r.path, r.label) for r in found.rows] == [
        (2, f"a{end}b.png", f"snow{end}leopard"), (3, "c.png", "dog")]


def test_a_file_with_a_line_break_in_its_name_is_that_file(tmp_path):
    write_image(tmp_path / "a\nb.png", 200)
    write_image(tmp_path / "ab.png", 20)
    path = write_csv(tmp_path, 'path,label\n"a\nb.png",1\nimages/0.png,2\n')
    d = load(path, tmp_path)
    assert d.ids.tolist() == ["a\nb.png", "images/0.png"]
    assert np.abs(d.images.mean((1, 2, 3)) - [200, 40]).max() < 1


@pytest.mark.parametrize("text", ["2_0", "0_1", "\uff12\uff10", "\u0662", "1e999", "0x10", "1,5",
                                  "9-Mar", "inf", "5 %"])
def test_a_number_of_another_form_is_refused_by_its_line(tmp_path, text):
    path, found = table(tmp_path, f'path,label\na.png,1\n\nb.png,"{text}"\n')
    with pytest.raises(InputError, match="list.csv' line 4 has the label .*which is no number"):
        label_numbers(path, found)
    with pytest.raises(InputError, match="list.csv' line 2 has the site .*no whole number"):
        table(tmp_path, f'path,label,site\na.png,1,"{text}"\n')


@pytest.mark.parametrize("label", ["9-Mar", "Oct-19", "12-Oct-24", "#N/A", "#REF!", "9-MAR",
                                   "3-Sept"])
def test_a_class_that_a_spreadsheet_made_is_refused_by_its_line(tmp_path, label):
    path, found = table(tmp_path, f"path,label\na.png,0-2\nb.png,{label}\n")
    with pytest.raises(InputError, match=f"line 3 has the label '{label}', which is .* as "
                                         "spreadsheets write it"):
        class_names(path, found)


def test_classes_that_only_resemble_dates_or_numbers(tmp_path):
    labels = ["March", "2_0", "20", "Marble-2x", "9-Marble", "40-Mar-a", "#1", "1-2",
              "March 2024", "Mar"]
    path, found = table(tmp_path, "path,label\n" + "".join(
        f"{i}.png,{label}\n" for i, label in enumerate(labels)))
    assert set(class_names(path, found)) == set(labels)


def test_digits_of_full_width_spell_a_number_otherwise(tmp_path):
    path, found = table(tmp_path, "path,label\na.png,20\nb.png,\uff12\uff10\n")
    with pytest.raises(InputError, match="line 3 has the label .* the number '20' of line 2"):
        class_names(path, found)


@pytest.mark.parametrize("text, message", [
    (b"path,label\na.png,1\nb\x00.png,2\n", "line 3 holds a NUL character"),
    (b"path,label\na.png,1\n" + b"x" * 131_073 + b",2\n", "line 3 cannot be read: field larger"),
    (b'path,label\na.png,1\n"b.png,2\nc.png,3\n', "line 3 cannot be read: unexpected end of data"),
    (b'path,label\na.png,1\n"b"c.png,2\n', "line 3 cannot be read: "),
    (b'path,label\n"a\n.png",1\nb.png,2,3\n', "line 4 has 3 fields; its header has 2"),
    (b"path,label\na.png,1\nb\xff.png,2\n", "line 3 is no text in UTF-8"),
    (b"p\x00ath,label\na.png,1\n", "line 1 holds a NUL character"),
    ("path,label\na.png,1\n".encode("utf-16"), "line 1 is no text in UTF-8"),
])
def test_what_cannot_be_read_is_refused_by_its_line(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as e:
        table(tmp_path, text)
    assert len(str(e.value).splitlines()) == 1
