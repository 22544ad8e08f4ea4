"""The script that counts how often weights are warned of, with nets that learn next to nothing."""

import json
import sys

from benchmarks import belonging


def test_every_pairing_is_counted_for_both_kinds_of_images(monkeypatch, capsys, tmp_path):
    path = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", [
        "benchmark", "--network", "resnet4", "--variant", "torchvision", "--n", "2", "--width", "2",
        "--image-size", "16", "--train", "64", "--epochs", "1", "--json", str(path)])
    asked = []

    def said(model, variables, images):
        """Warns of unpadded pools alone, and names the very change."""
        asked.append((model.module.variant.pool_padding, model.module.preprocess, images.shape))
        return "a network with a padded pool: ..." if not model.module.variant.pool_padding else ""

    monkeypatch.setattr(belonging, "doubt_of", said)
    belonging.main()
    rows = json.loads(path.read_text())["rows"]
    assert [(row["trained on"], row["used on"]) for row in rows] == [
        ("faces", "faces"), ("faces", "digits"), ("digits", "digits"), ("digits", "faces")]
    for row in rows:
        assert (row["right"], row["pool"], row["preprocess='caffe'"]) == ("0", "2 (2)", "0 (0)")
    assert {shape for *_, shape in asked} == {(64, 16, 16, 3)}
    assert len(asked) == 4 * 2 * 5 and {kind for _, kind, _ in asked} == {
        "torch", "unit", "caffe", "vggface2"}
    assert "| network | variant | trained on | used on | right | pool |" in capsys.readouterr().out


def test_changes_have_the_same_name_in_both_directions():
    assert belonging._changed("strides in the 3x3 convolutions and a padded pool") \
        == "strides and pool"
    assert belonging._changed("an unpadded pool") == belonging._changed("a padded pool") == "pool"
    assert belonging._changed("preprocess='unit'") == "preprocess='unit'"
