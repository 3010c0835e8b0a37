"""Write docs/reference/configuration.md and pyproject.toml's Flower tables; with --check, compare."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fedft.config.reference import manifest, reference

ROOT = Path(__file__).resolve().parent.parent
REFERENCE, PROJECT = ROOT / "docs" / "reference" / "configuration.md", ROOT / "pyproject.toml"
FIRST, AFTER = "[tool.flwr.app.config]\n", "\n[tool.ruff]\n"


def main() -> int:
    """Write both files, or name those that are out of date; the exit status says whether one is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when out of date")
    check = parser.parse_args().check
    old = [path for path, text in wanted().items() if not path.exists() or path.read_text("utf-8") != text]
    for path in old:
        if check:
            print(f"{path.relative_to(ROOT)} is out of date: run make reference")
            continue
        path.parent.mkdir(exist_ok=True)
        path.write_text(wanted()[path], encoding="utf-8")
    return int(check and bool(old))


def wanted() -> dict[Path, str]:
    """Return what each file should hold."""
    text = PROJECT.read_text(encoding="utf-8")
    head, rest = text[: text.index(FIRST)], text[text.index(AFTER) :]
    return {REFERENCE: reference(), PROJECT: head + manifest() + rest}


if __name__ == "__main__":
    sys.exit(main())
