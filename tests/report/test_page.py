from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fedft.errors import FedftError
from fedft.report import plots
from fedft.report.page import default_path, render, write_report
from fedft.store import EvaluationRecord, RoundRecord, RunStore, UpdateRecord
from tests.store.build import (
    add_run,
    beginning,
    digest,
    evaluations,
    state,
    store_with_run,
    training_round,
    update,
)

_VOID = {"meta", "br", "link", "img", "hr", "input"}


class Page(HTMLParser):
    """Text, ids and what a page would load; raises when elements are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in _VOID:
            self._open.append(tag)
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "data", "action", "poster") and value:
                self.loads.append(value)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(store: RunStore, run_id: str) -> tuple[str, Page]:
    run = store.run(run_id)
    html = render(run, store.rounds(run.id), store.events(run.id))
    return html, Page(html)


def test_the_report_says_quality_bytes_and_digests(tmp_path: Path) -> None:
    store, run = store_with_run(tmp_path, rounds=2)
    store.add_event(run.id, "resumed", "after round 1")

    _, page = page_of(store, run.id)

    for words in (
        run.id,
        "12.5 % → 62.5 %",
        "+50.0 points",
        "updates accepted 2 of 6",
        "up: updates 4.15 kB",
        "down: setup and frame 15.0 kB",
        "FEDFT-5016",
        "norm 12000 is over 10000",
        "client-1 in 1, client-1 in 2",
        "its process ended",
        'kind = "field"',
        digest(2),
        "ab" * 32,
        "after round 1",
    ):
        assert words in page.text
    assert page.tags.count("svg") == 5


def test_the_report_refers_to_nothing_outside_itself(tmp_path: Path) -> None:
    store, run = store_with_run(tmp_path)

    html, page = page_of(store, run.id)

    assert page.loads
    assert [target for target in page.loads if not target.startswith("#")] == []
    assert {target[1:] for target in page.loads} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert "@import" not in html
    assert [found for found in re.findall(r"url\(([^)]*)\)", html) if not found.startswith("#")] == []


def test_what_clients_send_is_text_and_nothing_else(tmp_path: Path) -> None:
    store, run = store_with_run(tmp_path, rounds=1)
    hostile = '<script>alert(1)</script>"&\x1b[31m$x^2$'
    records = (
        update(hostile, "refused", code="FEDFT-5010", message=hostile),
        update("client-0"),
    )
    groups = (EvaluationRecord("central", hostile, 3, {"exact_match": 0.5}), *evaluations(0.5)[:1])
    store.commit_round(run.id, RoundRecord(2, digest(2), updates=records, evaluations=groups), state(2))
    store.add_event(run.id, hostile, hostile)

    html, page = page_of(store, run.id)

    assert "script" not in page.tags
    assert "\x1b" not in html
    assert page.text.count("<script>alert(1)</script>") >= 4


def test_comparisons_are_shown_beside_the_federation(tmp_path: Path) -> None:
    store, run = store_with_run(tmp_path, rounds=2)
    store.put_evaluations(run.id, 2, [*evaluations(0.75, "pooled"), *evaluations(0.25, "alone:client-0")])

    _, page = page_of(store, run.id)

    assert "base model 12.5 % 12.5 % 12.5 %" in page.text
    assert "federated 62.5 % 62.5 % 62.5 % +50.0 points" in page.text
    assert "central, on pooled data 75.0 % 75.0 % 75.0 % +62.5 points" in page.text
    assert "client-0 alone 25.0 %" in page.text


@pytest.mark.parametrize("status", ["created", "running", "interrupted", "failed", "completed"])
def test_a_run_in_every_status_has_a_report(tmp_path: Path, status: str) -> None:
    store = RunStore(tmp_path)
    run = add_run(store, rounds=1)
    store.update_run(run.id, status=status, error="FEDFT-6102 <too few>" if status == "failed" else "")

    _, page = page_of(store, run.id)

    assert status in page.text
    assert ("FEDFT-6102 <too few>" in page.text) == (status == "failed")


def test_a_run_without_rounds_has_a_report(tmp_path: Path) -> None:
    store, run = store_with_run(tmp_path, rounds=0)
    empty = store.create_run("empty", run.config)

    _, page = page_of(store, empty.id)

    assert "No round is committed yet" in page.text


def test_a_run_without_evaluation_has_a_report(tmp_path: Path) -> None:
    store, run = store_with_run(tmp_path, rounds=0)
    bare = store.create_run("bare", run.config)
    store.commit_round(bare.id, RoundRecord(0, digest(0)), state(0))
    store.commit_round(bare.id, RoundRecord(1, digest(1), updates=(update("a"),)), state(1))

    _, page = page_of(store, bare.id)

    assert "Quality" not in page.text
    assert "Communication" in page.text
    assert "Every update was accepted." in page.text


def test_metrics_that_are_not_finite_do_not_break_the_report(tmp_path: Path) -> None:
    store, run = store_with_run(tmp_path, rounds=0)
    metrics = {"loss": math.nan, "perplexity": math.inf, "exact_match": 0.0}
    record = RoundRecord(1, digest(1), evaluations=(EvaluationRecord("central", "", 1, metrics),))
    store.commit_round(run.id, record, state(1))

    _, page = page_of(store, run.id)

    assert "not a number" in page.text
    assert "∞" in page.text


def test_many_clients_and_rounds_are_counted_in_place_of_named() -> None:
    many = tuple(UpdateRecord(f"c{i:03d}", "accepted", bytes_up=1) for i in range(60))

    grid = plots.participation([training_round(1), training_round(2)])
    counts = plots.participation([RoundRecord(1, "", updates=many)])

    assert "client-1" in grid
    assert "c001" not in counts
    assert ">clients<" in counts


def test_plots_are_well_formed_and_the_same_each_time() -> None:
    rounds = [beginning(), training_round(1), training_round(2)]
    drawings = (
        plots.quality,
        lambda records: plots.groups(records, "exact_match"),
        plots.bytes_sent,
        plots.seconds,
        plots.participation,
    )
    for draw in drawings:
        drawn = draw(rounds)
        root = ElementTree.fromstring(drawn)
        assert root.get("aria-label")
        assert root.get("viewBox")
        assert root.get("width") is None
        assert draw(rounds) == drawn


def test_plots_of_nothing_are_empty() -> None:
    nothing = [RoundRecord(0, "")]

    assert plots.quality(nothing) == ""
    assert plots.groups(nothing, "loss") == ""
    assert plots.bytes_sent(nothing) == ""
    assert plots.seconds(nothing) == ""
    assert plots.participation(nothing) == ""


def test_the_same_records_give_the_same_report(tmp_path: Path) -> None:
    store, run = store_with_run(tmp_path)

    assert page_of(store, run.id)[0] == page_of(store, run.id)[0]


def test_the_report_goes_beside_the_store_or_where_it_cannot(tmp_path: Path) -> None:
    store, run = store_with_run(tmp_path / "store")
    path = default_path(store, run)

    write_report(store, run, path)

    assert path == tmp_path / "store" / "reports" / f"{run.id}.html"
    assert path.read_text(encoding="utf-8").endswith("</html>\n")
    (tmp_path / "file").write_text("")
    with pytest.raises(FedftError) as error:
        write_report(store, run, tmp_path / "file" / "report.html")
    assert error.value.code == "FEDFT-6051"
