"""UTKFace as a data set of TensorFlow Datasets, without TensorFlow.

    builder = UTKFace(data_dir=DIR, file_format="array_record")
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir="~/UTKFace"))
    source = builder.as_data_source("train")   # source[0]["image"], ["age"], ...

This is for other programs that read such data sets. This program's own source (utkface.py) decodes
the same faces directly from the folder or archive.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from unlearn_jax.data.dataset import Dropped
from unlearn_jax.data.decode import UnusableImage, check_image
from unlearn_jax.data.files import locate
from unlearn_jax.data.utkface import GENDERS, RACES, faces
from unlearn_jax.errors import InputError


class UTKFace(tfds.core.GeneratorBasedBuilder):
    """All usable faces in one split 'train': the encoded image, file name, age, gender, race.

    Unusable images are left out and listed in `info.metadata['dropped']` as [id, reason]. The list
    is kept in the prepared folder's metadata.json.
    """

    name = "utkface"
    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Give as manual_dir the folder of UTKFace's images, or a folder that holds nothing but the "
        "archive as downloaded from https://susanqq.github.io/UTKFace.")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Face crops with age, gender and race; for research only.",
            homepage="https://susanqq.github.io/UTKFace",
            features=tfds.features.FeaturesDict({
                "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                "file_name": tfds.features.Text(),
                "age": tfds.features.Scalar(np.int32),
                "gender": tfds.features.ClassLabel(names=GENDERS),
                "race": tfds.features.ClassLabel(names=RACES),
            }),
            supervised_keys=("image", "age"),
            metadata=tfds.core.MetadataDict(dropped=[]))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(dl_manager.manual_dir)}

    def _generate_examples(self, manual_dir) -> Iterator[tuple[str, dict]]:
        """Yields (file name, example) of every face whose image could be decoded in full.

        A broken image would be stored unchanged and fail when it is read.
        """
        dropped, kept = [], 0
        for face in faces(locate(str(manual_dir), "UTKFace's images")):
            if isinstance(face, Dropped):
                dropped.append([face.id, face.reason])
                continue
            file, label = face
            name, content = PurePosixPath(file.path).name, file.read()
            try:
                check_image(content)
            except UnusableImage as e:
                dropped.append([name, str(e)])
                continue
            kept += 1
            yield name, {"image": content, "file_name": name, "age": label.age,
                         "gender": label.gender, "race": label.race}
        if not kept:
            raise InputError(f"no image in {str(manual_dir)!r} can be used, such as {dropped[0]}")
        self.info.metadata["dropped"] = dropped
        logging.info("utkface: %d images; %d skipped", kept, len(dropped))
