from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import click
import pytest
import typer

import fedft
from fedft.cli.main import app
from fedft.cli.output import exit_code, json_line
from fedft.errors import FedftError
from tests.cli.run import fedft as run
from tests.cli.run import words

MODEL_LIBRARIES = ("torch", "transformers", "flwr", "ray")
HEAVY = (*MODEL_LIBRARIES, "datasets", "matplotlib", "sqlalchemy", "pydantic", "numpy")


def commands(
    command: click.Command, path: tuple[str, ...] = ()
) -> list[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group):
        found = [commands(inner, (*path, name)) for name, inner in command.commands.items()]
        return [item for part in found for item in part]
    return [(path, command)]


ALL = commands(typer.main.get_command(app))


def test_version() -> None:
    assert run("--version").stdout == f"fedft {fedft.__version__}\n"


def test_no_arguments_is_help() -> None:
    assert "Usage: fedft" in run().output


def test_help_teaches_exit_codes_and_first_commands() -> None:
    text = words(run("--help").stdout)

    assert "0 done · 1 failed · 2 mistake" in text
    assert "130 interrupted" in text
    assert "$ fedft demo" in text


def test_the_commands_of_a_researcher() -> None:
    expected = {"demo", "simulate", "report", "evaluate", "export peft", "export merged"}
    expected |= {"runs list", "runs show", "config init", "config validate", "config show"}
    assert expected <= {" ".join(path) for path, _ in ALL}


@pytest.mark.parametrize("path", [path for path, _ in ALL], ids=" ".join)
def test_every_command_has_help_with_examples(path: tuple[str, ...]) -> None:
    text = run(*path, "--help").stdout

    assert "Examples" in text
    assert f"$ fedft {' '.join(path)}" in text.replace("RUN=$(", "$ ")
    assert "[bold]" not in text
    assert run(*path, "-h").stdout == text


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_every_option_is_explained(path: tuple[str, ...], command: click.Command) -> None:
    assert [item.name for item in command.params if isinstance(item, click.Option) and not item.help] == []


@pytest.mark.skipif(
    tuple(map(int, version("click").split(".")[:2])) >= (8, 5),
    reason="click 8.5 has a help of its own for arguments, which hides that of typer 0.20",
)
@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_every_argument_is_explained(path: tuple[str, ...], command: click.Command) -> None:
    arguments = [item for item in command.params if isinstance(item, click.Argument)]

    assert [item.name for item in arguments if not getattr(item, "help", None)] == []


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys, json\n"
        "from fedft.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    )
    for arguments in (["--help"], ["simulate", "--help"], ["--version"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True
        )
        assert json.loads(done.stdout.splitlines()[-1]) == []


def test_reading_the_store_loads_no_model_library(tmp_path: Path) -> None:
    script = (
        "import sys, json\n"
        "from fedft.store import RunStore\n"
        "RunStore(sys.argv.pop())\n"
        "from fedft.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print(json.dumps([name for name in {MODEL_LIBRARIES!r} if name in sys.modules]))"
    )
    store = str(tmp_path / "store")
    done = subprocess.run(
        [sys.executable, "-c", script, "runs", "list", "--store", store, store],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_an_error_is_a_message_on_standard_error_and_an_exit_code(tmp_path: Path) -> None:
    result = run("runs", "list", "--store", tmp_path / "none")

    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error FEDFT-6001  no run store in ")
    assert "\nhint  name its folder with --store\n" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("FEDFT-1003", 2),
        ("FEDFT-2103", 1),
        ("FEDFT-6102", 1),
        ("FEDFT-7030", 3),
        ("FEDFT-7031", 3),
        ("FEDFT-7032", 4),
        ("FEDFT-7033", 4),
        ("FEDFT-6207", 4),
        ("FEDFT-0042", 1),
    ],
)
def test_the_exit_status_goes_by_the_kind_of_error(code: str, status: int) -> None:
    assert exit_code(FedftError(code, "message")) == status


def test_usage_errors_exit_with_2() -> None:
    assert run("runs", "shwo").exit_code == 2
    assert run("runs", "list", "--no-such-option").exit_code == 2
    assert run("simulate").exit_code == 2


def test_an_interrupt_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fedft.store.RunStore", interrupt)
    result = run("runs", "list")

    assert result.exit_code == 130
    assert result.stderr == "interrupted\n"


def test_errors_cannot_steer_the_terminal(tmp_path: Path) -> None:
    result = run("config", "validate", "demo", "--set", "model.dtype=\x1b[2J[bold]x")

    assert "\x1b" not in result.stderr
    assert "[bold]x" in result.stderr


def test_json_has_no_numbers_that_json_does_not_have() -> None:
    line = json_line({"a": float("nan"), "b": [float("inf"), {"c": 1.5}]})

    assert json.loads(line) == {"schema_version": 1, "a": None, "b": [None, {"c": 1.5}]}
