"""The tests test the code that lies beside them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import fedft

ROOT = Path(__file__).parents[1]


def test_the_imported_package_lies_beside_the_tests() -> None:
    assert Path(fedft.__file__).parent == ROOT / "fedft"


def test_another_checkout_on_the_path_goes_before_an_editable_installation(tmp_path: Path) -> None:
    other = tmp_path / "checkout" / "fedft"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text('"""Another checkout."""\n')
    installed = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*command, "--target", installed, "-e", ROOT], check=True, capture_output=True, text=True)
    # A site folder of its own stands for the environment, so that its .pth files count.
    probe = f"import site; site.addsitedir({str(installed)!r}); import fedft; print(fedft.__file__)"
    found = [
        subprocess.run(
            [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:0] = {path!r}; {probe}"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": ""},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for path in ([], [str(other.parent)])
    ]
    assert found == [str(ROOT / "fedft" / "__init__.py"), str(other / "__init__.py")]
