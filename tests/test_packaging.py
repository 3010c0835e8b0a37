"""What a wheel holds, with and without a C++ compiler."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NATIVE = "fedft/quant/_native/"
LIBRARY = f"{NATIVE}libfedft_cpu.so"

pytestmark = pytest.mark.slow


def wheel(folder: Path, monkeypatch: pytest.MonkeyPatch, compiler: str) -> zipfile.ZipFile:
    monkeypatch.setenv("CXX", compiler)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*command, "--wheel-dir", folder, ROOT], check=True, capture_output=True, text=True)
    (path,) = folder.glob("fedft-*.whl")
    return zipfile.ZipFile(path)


def kept(*folders: str) -> set[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *folders]
    return set(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split())


def test_with_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = wheel(tmp_path, monkeypatch, "c++")
    metadata = files.read("fedft-0.2.0.dist-info/METADATA").decode()

    assert LIBRARY in files.namelist()
    assert "Requires-Dist: torch" in metadata
    assert 'peft>=0.17; extra == "dev"' in metadata


def test_an_editable_installation_is_this_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*command, "--target", tmp_path, "-e", ROOT], check=True, capture_output=True, text=True)

    (paths,) = tmp_path.glob("*.pth")
    assert str(ROOT) in paths.read_text().splitlines()
    assert not (tmp_path / "fedft").exists()


def test_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = wheel(tmp_path, monkeypatch, "/no/such/compiler")
    names = {name for name in files.namelist() if ".dist-info/" not in name}

    assert LIBRARY not in names
    kernels = {NATIVE + name.removeprefix("kernels/") for name in kept("kernels/csrc")}
    assert names == kept("fedft") | kernels

    # The wheel as installed: every function there, computed by torch.
    files.extractall(tmp_path / "site")
    probe = "import fedft, torch; from fedft.quant import describe, NF4Weight; "
    probe += "print(fedft.__file__, describe()['CPU kernels']); NF4Weight.quantise(torch.ones(2, 64))"
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    result = subprocess.run(
        [sys.executable, "-c", probe], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert str(tmp_path / "site") in result.stdout
    assert "plain torch" in result.stdout
