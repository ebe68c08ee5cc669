"""The `earthworks` command: its table of commands, its streams, signals and exit codes. Each command is a function."""

import importlib
import inspect
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from earthworks import __version__
from earthworks.command_line import call, nearest
from earthworks.runs.errors import INTERRUPTED, TRY_AGAIN, EarthworksError, Stopped
from earthworks.runs.progress import note
from earthworks.runs.terminal import ReaderLeft, flush_output, say, shown, write_replacing

# room: verb: (module, function, description). Modules are imported only when their command is called.
COMMANDS: dict[str, dict[str, tuple[str, str, str]]] = {
    "corpus": {
        "build": (
            "earthworks.corpus.pipeline.command",
            "build",
            "turn raw documents into a curated corpus, with every decision recorded",
        ),
        "inspect": ("earthworks.corpus.pipeline.inspection", "inspect", "show what a build kept and dropped, and why"),
        "score": ("earthworks.corpus.rules.command", "score", "apply the MassiveText rules to one document"),
    },
    "evaluate": {
        "tasks": (
            "earthworks.evaluation.tasks.command",
            "tasks",
            "run benchmark tasks, grouped by the paper's categories",
        ),
        "scaling": (
            "earthworks.evaluation.scaling.command",
            "scaling",
            "how loss and task accuracy change with size and data",
        ),
        "bias": ("earthworks.evaluation.toxicity.command", "bias", "differences in treatment between groups"),
        "toxicity": ("earthworks.evaluation.toxicity.command", "toxicity", "toxicity of a model's continuations"),
        "classifier": ("earthworks.evaluation.toxicity.command", "classifier", "train and test a toxicity scorer"),
        "detection": ("earthworks.evaluation.toxicity.command", "detection", "few-shot toxicity detection by a model"),
        "card": ("earthworks.evaluation.cards.command", "card", "write a model card from a run's files"),
    },
    "gopher": {
        "train": ("earthworks.gopher.pretraining.command", "train", "train a language model on text"),
        "generate": ("earthworks.gopher.command", "generate_text", "generate text with a trained model"),
        "evaluate": ("earthworks.gopher.command", "evaluate", "bits per byte and perplexity on text"),
    },
    "transport": {
        "measure": ("earthworks.transport.command", "measure", "distance between two point clouds"),
    },
    "wgan": {
        "train": ("earthworks.wgan.training", "train", "train a Wasserstein GAN on images or points"),
        "sample": ("earthworks.wgan.sampling", "sample_file", "draw from a trained generator"),
        "diagnose": (
            "earthworks.wgan.diagnosis.run_diagnosis",
            "diagnose_run",
            "diagnose a run, with the evidence",
        ),
        "evaluate": (
            "earthworks.wgan.measures.evaluation",
            "evaluate_run",
            "distances, coverage and memorisation, with null distributions",
        ),
    },
}
SINGLE: dict[str, tuple[str, str, str]] = {
    "quickstart": ("earthworks.quickstart", "quickstart", "train on data every machine has, and report, in minutes"),
    "report": ("earthworks.cli", "report", "write one HTML page about a run, or a comparison of several"),
}


LONGEST_MESSAGE = 4000  # characters of an error message that are shown
SMALLER = ("micro_batch", "batch", "context", "size", "width", "points", "num", "workers")  # options that save memory


def main(arguments: list[str] | None = None) -> None:
    """Run one command. Exit codes: 0 success, 1 failure, 2 user error, 3 success but some input was unreadable, 75
    stopped by SIGTERM or SIGUSR1 (run it again), 130 stopped by Ctrl-C."""
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # before torch is imported: docs/log.md, "Waiting threads"
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        open_streams()
        write_replacing()
        with stopped_by_signals():
            try:
                dispatch(list(arguments))
            except SystemExit:
                flush_output()  # the parser's help, which did not go through `say`
                raise
    except EarthworksError as error:
        if debug:
            raise
        fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        fail("interrupted; partial files were removed", INTERRUPTED)
    except Stopped as stop:
        fail(f"{stop}; partial files were removed: run the same command again", TRY_AGAIN)
    except ReaderLeft:
        sys.exit(0)
    except (MemoryError, RuntimeError) as error:
        if debug or not (isinstance(error, MemoryError) or "out of memory" in str(error) or "alloc" in str(error)):
            raise
        fail(f"out of memory: {less_memory(arguments)}", 1)
    except OSError as error:
        if debug:
            raise
        fail(f"system error{f' with {error.filename}' if error.filename else ''}: {error.strerror or error}", 1)


def fail(message: str, code: int) -> NoReturn:
    sentence = " ".join(shown(message[:LONGEST_MESSAGE]).split())
    note(f"earthworks: {sentence}{' ...' if len(message) > LONGEST_MESSAGE else ''}")
    sys.exit(code)


def open_streams() -> None:
    """The descriptor of a stream that was closed before the start would go to the next opened file, and library output
    into that file: refuse to start without standard output, and redirect the other two to nowhere."""
    closed = [number for number in (0, 1, 2) if not is_open(number)]
    for number in closed:
        os.dup2(os.open(os.devnull, os.O_RDWR), number)
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if number in closed:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115
    if 1 in closed:
        raise EarthworksError("standard output is closed: redirect it to a file", exit_code=1)


def is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """SIGTERM and SIGUSR1 raise Stopped, so that partial files are removed; a second one kills. Not in child processes."""
    before: dict[int, Any] = {}
    process = os.getpid()

    def stop(number: int, _frame: object) -> None:
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        if os.getpid() != process:
            os.kill(os.getpid(), number)
        raise Stopped(signal.Signals(number).name)

    with suppress(ValueError):  # not the main thread: only that can set handlers
        for number in (signal.SIGTERM, signal.SIGUSR1):
            before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def less_memory(arguments: list[str]) -> str:
    """Advice for running out of memory, from the options of the command."""
    entry = SINGLE.get(arguments[0]) or COMMANDS.get(arguments[0], {}).get(next(iter(arguments[1:]), ""))
    names = inspect.signature(getattr(importlib.import_module(entry[0]), entry[1])).parameters if entry else {}
    options = [f"--{name}" for name in SMALLER if name in names]
    if not options:
        return "give less data at once, or use a machine with more memory"
    return f"try a smaller {' or '.join(options)}"


def dispatch(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        say(overview())
        return
    if arguments[0] == "--version":
        say(f"earthworks {__version__}")
        return
    room = nearest(arguments.pop(0), [*COMMANDS, *SINGLE], "command", "earthworks --help")
    if room in SINGLE:
        entry, name = SINGLE[room], room
    else:
        if not arguments or arguments[0] in ("-h", "--help"):
            say(overview(room))
            return
        verb = nearest(arguments.pop(0), list(COMMANDS[room]), f"command of {room}", f"earthworks {room} --help")
        entry, name = COMMANDS[room][verb], f"{room} {verb}"
    module, function, _ = entry
    call(getattr(importlib.import_module(module), function), name, arguments)


def overview(room: str | None = None) -> str:
    """List of the commands, one per line."""
    lines = [f"earthworks {__version__}: train, sample and measure generative models on your own data", ""]
    for each, verbs in COMMANDS.items():
        if room in (None, each):
            lines += [f"  earthworks {each} {verb:<12} {text}" for verb, (_, _, text) in verbs.items()]
    if room is None:
        lines += [f"  earthworks {verb:<{len('gopher') + 13}} {text}" for verb, (_, _, text) in SINGLE.items()]
    return "\n".join(
        [
            *lines,
            "",
            "--help after a command lists its options. All commands take --config FILE, --print_config, --debug.",
        ]
    )


def report(runs: list[str], *, output: str | None = None, open: bool = False) -> str:
    """Write one HTML page about a run, or a comparison of several.

    Args:
        runs: the run folders.
        output: path of the page (default: report.html in the run, or in the folder that contains all of them).
        open: open the page in the browser.
    """
    from earthworks.report import write_report

    path = write_report([Path(run) for run in runs], Path(output) if output else None)
    if open:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())
    return str(path)


if __name__ == "__main__":
    main()
