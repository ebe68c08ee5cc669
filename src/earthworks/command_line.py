"""Options of a command from the signature of its function: parsing, checks, configuration files, and the answer."""

import difflib
import functools
import inspect
import json
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from earthworks.runs.errors import EarthworksError
from earthworks.runs.progress import note
from earthworks.runs.terminal import CONTROL, say
from earthworks.runs.yaml_files import parse_yaml, read_yaml

MOST_VALUES = 20_000  # of a setting; the parser takes seconds for this number
LARGEST_SEED = 1 << 63


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
