"""A finding of verify always says why, also where the system's error has no text of its own."""

from unlearn_jax.storage import manifest
from unlearn_jax.system import disk
from unlearn_jax.verify import __main__ as verify_main
from unlearn_jax.verify import store as verify_store


def _fail(path):
    raise OSError(f"no digest of {path.name}")  # one argument: errno and strerror are None


def test_a_file_of_the_store_that_cannot_be_read_has_a_reason(tmp_path, monkeypatch):
    (tmp_path / "weights").write_bytes(b"1234")
    monkeypatch.setattr(disk, "digest", _fail)
    marker = {"files": {"weights": 4}, "digests": {"weights": "0"}}
    reasons = [f.why for f in verify_store._files_of(tmp_path, marker)]
    assert reasons == ["no digest of weights"]


def test_a_file_of_a_work_directory_that_cannot_be_read_has_a_reason(tmp_path, monkeypatch):
    (tmp_path / "results.csv").write_text("a\n")
    monkeypatch.setattr(manifest, "read", lambda directory: {"results.csv": "0"})
    monkeypatch.setattr(manifest, "is_reported", lambda directory: False)
    monkeypatch.setattr(disk, "digest", _fail)
    assert "no digest of results.csv" in [f.why for f in verify_main.verify_workdir(tmp_path)]
