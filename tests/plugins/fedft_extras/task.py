"""Language modelling with the loss on the whole text."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from fedft.data.records import Records
from fedft.data.report import DataReport
from fedft.data.samples import CausalSample
from fedft.options import Options
from fedft.training.causal_lm import CausalLM


class WholeTextOptions(Options):
    context: int = Field(1, ge=1, description="first tokens of a text, without loss")


class WholeText(CausalLM):
    generates = False
    options = WholeTextOptions

    def prepare(
        self, records: Records, *, skip_unreadable: bool = False
    ) -> tuple[list[CausalSample], DataReport]:
        samples, report = super().prepare(records, skip_unreadable=skip_unreadable)
        return [replace(sample, loss_from=self._task.options.context) for sample in samples], report
