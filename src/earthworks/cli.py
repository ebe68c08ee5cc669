"""The `earthworks` command: parsing and printing only. Each command is a function, its options the signature."""

import difflib
import functools
import importlib
import inspect
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from earthworks import __version__
from earthworks.runs.errors import INTERRUPTED, TRY_AGAIN, EarthworksError, Stopped
from earthworks.runs.progress import note
from earthworks.runs.terminal import CONTROL, ReaderLeft, flush_output, say, shown, write_replacing
from earthworks.runs.yaml_files import parse_yaml, read_yaml

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
MOST_VALUES = 20_000  # of a setting; the parser takes seconds for this number
LARGEST_SEED = 1 << 63
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


def nearest(given: str, names: list[str], what: str, where: str) -> str:
    """`given` if it is one of the names, else an error that suggests the nearest."""
    if given in names:
        return given
    close = difflib.get_close_matches(given[:100], names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else f"see {where}"
    raise EarthworksError(f"there is no {what} {given!r}; {hint}")


def call(function: Callable[..., Any], name: str, arguments: list[str]) -> None:
    """Parse the arguments by the function's signature, call it, and print what it returns."""
    import yaml
    from jsonargparse import ArgumentParser, set_loader

    typed_yaml()  # cached before it is replaced
    set_loader("yaml", bounded, (yaml.YAMLError,))

    class Parser(ArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            raise EarthworksError(one_sentence(message, name))

    parameters = inspect.signature(function).parameters
    options = [f"--{each}" for each in parameters] + ["--config", "--print_config", "--help"]
    for argument in arguments:
        if re.match(r"--[A-Za-z]", argument):
            flag = argument.split("=")[0].rstrip("+")
            flag = f"--{flag[2:].replace('-', '_')}"
            nearest(flag, options, "option", f"earthworks {name} --help")
    arguments, config = take_config(arguments, name, list(parameters))
    text = inspect.getdoc(function) or ""
    parser = Parser(prog=f"earthworks {name}", description=text.split("\n\n")[0])
    required = [n for n, p in parameters.items() if p.default is inspect.Parameter.empty]
    positional = [each for each in required if parameters[each].kind is not inspect.Parameter.KEYWORD_ONLY]
    several = [each for each in positional if parameters[each].annotation == list[str]]
    for each in several:
        line = re.search(rf"^ *{each}: (.*)$", text, re.MULTILINE)
        parser.add_argument(each, nargs="+", help=line and line[1])
    parser.add_function_arguments(function, as_positional=True, fail_untyped=True, skip=set(several))
    parser.add_argument("--print_config", type=bool, default=False, help="print the settings as YAML and stop")
    switches = {f"--{each}" for each in parameters if parameters[each].default is False} | {"--print_config"}
    given = [f"--{key}={yaml_text(value)}" for key, value in config.items() if key not in positional]
    given += switched_on([normalized(argument) for argument in arguments], switches)
    refuse_bombs(arguments, parameters)
    namespace = parser.parse_args(given).as_dict()
    if namespace.pop("print_config"):
        say(settings_text(namespace), end="")
        return
    refuse_values(namespace, parameters)
    result = function(**namespace)
    if isinstance(result, str) or hasattr(result, "exit_code"):
        answer(str(result), json=bool(namespace.get("json")))
    if code := getattr(result, "exit_code", 0):
        sys.exit(code)


def refuse_values(given: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]) -> None:
    """EarthworksError for an empty text that is not the default (for example from an unset shell variable), and for a
    seed that the random number generators do not take."""
    for name, value in given.items():
        option = name.upper() if parameters[name].default is inspect.Parameter.empty else f"--{name}"
        if value == "" != parameters[name].default:
            raise EarthworksError(f"{option} is empty: give a value, or leave it out")
        if name == "seed" and not 0 <= value < LARGEST_SEED:
            raise EarthworksError(f"--seed is {value}; it must be a whole number from 0 to 2^63 - 1")


def answer(text: str, *, json: bool) -> None:
    """Print a command's answer with control characters escaped, with a notice. In JSON, control characters and characters
    that standard output cannot encode are written as equivalent JSON escapes."""
    if json:
        say(re.sub(CONTROL if encodable(text) else r"[^\n -~]", escaped, text))
        return
    say(text)
    if changed := sum(character not in "\r\n" for character in re.findall(CONTROL, text)):
        note(f"notice: {changed:,} control characters are shown as \\u....; --json keeps them")


def escaped(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]


def encodable(text: str) -> bool:
    """Whether standard output can encode the text."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def settings_text(settings: dict[str, Any]) -> str:
    """Settings as YAML; control characters and unprintable text are escaped by YAML's rules."""
    import yaml

    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    plain = encodable(text) and not CONTROL.search(text)
    return text if plain else yaml.safe_dump(settings, sort_keys=False, allow_unicode=False)


def normalized(argument: str) -> str:
    """--max-steps and --max_steps are the same option."""
    flag, equals, value = argument.partition("=")
    return flag.replace("-", "_").replace("__", "--", 1) + equals + value if re.match(r"--[A-Za-z]", flag) else argument


def switched_on(arguments: list[str], switches: set[str]) -> list[str]:
    """`--json` alone is `--json=true`."""
    following = [*arguments[1:], ""]
    return [
        f"{argument}=true" if argument in switches and after not in ("true", "false") else argument
        for argument, after in zip(arguments, following)
    ]


def refuse_bombs(arguments: list[str], parameters: Mapping[str, inspect.Parameter]) -> None:
    """EarthworksError for a command-line value whose YAML aliases expand too far; the parser would visit every one."""
    texts = {f"--{name}" for name, each in parameters.items() if each.annotation in (str, str | None)}
    option = ""
    for argument in arguments:
        name, _, value = argument.partition("=")
        option, value = (normalized(name), value) if name.startswith("--") else (option, argument)
        if option not in texts and "&" in value and "*" in value and value.lstrip().startswith(("{", "[")):
            parse_yaml(value, option, most=MOST_VALUES)


def bounded(text: str) -> Any:
    """A command-line value as jsonargparse reads it; text that would expand too far as YAML stays text."""
    import yaml

    if "&" in text and "*" in text:
        try:
            parse_yaml(text, "it", most=MOST_VALUES)
        except EarthworksError as error:
            raise yaml.YAMLError(str(error)) from None
    return typed_yaml()(text)


@functools.cache
def typed_yaml() -> Callable[[str], Any]:
    """The parser's own YAML loader, in which 1e-3 is a number."""
    from jsonargparse import get_loader

    return get_loader("yaml")


def yaml_text(value: Any) -> str:
    """A setting from a YAML file as it would be typed on the command line."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def take_config(arguments: list[str], name: str, parameters: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Take `--config FILE`, or a first argument FILE.yaml, out of the arguments; typed options override its settings. A
    run's config.yaml is accepted."""
    from earthworks.runs.folder import DERIVED

    rest, config = [], {}
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        position += 1
        if position == 1 and re.search(r"\.ya?ml$", argument) and not argument.startswith("-"):
            file = argument  # `earthworks corpus build recipe.yaml`
        elif argument != "--config" and not argument.startswith("--config="):
            rest.append(argument)
            continue
        elif "=" in argument:
            file = argument.split("=", 1)[1]
        elif position < len(arguments):
            file = arguments[position]
            position += 1
        else:
            raise EarthworksError("--config is missing its value: give the name of a YAML file")
        config.update(read_config(file))
    if config.get("kind", name.split()[0]) != name.split()[0]:
        raise EarthworksError(
            f"this is the configuration of a {config['kind']} run, not of {name}: give one of that command"
        )
    config = {key: value for key, value in config.items() if key not in DERIVED}
    for key in config:
        nearest(str(key), parameters, "setting", f"earthworks {name} --help")
    return rest, config


def read_config(file: str) -> dict[str, Any]:
    config = read_yaml(file, what=f"--config {file}", most=MOST_VALUES)
    if not isinstance(config, dict):
        raise EarthworksError(f"--config {file} does not contain settings: write them as key: value lines")
    return config


def one_sentence(message: str, name: str) -> str:
    """The parser's multi-line error as one sentence: the option, its value, and what it accepts."""
    message = " ".join(message.split())
    key = re.search(r'[Kk]ey "(\w+)"', message)
    if not key:
        return f"{message}; see earthworks {name} --help"
    got = re.search(r"(?:Got|Given) value: (.*)$", message)
    choices = re.search(r"Literal\[(.*?)\]", message)
    if choices:
        names = choices.group(1).replace("'", "")
        return f"--{key.group(1)} is {repr(got.group(1)) if got else 'another'}; it must be one of {names}"
    words = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
    wanted = [words[each] for each in re.findall(r"Expected a <class '(\w+)'>", message) if each in words]
    return f"--{key.group(1)} cannot be {got.group(1) if got else 'that'}; it takes {' or '.join(wanted) or message}"


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
