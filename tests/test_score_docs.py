"""The lines of docs/score.md that write predictions: with PyTorch where it is, else with NumPy."""

import contextlib
import importlib.util
import re
import sys
import types
from pathlib import Path

import numpy as np

from unlearn_jax.score.__main__ import main
from unlearn_jax.score.folder import read_folder

PAGE = Path(__file__).parents[1] / "docs" / "score.md"


class Array(np.ndarray):
    """Of NumPy, with the two methods of a tensor that the lines use."""

    def cpu(self):
        return self

    def numpy(self):
        return np.asarray(self)


class Linear:
    """A network of NumPy: class scores of images."""

    def __init__(self, weights):
        self.weights = weights

    def eval(self):
        return self

    def __call__(self, images):
        return (images.reshape(len(images), -1) @ self.weights).view(Array)


def stand_in():
    """What the lines use of PyTorch, made of NumPy."""
    return types.SimpleNamespace(
        no_grad=contextlib.nullcontext, cat=lambda arrays: np.concatenate(arrays).view(Array),
        stack=lambda arrays: np.stack(arrays).view(Array))


def network(torch, weights):
    if torch is None:
        return Linear(weights)
    layer = torch.nn.Linear(*weights.shape, bias=False)
    layer.weight.data = torch.tensor(weights.T)
    return torch.nn.Sequential(torch.nn.Flatten(), layer)


def test_the_lines_of_the_docs_write_what_can_be_scored(tmp_path, monkeypatch):
    torch = None
    if importlib.util.find_spec("torch"):
        import torch
    else:
        monkeypatch.setitem(sys.modules, "torch", stand_in())
    code = re.search(r"```python\n(import numpy as np\nimport torch.*?)```", PAGE.read_text(),
                     re.DOTALL).group(1)
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    names = {}
    exec(code, names)
    rng = np.random.default_rng(0)
    to = torch.tensor if torch else (lambda a: a.view(Array))

    def batches(n):
        images, labels = rng.normal(size=(n, 2, 3)).astype(np.float32), rng.integers(0, 3, n)
        return [(to(images[i:i + 8]), to(labels[i:i + 8])) for i in range(0, n, 8)]

    loaders = {split: batches(n) for split, n in (("test", 30), ("forget", 20), ("retain", 40))}
    weights = rng.normal(size=(3, 6, 3)).astype(np.float32)
    models = {(method, budget): [network(torch, w) for w in weights + k]
              for k, (method, budget) in enumerate((("original", 0), ("mine", 2), ("retrain", 9)))}
    folder = tmp_path / "predictions"
    folder.mkdir()
    names["write_predictions"](models, loaders, folder, "random-0.1")
    (found,) = read_folder(folder)
    assert found.member("forget").tolist() == [1] * 20 and found.seeds == (0, 1, 2)
    images = np.concatenate([np.asarray(x) for x, _ in loaders["test"]])
    np.testing.assert_allclose(found.models["mine", 2]["test"].outputs[1],
                               images.reshape(30, 6) @ (weights[1] + 1), rtol=1e-4, atol=1e-4)
    assert main([str(folder), f"--out={tmp_path / 'out'}", "--audits=mia"]) == 0
    assert "M_MINE" in (tmp_path / "out" / "report.md").read_text()
