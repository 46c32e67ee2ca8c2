"""A launch in a file: `gahb-sweep launch FILE.toml`, as `plan` and `search`, is the command line that it stands for.

    sweep = "transition"        NAME: of a sweep, or a FILE.py with its trials
    as = "faces"                any option of the three commands, with _ for -; each takes those that it has
    checkpoint_seconds = 30
    report = true

    [settings]                  a value or a list of them for each key
    resolution = 20
    n_train = [1, 10, 100]

What the command line itself gives stands in place of what the file has. Paths are as on the command line.
"""

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gahb.errors import UserError, did_you_mean

COMMANDS = ("launch", "plan", "search")

NOT_IN_FILES = {"json", "plugin", "help"}
"""Options of every command that are none of a launch."""


def expanded(words: Sequence[str], options: Callable[[], Mapping[str, Mapping[str, bool]]]) -> list[str]:
    """The words of a command line with those that its file stands for, if it names one.

    Args:
        words: the command's, and what follows.
        options: command → name of an option, as files write it → whether it is a switch; called if there is a file.

    Raises:
        UserError: a file that cannot be read, a key that it may not have, or a value of the wrong kind.
    """
    start = next((i + 1 for i, word in enumerate(words) if word in COMMANDS), len(words))
    place = next((i for i, word in enumerate(words) if i >= start and _is_file(word)), None)
    if place is None:
        return list(words)
    file, command, own = words[place], words[start - 1], words[start:]
    content = _read(file)
    settings, sweep = content.pop("settings", {}), content.pop("sweep", None)
    if not isinstance(sweep, str) or not isinstance(settings, dict):
        raise UserError(f'{file} needs a line sweep = "NAME", and its settings in a table [settings]')
    given = {word.partition("=")[0] for word in own}
    return [
        *words[:start],
        *_options(file, content, command, options()),
        *words[start:place],
        sweep,
        *words[place + 1 :],
        *(f"{key}={_text(file, key, value)}" for key, value in settings.items() if key not in given),
    ]


def _is_file(word: str) -> bool:
    return word.endswith(".toml") and not word.startswith("-") and "=" not in word


def _read(file: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(file).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # of TOML and of UTF-8
        raise UserError(f"{file} cannot be read as a launch in TOML: {error}") from None


def _options(
    file: str, content: Mapping[str, Any], command: str, options: Mapping[str, Mapping[str, bool]]
) -> Iterator[str]:
    """The words of the options that a file has and the command takes."""
    known = {name: switch for of_command in options.values() for name, switch in of_command.items()}
    for name in NOT_IN_FILES & known.keys():
        del known[name]
    for name, value in content.items():
        if name not in known:
            raise UserError(f"{file}: unknown key {name!r}; {did_you_mean(name, [*known, 'sweep', 'settings'])}")
        if known[name] != isinstance(value, bool):
            raise UserError(f"{file}: {name} = {value!r}: must be {'true or false' if known[name] else 'a value'}")
        option = f"--{name.replace('_', '-')}"
        if name in options[command] and value is not False:
            yield option if value is True else f"{option}={_text(file, name, value)}"


def _text(file: str, key: str, value: Any) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, list) and value and not any(isinstance(each, list | dict) for each in value):
        return ",".join(_text(file, key, each) for each in value)
    raise UserError(f"{file}: {key} = {value!r}: must be text, a number, true, false, or a list of such")
