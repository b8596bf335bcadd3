"""Weights in installed packages: a package made here stands for one of the index."""

import hashlib
from dataclasses import replace

import pytest

from pipeline.core.errors import ConfigError
from pipeline.core.package import PackageFile

WEIGHTS = PackageFile(
    "small-model", "1.2.0", "small/model.bin", hashlib.sha256(b"weights").hexdigest(), "small/LICENSE"
)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "model.bin").write_bytes(b"weights")
    (tmp_path / "small_model-1.1.0.dist-info").mkdir()
    (tmp_path / "small_model-1.1.0.dist-info" / "METADATA").write_text("Name: small-model\nVersion: 1.1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "small" / "model.bin"


def test_file_of_a_package_is_found_without_its_code(installed):
    assert WEIGHTS.find(None, "extractor.path") == installed


def test_other_bytes_are_refused_with_what_was_found_and_expected(installed):
    installed.write_bytes(b"others")
    with pytest.raises(ConfigError, match=r"small-model 1\.1\.0 .*expected version 1\.2\.0.*EXTRAS=pretrained"):
        WEIGHTS.find(None, "extractor.path")
    installed.unlink()
    with pytest.raises(ConfigError, match=r"no small/model\.bin; expected"):
        WEIGHTS.find(None, "extractor.path")


def test_missing_package_names_the_command():
    with pytest.raises(ConfigError, match=r"not installed.*`make setup EXTRAS=pretrained`.*gate\.path"):
        replace(WEIGHTS, package="never-heard-of").find(None, "gate.path")


def test_own_file_needs_no_package(tmp_path):
    path = tmp_path / "mine.bin"
    with pytest.raises(ConfigError, match=r"gate\.path: there is no file"):
        WEIGHTS.find(str(path), "gate.path")
    path.write_bytes(b"weights")
    assert WEIGHTS.find(str(path), "gate.path") == path
    path.write_bytes(b"others")
    with pytest.warns(UserWarning, match=r"mine\.bin .* is not the model\.bin of small-model 1\.2\.0"):
        assert WEIGHTS.find(str(path), "gate.path") == path
