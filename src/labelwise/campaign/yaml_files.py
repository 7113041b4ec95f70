"""YAML as people write it by hand: plain data, of bounded size, each key once."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from labelwise.campaign.errors import ConfigError
from labelwise.errors import ArgumentError, LabelwiseError

CONFIG_FILE = "campaign.yaml"
#: What ``campaign run KEY=VALUE`` has changed, by dotted key.
OVERRIDES = "overrides.yaml"
#: Larger files are no configuration, bytes.
MAX_BYTES = 1 << 20
#: Values, with every alias written out: 200 bytes can stand for thousands of millions.
MAX_VALUES = 100_000
#: Lists in lists and mappings in mappings.
MAX_DEPTH = 50
_TOO_DEEP = f"it is nested more than {MAX_DEPTH} deep"


def read_yaml(path: Path) -> Any:
    """Read a YAML file: plain data alone, whatever tags it has.

    UTF-8 and UTF-16, with or without a byte order mark.

    Raises:
        OSError: It cannot be read.
        yaml.YAMLError: It is not YAML, has a key twice, or is too large when it is written out.
    """
    with path.open("rb") as stream:
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise yaml.YAMLError(f"the file is larger than {MAX_BYTES:,} bytes")
    return _parse(content, path.name)


def read_settings(path: Path, *, error: type[LabelwiseError], hint: str) -> dict[str, Any]:
    """Read the settings of a campaign or of a study as they stand, whether right or wrong.

    Args:
        path: The file.
        error: What is raised.
        hint: How such a file is made, for messages.

    Raises:
        LabelwiseError: The file is missing, is not YAML or holds no settings.
    """
    try:
        content = read_yaml(path)
    except FileNotFoundError as cause:
        raise error(f"{path} does not exist; {hint}") from cause
    except (OSError, yaml.YAMLError) as cause:
        raise error(f"{path} cannot be read: {' '.join(str(cause).split())}") from cause
    if not isinstance(content, dict):
        raise error(f"{path} holds no settings; {hint}")
    return content


def read_campaign_settings(directory: Path) -> dict[str, Any]:
    """Read a campaign's settings as they stand, with what its runs have overridden.

    Raises:
        ConfigError: A file is missing, is not YAML or holds no settings.
    """
    hint = f"make a campaign with: labelwise campaign init {directory} --template"
    content = read_settings(directory / CONFIG_FILE, error=ConfigError, hint=hint)
    changes = directory / OVERRIDES
    if not changes.exists():
        return content
    return override(content, read_settings(changes, error=ConfigError, hint="remove it"))


def read_overrides(words: Iterable[str]) -> dict[str, Any]:
    """Return settings that are given as words, by dotted key.

    Args:
        words: Each ``key=value``, the value as in a YAML file.

    Raises:
        ArgumentError: A word is not of that form.

    Example:
        >>> read_overrides(["finetune.max_updates=200", "seeds=[0, 1]"])
        {'finetune.max_updates': 200, 'seeds': [0, 1]}
    """
    found = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not all(part.isidentifier() for part in key.replace("-", "_").split(".")):
            raise ArgumentError(
                f"{word!r} is not a setting: write KEY=VALUE with a key of the YAML file, such as "
                "finetune.max_updates=200"
            )
        try:
            found[key] = _parse(text.encode(), key)
        except yaml.YAMLError as error:
            raise ArgumentError(f"{word!r} has no value: {' '.join(str(error).split())}") from error
    return found


def override(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with some of them changed.

    Args:
        content: The settings, nested; not modified.
        changes: By dotted key.

    Raises:
        ArgumentError: A key leads through what holds no keys.
    """
    changed = copy.deepcopy(dict(content))
    for key, value in changes.items():
        *above, last = key.split(".")
        place: Any = changed
        for part in above:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise ArgumentError(f"{key}: {part} has a value of its own and holds no keys")
        place[last] = value
    return changed


def _parse(content: bytes, name: str) -> Any:
    """Return what YAML says.

    Raises:
        yaml.YAMLError: It is not YAML, has a key twice, or is too large when it is written out.
    """
    try:
        loader = _Loader(content)
        loader.name = name
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _count_values(node, {}, 0)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except ValueError as error:  # a date or number that is none
        raise yaml.YAMLError(str(error)) from error


class _Loader(yaml.SafeLoader):
    """YAML without its silent habit of letting the last of two equal keys win."""

    def fetch_more_tokens(self) -> Any:
        # The scanner's time grows with the square of the depth, before there is any node.
        if self.flow_level + len(self.indents) > MAX_DEPTH:
            mark = self.get_mark()
            raise yaml.scanner.ScannerError(None, None, _TOO_DEEP, mark)
        return super().fetch_more_tokens()

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            try:
                is_twice = key in seen
            except TypeError as error:
                raise _mark("a key must be a word or a number", key_node) from error
            if is_twice:
                raise _mark(f"the key {key!r} is there twice", key_node)
            seen.add(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


def _mark(problem: str, node: Any) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _count_values(node: Any, counts: dict[int, int], depth: int) -> int:
    """Return how many values a node stands for, aliases written out.

    Raises:
        yaml.YAMLError: Too many, too deep, or a node that contains itself.
    """
    known = counts.get(id(node))
    if known == 0:
        raise _mark("an alias stands for what contains it", node)
    if known is not None:
        return known
    if depth > MAX_DEPTH:
        raise _mark(_TOO_DEEP, node)
    counts[id(node)] = 0
    total = 1
    if isinstance(node, yaml.SequenceNode):
        total += sum(_count_values(each, counts, depth + 1) for each in node.value)
    elif isinstance(node, yaml.MappingNode):
        for pair in node.value:
            total += sum(_count_values(each, counts, depth + 1) for each in pair)
    if total > MAX_VALUES:
        raise _mark(f"with its aliases written out it has more than {MAX_VALUES:,} values", node)
    counts[id(node)] = total
    return total
