"""Causal-LM samples: a prompt, and a completion that carries the loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from fedft.config.schema import DataSection, TaskSection
from fedft.data.records import Records, missing_field
from fedft.data.report import DataReport
from fedft.data.samples import CausalSample, Tokenizer, fit_samples, group_of, where
from fedft.data.templates import TextTemplate, check_messages
from fedft.errors import Code, FedftError

Texts = tuple[str, str, str]
"""Prompt, completion as it is trained on, completion as it is compared with."""


def causal_samples(
    records: Records, data: DataSection, task: TaskSection, tokenizer: Tokenizer
) -> tuple[list[CausalSample], DataReport]:
    """Token ids of every record's prompt and completion, with the loss on the completion alone.

    The two are tokenised apart, as they are when the model answers a prompt. A prompt starts with the
    tokenizer's own special tokens, a completion ends with the end-of-sequence token; in a chat the
    chat template sets both, and the completion is the last assistant message.

    Raises:
        FedftError: FEDFT-3005 missing field, FEDFT-3020 bad template, FEDFT-3021 and FEDFT-3022 bad
            chat, FEDFT-3024 too long, FEDFT-3025 nothing left.

    """
    chat = bool(data.fields.messages)
    texts = list(_chats(records, data, tokenizer) if chat else _pairs(records, data))
    prompts = tokenizer([prompt for prompt, _, _ in texts], add_special_tokens=not chat, verbose=False)
    answers = tokenizer([answer for _, answer, _ in texts], add_special_tokens=False, verbose=False)
    ending = () if chat else (tokenizer.eos_token_id,)
    built = [
        _sample(tuple(prompt), tuple(answer), ending, reference, group_of(records, index, data.fields.group))
        for index, (prompt, answer, (_, _, reference)) in enumerate(
            zip(prompts["input_ids"], answers["input_ids"], texts, strict=True)
        )
    ]

    def cut(_: int, sample: CausalSample) -> CausalSample | None:
        if sample.loss_from >= task.max_length:
            return None
        return replace(sample, ids=sample.ids[: task.max_length])

    return fit_samples(built, cut, records, task)


def _sample(
    prompt: tuple[int, ...], answer: tuple[int, ...], ending: tuple[int, ...], reference: str, group: str
) -> CausalSample | None:
    """None when there is nothing to predict, or nothing to predict it from."""
    if not prompt or not answer:
        return None
    return CausalSample(prompt + answer + ending, len(prompt), reference, group)


def _pairs(records: Records, data: DataSection) -> Iterator[Texts]:
    prompt, completion = TextTemplate(data.prompt_template), TextTemplate(data.completion_template)
    for index in range(len(records)):
        values = _Values(records, index, {"prompt": data.fields.prompt, "completion": data.fields.completion})
        answer = completion.render(values)
        yield prompt.render(values), answer, answer


class _Values(Mapping[str, Any]):
    """A record's fields for a template, where {prompt} and {completion} mean the mapped fields."""

    def __init__(self, records: Records, index: int, roles: Mapping[str, str]) -> None:
        self._records, self._index, self._roles = records, index, roles

    def __getitem__(self, name: str) -> Any:
        field = self._roles.get(name, name)
        value = self._records[self._index].get(field)
        if value is None:
            raise missing_field(self._records, self._index, field)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._records[self._index])

    def __len__(self) -> int:
        return len(self._records[self._index])


def _chats(records: Records, data: DataSection, tokenizer: Tokenizer) -> Iterator[Texts]:
    if not tokenizer.chat_template:
        raise FedftError(
            Code.CHAT_TEMPLATE_UNUSABLE,
            "data.fields.messages is set, but the tokenizer has no chat template",
            hint="set model.chat_template",
        )
    records.require(data.fields.messages)
    for index, record in enumerate(records):
        messages = check_messages(record[data.fields.messages], where(records, index))
        prompt = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(messages, tokenize=False)
        if not whole.startswith(prompt):
            raise FedftError(
                Code.CHAT_TEMPLATE_UNUSABLE,
                f"{where(records, index)}: the chat template writes the prompt differently once the answer "
                "follows, so the answer's tokens cannot be told apart",
                hint="set model.chat_template to one that appends the answer",
            )
        yield prompt, whole[len(prompt) :], messages[-1]["content"]
