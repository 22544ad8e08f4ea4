"""scikit-learn's handwritten digits: 1,797 real images of 8 x 8 pixels, part of the package.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998.
"""

from pathlib import Path

import numpy as np

from unlearn_jax.data.decode import decode_image
from unlearn_jax.data.source import Source, in_memory


def load_digits(settings, cache: Path) -> Source:
    """All digits as grey RGB images enlarged to `image_size`, in ten classes; see `Source`."""
    del cache  # making the images takes less time than reading them from a cache
    # imported here, as scikit-learn takes a second that the other sources do not need
    from sklearn import datasets
    digits = datasets.load_digits()
    grey_NHW = np.round(digits.images * (255 / 16)).astype(np.uint8)  # 17 levels there
    images = np.stack([decode_image(image, settings.image_size, min_side=8)
                       for image in grey_NHW])
    ids = np.array([f"digits-{i:04d}" for i in range(len(images))])
    return Source("digits", "classification", "class", tuple(map(str, digits.target_names)),
                  in_memory(images, digits.target, ids, {}))
