"""What a site has agreed to of how its records are read and computed with.

A template, a field's name or a label is a question about every record: a server that may choose them chooses
what a record does. A site therefore pins them, and what a run asks is compared with the pins, never used
beyond them.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field

from fedft.config.named import Section
from fedft.config.schema import FieldsSection, Names, RunConfig
from fedft.errors import Code, FedftError

_KEYS = {
    "task": "task.kind",
    "labels": "task.labels",
    "options": "the task's own options",
    "fields": "data.fields",
    "prompt_template": "data.prompt_template",
    "completion_template": "data.completion_template",
    "chat_template": "model.chat_template",
    "dtype": "model.dtype",
    "tokenizer": "the tokenizer's digest",
}


class Pinned(Section):
    """How a site's records become samples, and in which arithmetic; every key must be given."""

    task: str = Field(description="task.kind of the run")
    labels: Names = Field(description="task.labels")
    options: dict[str, Any] = Field(description="further keys of the run's [task], which are the task's own")
    fields: FieldsSection = Field(description="data.fields")
    prompt_template: str = Field(description="data.prompt_template")
    completion_template: str = Field(description="data.completion_template")
    chat_template: str = Field(description="model.chat_template")
    dtype: str = Field(description="model.dtype")
    tokenizer: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the tokenizer's rules")

    @classmethod
    def of(cls, config: RunConfig, tokenizer: str) -> Self:
        """Return what a run asks of the site that it is localised for.

        Args:
            config: with the site's own data and model in it.
            tokenizer: digest of the tokenizer that is loaded for it.

        """
        return cls(
            task=config.task.kind,
            labels=config.task.labels,
            options=config.task.options.model_dump(mode="json"),
            fields=config.data.fields,
            prompt_template=config.data.prompt_template,
            completion_template=config.data.completion_template,
            chat_template=config.model.chat_template,
            dtype=config.model.dtype,
            tokenizer=tokenizer,
        )

    def require(self, asked: Pinned) -> None:
        """Refuse a run that asks for anything else; FEDFT-8327 lists every difference."""
        ours, theirs = self.named(), asked.named()
        different = [
            f"{key} is {theirs[key]!r:.200}, pinned {ours[key]!r:.200}"
            for key in ours
            if theirs[key] != ours[key]
        ]
        if different:
            raise FedftError(
                Code.PIN_VIOLATED,
                f"the run would read this site's records in another way: {'; '.join(different)}",
                hint="only the site's operator can change what is pinned: fedft client pin",
            )

    def named(self) -> dict[str, Any]:
        """Return every pin under the key of the run's configuration that it is compared with."""
        values = self.model_dump(mode="json")
        return {key: values[name] for name, key in _KEYS.items()}
