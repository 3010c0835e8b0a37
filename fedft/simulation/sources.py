"""What a configuration names and this machine does not have."""

from __future__ import annotations

from fedft.config import RunConfig
from fedft.config.rules import reads_public
from fedft.config.validation import ValidationIssue
from fedft.data.readers import require_found
from fedft.errors import FedftError
from fedft.models.sources import resolve_source


def missing_sources(config: RunConfig, *, deployed: bool = False) -> list[ValidationIssue]:
    """Return the keys whose files are not here; nothing is read, and no hub is asked.

    Args:
        config: of a run.
        deployed: whether the training records lie at sites, so that they need not be here.

    """
    wanted = {"data.test": config.data.test} if config.evaluation.every else {}
    if not deployed:
        wanted["data.train"] = config.data.train
    if reads_public(config):
        wanted["data.public"] = config.data.public
    found = []
    try:
        resolve_source(config.model.source)
    except FedftError as error:
        found.append(ValidationIssue("model.source", error.message))
    for path, source in sorted(wanted.items()):
        try:
            require_found(source, format=config.data.format)
        except FedftError as error:
            found.append(ValidationIssue(path, error.message))
    return found
