"""Every error code in the source is in docs/errors.md, and the other way round."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = re.compile(r"FEDFT-\d{4}")
ROW = re.compile(r"\| (FEDFT-\d{4}) \| (.+) \| (.+) \|")


def raised() -> dict[str, set[str]]:
    """Codes that stand in the source as whole strings, each with the files that hold it."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "fedft").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value):
                found.setdefault(node.value, set()).add(str(path.relative_to(ROOT)))
    return found


def mentioned() -> set[str]:
    """Codes that stand anywhere in the source, comments and docstrings included."""
    files = (ROOT / "fedft").rglob("*.py")
    return {code for path in files for code in CODE.findall(path.read_text(encoding="utf-8"))}


def documented() -> list[tuple[str, str, str, str]]:
    """The rows of docs/errors.md: the section's first digit, code, meaning, what to do."""
    rows, section = [], ""
    for line in (ROOT / "docs" / "errors.md").read_text(encoding="utf-8").splitlines():
        heading = re.match(r"## (\d)xxx ", line)
        section = heading[1] if heading else section
        row = ROW.fullmatch(line)
        if row:
            rows.append((section, row[1], row[2].strip(), row[3].strip()))
        else:
            assert "FEDFT-" not in line, f"not a row of the table: {line}"
    return rows


def test_every_code_in_the_source_is_documented() -> None:
    codes = {code for _, code, _, _ in documented()}

    missing = {code: files for code, files in raised().items() if code not in codes}
    assert not missing


def test_every_documented_code_is_raised() -> None:
    assert sorted({code for _, code, _, _ in documented()} - raised().keys()) == []


def test_docstrings_name_no_code_that_does_not_exist() -> None:
    assert sorted(mentioned() - raised().keys()) == []


def test_a_code_has_one_row_in_the_section_of_its_band() -> None:
    rows = documented()

    repeated = [code for code, count in Counter(code for _, code, _, _ in rows).items() if count > 1]
    assert repeated == []
    misplaced = [code for section, code, _, _ in rows if code.removeprefix("FEDFT-")[0] != section]
    assert misplaced == []


def test_rows_are_in_order() -> None:
    codes = [code for _, code, _, _ in documented()]

    assert codes == sorted(codes)


@pytest.mark.parametrize("column", ["meaning", "what to do"])
def test_every_row_says_something(column: str) -> None:
    position = {"meaning": 2, "what to do": 3}[column]

    assert [row[1] for row in documented() if len(row[position]) < 10] == []
