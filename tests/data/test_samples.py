from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from fedft.config.schema import DataSection, FieldsSection, TaskSection
from fedft.data.causal import causal_samples
from fedft.data.classes import class_samples
from fedft.data.readers import load_records
from fedft.data.records import Records
from fedft.data.report import DataReport
from fedft.errors import FedftError
from fedft.models.sources import resolve_source

CHAT = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(resolve_source("demo"))


def records_of(*rows: dict[str, Any]) -> Records:
    return Records(rows, ("here",) * len(rows))


PAIRS = records_of({"prompt": "2+2=", "completion": " 4"}, {"prompt": "2+20=", "completion": " 22"})


def test_the_loss_is_on_the_completion_and_the_end(tokenizer: Any) -> None:
    (sample, _), report = causal_samples(PAIRS, DataSection(), TaskSection(), tokenizer)
    assert tokenizer.convert_ids_to_tokens(list(sample.ids)) == ["<bos>", *"2+2=", " ", "4", "<eos>"]
    assert sample.ids[sample.loss_from :] == tuple(tokenizer.convert_tokens_to_ids([" ", "4", "<eos>"]))
    assert sample.reference == " 4"
    assert report == DataReport(records=2, samples=2, tokens=8 + 10, longest=10)


def test_templates_and_mapped_fields(tokenizer: Any) -> None:
    data = DataSection(
        prompt_template="{hint}: {prompt}",
        completion_template="{completion}!",
        fields=FieldsSection(prompt="q", completion="a", group="hint"),
    )
    records = records_of({"q": "why", "a": "so", "hint": "x"})
    (sample,), _ = causal_samples(records, data, TaskSection(), tokenizer)
    assert tokenizer.decode(sample.ids) == "<bos>x: whyso!<eos>"
    assert (sample.reference, sample.group) == ("so!", "x")


def test_a_record_without_the_field_is_an_error(tokenizer: Any) -> None:
    for row, what in (
        ({"prompt": "a"}, "has no field 'completion'; it has 'prompt'"),
        ({"prompt": "a", "completion": None}, r"has nothing in field 'completion' \(null\)"),
    ):
        records = records_of({"prompt": "a", "completion": "b"}, row)
        with pytest.raises(FedftError, match=f"FEDFT-3005 record 2 of here {what}"):
            causal_samples(records, DataSection(), TaskSection(), tokenizer)


def test_a_client_names_a_record_as_its_file_counts_it(tokenizer: Any) -> None:
    whole = records_of(*({"prompt": "a", "completion": "b"} for _ in range(20)), {"prompt": "a"})
    with pytest.raises(FedftError, match="FEDFT-3005 record 21 of here"):
        causal_samples(whole.take([3, 7, 20])[1:], DataSection(), TaskSection(), tokenizer)


@pytest.mark.parametrize(
    ("too_long", "kept", "counts"), [("drop", [8], (0, 1)), ("truncate", [8, 9], (1, 0))]
)
def test_long_samples_are_counted(
    tokenizer: Any, too_long: str, kept: list[int], counts: tuple[int, int]
) -> None:
    task = TaskSection(max_length=9, too_long=too_long)
    samples, report = causal_samples(PAIRS, DataSection(), task, tokenizer)
    assert [len(sample.ids) for sample in samples] == kept
    assert (report.truncated, report.dropped) == counts
    assert report.longest == 10


def test_long_samples_may_be_an_error(tokenizer: Any) -> None:
    with pytest.raises(FedftError, match="FEDFT-3024 record 2 of here has 10 tokens, the limit is 9"):
        causal_samples(PAIRS, DataSection(), TaskSection(max_length=9, too_long="error"), tokenizer)


def test_a_sample_cut_before_its_loss_is_empty(tokenizer: Any) -> None:
    with pytest.raises(FedftError, match=r"FEDFT-3025 .* 0 of 2 records, 2 empty, dropped"):
        causal_samples(PAIRS, DataSection(), TaskSection(max_length=5, too_long="truncate"), tokenizer)


def test_an_empty_completion_is_counted(tokenizer: Any) -> None:
    records = records_of({"prompt": "a", "completion": ""}, {"prompt": "", "completion": "b"})
    samples, report = causal_samples(records, DataSection(), TaskSection(), tokenizer)
    assert [sample.reference for sample in samples] == ["b"]  # <bos> alone can be a prompt
    assert (report.samples, report.empty) == (1, 1)


def chat(*texts: str) -> dict[str, Any]:
    roles = ["user", "assistant"] * len(texts)
    return {"chat": [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]}


def test_in_a_chat_the_loss_is_on_the_last_answer(tokenizer: Any) -> None:
    tokenizer.chat_template = CHAT
    data = DataSection(fields=FieldsSection(messages="chat"))
    (sample,), _ = causal_samples(records_of(chat("hi", "ho", "hm", "ha")), data, TaskSection(), tokenizer)
    assert tokenizer.decode(sample.ids) == "<user>hi\n<assistant>ho\n<user>hm\n<assistant>ha\n"
    assert tokenizer.decode(sample.ids[sample.loss_from :]) == "ha\n"
    assert sample.reference == "ha"


def test_chats_need_a_template_that_appends_the_answer(tokenizer: Any) -> None:
    data = DataSection(fields=FieldsSection(messages="chat"))
    with pytest.raises(FedftError, match=r"FEDFT-3022 .* no chat template"):
        causal_samples(records_of(chat("hi", "ho")), data, TaskSection(), tokenizer)
    tokenizer.chat_template = "{{ messages | length }}" + CHAT
    with pytest.raises(FedftError, match="FEDFT-3022 record 1 of here"):
        causal_samples(records_of(chat("hi", "ho")), data, TaskSection(), tokenizer)


CLASSES = TaskSection(
    kind="sequence-classification", labels=("bad", "good"), max_length=8, too_long="truncate"
)


def test_class_samples(tokenizer: Any) -> None:
    records = records_of({"text": "fine", "label": "good"}, {"text": " ", "label": 0})
    (sample,), report = class_samples(records, DataSection(), CLASSES, tokenizer)
    assert tokenizer.decode(sample.ids) == "<bos>fine"
    assert sample.label == 1
    assert (report.empty, report.samples) == (1, 1)


def test_pairs_and_token_types_of_bert(minilm: str) -> None:
    bert = AutoTokenizer.from_pretrained(resolve_source(minilm))
    data = DataSection(fields=FieldsSection(text="a", text_pair="b"))
    records = records_of(
        {"a": "one two", "b": "three", "label": 0}, {"a": "one", "b": "two " * 20, "label": 1}
    )
    (short, cut), report = class_samples(records, data, CLASSES, bert)
    assert bert.decode(short.ids) == "[CLS] one two [SEP] three [SEP]"
    assert short.type_ids == (0, 0, 0, 0, 1, 1)
    assert bert.decode(cut.ids) == "[CLS] one [SEP] two two two two [SEP]"
    assert len(cut.type_ids) == 8
    assert report.truncated == 1


def test_reports_add() -> None:
    total = DataReport(3, 2, 1, 1, 0, 20, 15) + DataReport(2, 1, 0, 0, 1, 5, 9)
    assert total == DataReport(5, 3, 1, 1, 1, 25, 15)
    assert (
        str(total) == "3 of 5 records, 1 truncated, 1 too long, dropped, 1 empty, dropped; longest 15 tokens"
    )


@pytest.mark.data
def test_real_gsm8k_becomes_samples(tokenizer: Any, data_dir: Path) -> None:
    data = DataSection(
        prompt_template="Question: {prompt}\nAnswer: ",
        fields=FieldsSection(prompt="question", completion="answer"),
    )
    records = load_records(str(data_dir / "gsm8k" / "test.jsonl"))[:50]
    task = TaskSection(max_length=600, answer_after="####")
    samples, report = causal_samples(records, data, task, tokenizer)
    assert len(samples) + report.dropped == report.records == 50
    assert report.dropped > 0
    first = tokenizer.decode(samples[0].ids, skip_special_tokens=True)
    assert first.startswith("Question: Janet")
    assert samples[0].reference.endswith("#### 18")
