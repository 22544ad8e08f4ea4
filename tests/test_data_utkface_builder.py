"""The TFDS builder of UTKFace, without TensorFlow."""

import sys

import pytest
import tensorflow_datasets as tfds
from tiny_faces import GOOD, jpeg, write_good

from unlearn_jax.data.utkface_builder import UTKFace
from unlearn_jax.errors import InputError


def test_builder_works_without_tensorflow(tmp_path):
    folder = write_good(tmp_path / "faces")
    (folder / "33_0_0_2017.jpg").write_bytes(jpeg(9)[:-200])
    (folder / "39_1_20170116174525125.jpg.chip.jpg").write_bytes(jpeg(9))

    def build():
        builder = UTKFace(data_dir=tmp_path / "tfds", file_format="array_record")
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(manual_dir=folder))
        return builder

    for builder in (build(), build()):  # the second one is read from disk
        source = builder.as_data_source("train")
        assert len(source) == 3
        records = {r["file_name"].decode(): r for r in source}
        assert {name: r["age"] for name, r in records.items()} == GOOD
        one = records["35_1_2_20170101000000001.jpg.chip.jpg"]
        assert (one["gender"], one["race"]) == (1, 2)
        assert one["image"].shape == (40, 40, 3) and abs(int(one["image"][5, 5, 0]) - 140) < 4
        assert builder.info.metadata["dropped"] == [
            ["33_0_0_2017.jpg", "truncated"],
            ["39_1_20170116174525125.jpg.chip.jpg",
             "malformed name: not [age]_[gender]_[race]_[date&time].jpg"]]
    assert "tensorflow" not in sys.modules


def test_builder_on_a_wrong_folder(tmp_path):
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "cat.jpg").write_bytes(jpeg(9))
    builder = UTKFace(data_dir=tmp_path / "tfds", file_format="array_record")
    with pytest.raises(InputError, match="no usable file of UTKFace"):
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(manual_dir=tmp_path / "faces"))
