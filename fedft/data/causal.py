"""Causal-LM samples: a prompt, and a completion that carries the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fedft.config.schema import DataSection, TaskSection
from fedft.data.records import Records, missing_field, where
from fedft.data.report import DataReport
from fedft.data.samples import (
    CausalSample,
    Tokenizer,
    each_record,
    encodable,
    fit_samples,
    group_of,
)
from fedft.data.templates import TextTemplate, check_messages
from fedft.errors import Code, FedftError

Texts = tuple[str, str, str]
"""Prompt, completion as it is trained on, completion as it is compared with."""


def check_reading(data: DataSection, tokenizer: Tokenizer) -> None:
    """Check what reading any record needs, without one.

    Raises:
        FedftError: FEDFT-3020 bad template, FEDFT-3022 a chat and no chat template.

    """
    if not data.fields.messages:
        TextTemplate(data.prompt_template)
        TextTemplate(data.completion_template)
    elif not tokenizer.chat_template:
        raise FedftError(
            Code.CHAT_TEMPLATE_UNUSABLE,
            "data.fields.messages is set, but the tokenizer has no chat template",
            hint="set model.chat_template",
        )


def causal_samples(
    records: Records,
    data: DataSection,
    task: TaskSection,
    tokenizer: Tokenizer,
    *,
    skip_unreadable: bool = False,
) -> tuple[list[CausalSample], DataReport]:
    """Token ids of every record's prompt and completion, with the loss on the completion alone.

    The two are tokenised apart, as they are when the model answers a prompt. A prompt starts with the
    tokenizer's own special tokens, a completion ends with the end-of-sequence token; in a chat the
    chat template sets both, and the completion is the last assistant message. With ``skip_unreadable`` a
    record that cannot be read gives no sample, and no record is an error.

    Raises:
        FedftError: FEDFT-3005 missing field, FEDFT-3021 and FEDFT-3022 bad chat, FEDFT-3024 too long,
            FEDFT-3025 nothing left; as ``check_reading``.

    """
    check_reading(data, tokenizer)
    chat = bool(data.fields.messages)
    read = _chat(records, data, tokenizer) if chat else _pair(records, data)

    def grouped(index: int) -> tuple[Texts, str]:
        return encodable(read(index)), group_of(records, index, data.fields.group)

    texts = each_record(range(len(records)), grouped, skip_unreadable=skip_unreadable)
    prompts = _ids(tokenizer, [text[0][0] if text else "" for text in texts], special=not chat)
    answers = _ids(tokenizer, [text[0][1] if text else "" for text in texts], special=False)
    ending = () if chat else (tokenizer.eos_token_id,)
    built = [
        None if text is None else _sample(prompt, answer, ending, text[0][2], text[1])
        for prompt, answer, text in zip(prompts, answers, texts, strict=True)
    ]

    def cut(_: int, sample: CausalSample) -> CausalSample | None:
        if sample.loss_from >= task.max_length:
            return None
        return replace(sample, ids=sample.ids[: task.max_length])

    return fit_samples(built, cut, records, task, skip_unreadable=skip_unreadable)


def _ids(tokenizer: Tokenizer, texts: Sequence[str], *, special: bool) -> Iterator[tuple[int, ...]]:
    if texts:
        yield from map(tuple, tokenizer(texts, add_special_tokens=special, verbose=False)["input_ids"])


def _sample(
    prompt: tuple[int, ...], answer: tuple[int, ...], ending: tuple[int, ...], reference: str, group: str
) -> CausalSample | None:
    """None when there is nothing to predict, or nothing to predict it from."""
    if not prompt or not answer:
        return None
    return CausalSample(prompt + answer + ending, len(prompt), reference, group)


def _pair(records: Records, data: DataSection) -> Callable[[int], Texts]:
    prompt, completion = TextTemplate(data.prompt_template), TextTemplate(data.completion_template)
    roles = {"prompt": data.fields.prompt, "completion": data.fields.completion}

    def read(index: int) -> Texts:
        values = _Values(records, index, roles)
        answer = completion.render(values)
        return prompt.render(values), answer, answer

    return read


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


def _chat(records: Records, data: DataSection, tokenizer: Tokenizer) -> Callable[[int], Texts]:
    def read(index: int) -> Texts:
        records.require_at(index, data.fields.messages)
        messages = check_messages(records[index][data.fields.messages], where(records, index))
        prompt = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(messages, tokenize=False)
        if not whole.startswith(prompt):
            raise FedftError(
                Code.CHAT_TEMPLATE_UNUSABLE,
                f"{where(records, index)}: the chat template writes the prompt differently once the answer "
                "follows, so the answer's tokens cannot be told apart",
                hint="set model.chat_template to one that appends the answer",
            )
        return prompt, whole[len(prompt) :], messages[-1]["content"]

    return read
