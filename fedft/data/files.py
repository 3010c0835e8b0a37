"""Reading one file of records: JSON lines, CSV, TSV or Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet

from fedft.data.records import Record, Records
from fedft.errors import Code, FedftError

SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}


def read_file(path: Path, format: str, columns: Sequence[str]) -> Records:
    """Read one file whole into memory.

    Args:
        path: an existing file.
        format: "jsonl", "csv", "tsv" or "parquet"; "auto" goes by the file's ending.
        columns: names of the columns of a CSV or TSV file without a header.

    Raises:
        FedftError: FEDFT-3002 unknown format, FEDFT-3003 malformed content with its line,
            FEDFT-3007 columns given for a format that names its own fields.

    """
    kind = SUFFIXES.get(path.suffix.lower(), "") if format == "auto" else format
    reader = _READERS.get(kind)
    if reader is None:
        raise FedftError(
            Code.DATA_FORMAT_UNKNOWN,
            f"cannot tell the format of {path}",
            hint=f"set data.format, or use one of the endings {', '.join(SUFFIXES)}",
        )
    if columns and kind not in ("csv", "tsv"):
        raise FedftError(
            Code.COLUMNS_NOT_ALLOWED, f"data.columns is set, but {path} is {kind}, which names its fields"
        )
    try:
        rows = tuple(reader(path, columns))
    except UnicodeDecodeError as error:
        raise FedftError(
            Code.DATA_MALFORMED,
            f"{path} is not UTF-8 text: byte {error.start} of a block is {error.object[error.start]:#x}",
        ) from error
    return Records(rows, (str(path),) * len(rows))


def _read_jsonl(path: Path, _: Sequence[str]) -> Iterator[Record]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _json_object(line, path, number)


def _json_object(line: str, path: Path, number: int) -> Record:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise _malformed(path, number, f"not JSON: {error.msg} at column {error.colno}") from error
    if not isinstance(row, dict):
        raise _malformed(path, number, f"a JSON object is needed, this is a {type(row).__name__}")
    return row


def _read_csv(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from _table(csv.reader(file, strict=True), path, columns)


def _read_tsv(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    """Tab-separated text as the field writes it: a quotation mark is a character like any other."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from _table(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE), path, columns)


def _table(reader: csv._reader, path: Path, columns: Sequence[str]) -> Iterator[Record]:  # type: ignore[name-defined, unused-ignore]
    names = list(columns)
    try:
        for row in reader:
            if not row:
                continue
            if not names:
                names = _header(row, path)
                continue
            if len(row) != len(names):
                raise _malformed(path, reader.line_num, f"{len(row)} cells, expected {len(names)}")
            yield dict(zip(names, row, strict=True))
    except csv.Error as error:
        raise _malformed(path, reader.line_num, str(error)) from error


def _header(row: list[str], path: Path) -> list[str]:
    if len(set(row)) != len(row) or not all(row):
        raise FedftError(
            Code.DATA_MALFORMED,
            f"the header of {path} has empty or repeated names: {row}",
            hint="if the file has no header, name its columns in data.columns",
        )
    return row


def _read_parquet(path: Path, _: Sequence[str]) -> Iterator[Record]:
    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        raise FedftError(Code.DATA_MALFORMED, f"{path} is not a Parquet file: {error}") from error
    yield from table.to_pylist()


def _malformed(path: Path, line: int, what: str) -> FedftError:
    return FedftError(Code.DATA_MALFORMED, f"line {line} of {path}: {what}")


_READERS: dict[str, Callable[[Path, Sequence[str]], Iterator[Record]]] = {
    "jsonl": _read_jsonl,
    "csv": _read_csv,
    "tsv": _read_tsv,
    "parquet": _read_parquet,
}
