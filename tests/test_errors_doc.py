"""Every error code is documented, raised somewhere, and met by some test."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedft.errors import Code

ROOT = Path(__file__).parents[1]
FORM = re.compile(r"FEDFT-[0-9]{4}")
ROW = re.compile(r"\| (FEDFT-\d{4}) \| (.+) \| (.+) \|")
CODES = [str(code) for code in Code]


def product() -> Iterator[tuple[Path, ast.Module]]:
    for room in ("fedft", "client_app", "server_app"):
        for path in sorted((ROOT / room).rglob("*.py")):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def used(node: ast.AST) -> Iterator[str]:
    """Names of the codes that are used for more than a comparison."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Compare):
            continue
        if (
            isinstance(child, ast.Attribute)
            and isinstance(child.value, ast.Name)
            and child.value.id == "Code"
        ):
            yield child.attr
        yield from used(child)


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


def test_the_documentation_has_one_row_for_each_code_in_the_same_order() -> None:
    assert [code for _, code, _, _ in documented()] == CODES


def test_codes_are_in_order() -> None:
    assert sorted(CODES) == CODES


def test_a_number_has_one_name() -> None:
    assert [name for name, code in Code.__members__.items() if name != code.name] == []


def test_every_code_is_raised() -> None:
    names = {name for path, tree in product() if path.name != "codes.py" for name in used(tree)}
    assert sorted(Code.__members__.keys() - names) == []


def test_every_code_is_met_by_a_test() -> None:
    met: set[str] = set()
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        met |= {*FORM.findall(text), *re.findall(r"\bCode\.([A-Z][A-Z0-9_]*)", text)}
    assert [code for code in Code if code.value not in met and code.name not in met] == []


def test_the_source_writes_codes_as_members() -> None:
    literals = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, tree in product()
        if path.name != "codes.py"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and FORM.fullmatch(node.value)
    ]
    assert literals == []


def test_docstrings_name_no_code_that_does_not_exist() -> None:
    mentioned = {code for path, _ in product() for code in FORM.findall(path.read_text(encoding="utf-8"))}
    assert sorted(mentioned - set(CODES)) == []


def test_a_row_is_in_the_section_of_its_band() -> None:
    assert [code for section, code, _, _ in documented() if code.removeprefix("FEDFT-")[0] != section] == []


@pytest.mark.parametrize("column", ["meaning", "what to do"])
def test_every_row_says_something(column: str) -> None:
    position = {"meaning": 2, "what to do": 3}[column]

    assert [row[1] for row in documented() if len(row[position]) < 10] == []
