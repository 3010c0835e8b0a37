"""What would end a simulated run, found before there is one."""

from __future__ import annotations

from fedft.adapters import resolve_targets
from fedft.adapters.frame_file import check_sizes
from fedft.adapters.frozen import shape_of
from fedft.config import RunConfig
from fedft.config.rules import reads_public
from fedft.data.readers import Split
from fedft.errors import Code, FedftError
from fedft.models.load import load_tokenizer
from fedft.models.skeleton import load_skeleton
from fedft.privacy.models.interface import privacy_model
from fedft.training.client_records import ClientRecords, load_records_of
from fedft.training.task import make_task

_TRIED = 32
"""Records of each client that are made into samples."""


def check_startable(config: RunConfig) -> None:
    """Try what a run needs: model description, tokenizer, targets and rank, all data, some samples of each.

    No weight is read.

    Raises:
        FedftError: what loading, reading or adapting raises; FEDFT-3031 when a client of a private run,
            which skips what it cannot read, has no record that can be read among the first.

    """
    _check_model(config)
    task = make_task(config, load_tokenizer(config.model))
    records = ClientRecords(config)
    private = privacy_model(config).private
    for client in range(config.data.partition.clients):
        first = records.of(client)[:_TRIED]
        if first and not task.prepare(first, skip_unreadable=private)[0]:
            task.prepare(first)  # says what is wrong with them
            raise FedftError(Code.NOTHING_TO_TRAIN, f"client {client} has no record that can be read")
    for split in _further_splits(config):
        task.prepare(load_records_of(config, split)[:_TRIED])


def _check_model(config: RunConfig) -> None:
    model = load_skeleton(config.model, config.task)
    patterns = config.adapter.targets
    for name in resolve_targets(model, "auto" if patterns == ("auto",) else list(patterns)):
        check_sizes(config.adapter.rank, shape_of(model.get_submodule(name)), config.adapter.scale)


def _further_splits(config: RunConfig) -> list[Split]:
    splits: list[Split] = ["test"] if config.evaluation.every else []
    return [*splits, "public"] if reads_public(config) else splits
