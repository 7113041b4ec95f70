"""YAML as people write it by hand: plain data, of bounded size, each key once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

#: A campaign's configuration, in its folder.
CONFIG_FILE = "campaign.yaml"
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

    Args:
        path: The file.

    Raises:
        OSError: It cannot be read.
        yaml.YAMLError: It is not YAML, has a key twice, or is too large when it is written out.
    """
    with path.open("rb") as stream:
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise yaml.YAMLError(f"the file is larger than {MAX_BYTES:,} bytes")
    try:
        loader = _Loader(content)
        loader.name = path.name
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

    Args:
        node: What the composer gave.
        counts: Numbers of the nodes that were counted before; 0 for one that is being counted.
        depth: How deep the node lies.

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
