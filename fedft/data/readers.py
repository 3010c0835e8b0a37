"""Records from wherever the configuration says: files, globs, folders, the hub, or the demo."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path

from fedft.data.files import SUFFIXES, read_file
from fedft.data.records import Records, merge
from fedft.data.word_problems import STORIES, Split, generate
from fedft.errors import Code, FedftError

DEMO_PER_FAMILY: dict[Split, int] = {"train": 1000, "test": 100, "public": 32}
_HUB = re.compile(r"(?P<id>[\w.-]+(/[\w.-]+)?)(:(?P<config>[\w.-]+))?(@(?P<split>[\w.\[\]:%+-]+))?")


def load_records(
    source: str,
    *,
    format: str = "auto",
    columns: Sequence[str] = (),
    split: Split = "train",
    seed: int = 0,
) -> Records:
    """Load every record of a source into memory.

    Args:
        source: a file; a glob, whose files keep their names as origins; a folder that
            ``datasets.save_to_disk`` wrote, or one with data files; a hub id as
            ``owner/name[:config][@split]``; or "demo", the generated word problems.
        format: "auto", "jsonl", "csv", "tsv", "parquet" or "arrow".
        columns: names of the columns of CSV or TSV files without a header.
        split: what the records are for; picks the split of a source that has several.
        seed: seed of the generated records.

    Raises:
        FedftError: FEDFT-3001 nothing there, FEDFT-3002 unknown format, FEDFT-3003 malformed,
            FEDFT-3004 no records, FEDFT-3006 the hub failed, FEDFT-3007 needless columns.

    """
    records = _load(source, format, columns, split, seed)
    if not records:
        raise FedftError(Code.DATA_EMPTY, f"{source} holds no records")
    return records


def require_found(source: str, *, format: str = "auto") -> None:
    """Raise FEDFT-3001 where a source means a path at which nothing lies; reads nothing, asks no hub."""
    path = Path(source).expanduser()
    if source == "demo" or path.exists():
        return
    if glob.has_magic(source) and not _HUB.fullmatch(source):
        if not glob.glob(str(path), recursive=True):
            raise FedftError(Code.DATA_NOT_FOUND, f"no file matches {source} (looked in {Path.cwd()})")
    elif _is_path(source, format):
        raise _nothing_at(source)


def _nothing_at(source: str) -> FedftError:
    return FedftError(Code.DATA_NOT_FOUND, f"there is no file or folder {source} (looked in {Path.cwd()})")


def _load(source: str, format: str, columns: Sequence[str], split: Split, seed: int) -> Records:
    if source == "demo":
        return _demo(split, seed)
    path = Path(source).expanduser()
    if path.is_dir():
        return _read_folder(path, format, columns, split)
    if path.is_file():
        return read_file(path, format, columns)
    if glob.has_magic(source) and not _HUB.fullmatch(source):
        return _read_glob(str(path), format, columns)
    if _is_path(source, format):
        raise _nothing_at(source)
    return _read_hub(source, split)


def _demo(split: Split, seed: int) -> Records:
    """The clients' families; ``public`` is the sample that the demo's consortium shares openly."""
    rows = generate(STORIES, split, DEMO_PER_FAMILY[split], seed)
    return Records(tuple(dict(row) for row in rows), ("demo",) * len(rows))


def _read_folder(path: Path, format: str, columns: Sequence[str], split: Split) -> Records:
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return _read_arrow(path, split)
    if format == "arrow":
        raise FedftError(Code.DATA_NOT_FOUND, f"{path} is not a folder that datasets.save_to_disk wrote")
    files = sorted(
        file
        for file in path.iterdir()
        if file.is_file() and (format != "auto" or file.suffix.lower() in SUFFIXES)
    )
    if not files:
        raise FedftError(
            Code.DATA_NOT_FOUND, f"the folder {path} holds no data files ({', '.join(SUFFIXES)})"
        )
    return merge(read_file(file, format, columns) for file in files)


def _read_glob(pattern: str, format: str, columns: Sequence[str]) -> Records:
    files = sorted(Path(name) for name in glob.glob(pattern, recursive=True) if Path(name).is_file())
    if not files:
        raise FedftError(Code.DATA_NOT_FOUND, f"no file matches {pattern} (looked in {Path.cwd()})")
    return merge(read_file(file, format, columns) for file in files)


def _read_arrow(path: Path, split: Split) -> Records:
    from datasets import DatasetDict, load_from_disk

    loaded = load_from_disk(str(path))
    if isinstance(loaded, DatasetDict):
        if split not in loaded:
            raise FedftError(
                Code.DATA_NOT_FOUND, f"{path} has no split {split!r}; it has {', '.join(loaded)}"
            )
        loaded = loaded[split]
    return Records(tuple(loaded.to_list()), (str(path),) * len(loaded))


def _is_path(source: str, format: str) -> bool:
    """Whether a source that does not exist was meant as a path, not as a hub id."""
    return (
        format != "auto"
        or Path(source).suffix.lower() in SUFFIXES
        or source.startswith((".", "/", "~"))
        or not _HUB.fullmatch(source)
    )


def _read_hub(source: str, split: Split) -> Records:
    from datasets import load_dataset

    match = _HUB.fullmatch(source)
    if match is None:  # _is_path has let only hub ids through
        raise ValueError(source)
    wanted = match["split"] or split
    try:
        loaded = load_dataset(match["id"], match["config"], split=wanted)
    except (OSError, ValueError, RuntimeError) as error:
        raise FedftError(
            Code.HUB_DATASET_UNAVAILABLE,
            f"{source} is no file or folder here, and the hub could not give it: {error}",
            hint="check the path; without network, save the data set to a folder and name that",
        ) from error
    return Records(tuple(loaded.to_list()), (f"{match['id']}@{wanted}",) * len(loaded))


__all__ = ["Split", "load_records"]
