"""Fetching: checksums, members, a wheel placed by hand, and a clear word when there is no network."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from ssdenoise.config.specs import Download, FetchSpec
from ssdenoise.errors import FormatError, MissingInputError
from ssdenoise.fetch import fetch
from ssdenoise.provenance import file_digest


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "some_data-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("some_data/image.bin", b"pixels")
    return path


def spec_for(wheel: Path, member: str = "some_data/image.bin", **changes: str) -> FetchSpec:
    options = {"requirement": "some-data==1.0", "sha256": file_digest(wheel)} | changes
    return FetchSpec(download=Download(members=[member], **options), member=member)  # type: ignore[arg-type]


def test_a_wheel_placed_by_hand_is_used(wheel: Path, tmp_path: Path) -> None:
    fetch(spec_for(wheel), tmp_path / "image.bin")
    assert (tmp_path / "image.bin").read_bytes() == b"pixels"


def test_a_wrong_checksum_is_refused(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="needed 0000"):
        fetch(spec_for(wheel, sha256="0" * 64), tmp_path / "image.bin")
    assert not (tmp_path / "image.bin").exists()


def test_a_missing_member_is_named(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no member 'other'"):
        fetch(spec_for(wheel, member="other"), tmp_path / "other")


def test_without_a_network_it_says_what_to_place_where(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (
        ("PIP_NO_INDEX", "1"),
        ("PIP_FIND_LINKS", str(tmp_path / "nothing")),
        ("PIP_CONFIG_FILE", "/dev/null"),
    ):
        monkeypatch.setenv(name, value)
    with pytest.raises(MissingInputError, match=r"place some_data-1\.0-\*\.whl in .*empty") as caught:
        fetch(spec_for(wheel), tmp_path / "empty" / "image.bin")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "empty").iterdir())
