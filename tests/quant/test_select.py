"""Which kernels are used, how they are built, and what happens when they cannot be."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fedft.errors import FedftError
from fedft.quant import NF4Weight, build, describe, select
from fedft.quant.build import BuildError
from fedft.quant.cpu_library import CpuLibrary, LibraryError

needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler on this machine")


@pytest.fixture(autouse=True)
def fresh_choice(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("FEDFT_KERNELS", "FEDFT_KERNELS_ISA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(select, "_PACKAGED", Path("/nonexistent"))
    select.forget()
    yield
    select.forget()


@pytest.fixture
def broken_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a compiler that counts its calls and fails."""
    compiler = tmp_path / "c++"
    compiler.write_text(
        f"#!/bin/sh\necho call >> {tmp_path}/calls\necho 'file.cpp:1: error: no' >&2\nexit 1\n"
    )
    compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_torch_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDFT_KERNELS", "torch")
    assert select.cpu() is None
    assert select.cuda() is None
    assert "plain torch" in describe()["CPU kernels"]


def test_an_unknown_choice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDFT_KERNELS", "fast")
    with pytest.raises(FedftError, match="FEDFT-9001"):
        select.cpu()


def test_cuda_cannot_be_forced_without_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("FEDFT_KERNELS", "cuda")
    with pytest.raises(FedftError, match=r"FEDFT-9002.*no CUDA device"):
        select.cuda()


def test_falls_back_to_torch_with_the_compilers_reason(broken_compiler: Path) -> None:
    assert select.cpu() is None
    assert "error: no" in describe()["CPU kernels"]
    expected = NF4Weight.quantise(torch.ones(2, 64)).digest()
    select.forget()
    assert NF4Weight.quantise(torch.ones(2, 64)).digest() == expected


def test_insisting_on_the_cpu_library_fails_without_it(
    broken_compiler: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDFT_KERNELS", "cpu")
    with pytest.raises(FedftError, match="FEDFT-9002"):
        select.cpu()


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    assert select.cpu() is None
    assert "no compiler" in describe()["CPU kernels"]


def test_a_cache_that_others_can_write_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = build.cache_folder() / f"cpu-{build.build_id('cpu')}-{os.uname().machine}"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    with pytest.raises(BuildError, match="written by others"):
        build.cached_cpu()


@needs_compiler
@pytest.mark.parametrize("tier", ["scalar", None])
def test_the_instruction_set_can_be_forced(tier: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if tier:
        monkeypatch.setenv("FEDFT_KERNELS_ISA", tier)
    library = select.cpu()
    assert library is not None
    assert library.tier == (tier or library.best_tier)
    assert library.tier in describe()["CPU kernels"]
    monkeypatch.setenv("FEDFT_KERNELS_ISA", "neon9")
    select.forget()
    with pytest.raises(FedftError, match="FEDFT-9001"):
        select.cpu()


_BUILD = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("build", sys.argv[1])
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)
print(build.cached_cpu())
"""


@needs_compiler
def test_processes_that_start_together_build_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text(f'#!/bin/sh\necho call >> {tmp_path}/calls\nexec {shutil.which("c++")} -O0 "$@"\n')
    compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    command = [sys.executable, "-c", _BUILD, str(build.__file__)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    paths = [process.communicate(timeout=300)[0].strip() for process in started]
    assert len(set(paths)) == 1
    calls = (tmp_path / "calls").read_text().count("call")
    assert calls == 1 + 1 + len(
        list((build.sources() / "cpu").glob("*.cpp"))
    )  # probe, link, each source once
    assert [p.name for p in Path(paths[0]).parent.iterdir() if p.suffix != ""] == ["libfedft_cpu.so"]
    assert CpuLibrary(Path(paths[0])).build_id == build.build_id("cpu")


@needs_compiler
def test_a_kernel_that_is_given_no_memory_refuses_it() -> None:
    library = select.cpu()
    assert library is not None
    nowhere, total = torch.empty(0, dtype=torch.uint8), torch.zeros(16)

    with pytest.raises(FedftError, match=r"FEDFT-9004 .*fedft_ternary_add_f32"):
        library.ternary_add(nowhere, nowhere, 1.0, total)

    assert not total.any()


@needs_compiler
def test_another_interface_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "old.c"
    source.write_text("int fedft_abi_version(void) { return 999; }\n")
    packaged = tmp_path / "libfedft_cpu.so"
    subprocess.run(["c++", "-x", "c", "-shared", "-fPIC", source, "-o", packaged], check=True)
    with pytest.raises(LibraryError, match="version 999"):
        CpuLibrary(packaged)
    monkeypatch.setattr(select, "_PACKAGED", tmp_path)
    assert select.cpu() is not None  # the cached build serves instead
    assert any("version 999" in reason for reason in select.cpu_choice().reasons)


@needs_compiler
def test_a_packaged_library_of_other_sources_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(select, "_PACKAGED", tmp_path)
    shutil.copy(build.cached_cpu(), tmp_path / "libfedft_cpu.so")
    assert "installed with the package" in describe()["CPU kernels"]
    select.forget()
    monkeypatch.setattr(build, "build_id", lambda kind: "0" * 16)
    choice = select.Choice()
    select._try_packaged(choice, "libfedft_cpu.so", "cpu", CpuLibrary)
    assert choice.library is None
    assert "other sources" in choice.reasons[0]
