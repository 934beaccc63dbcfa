"""YAML as Rasa's files use it: scalars are texts, no key may occur twice, and only LF and CR LF end lines."""

import re
from typing import Any

import yaml

from sparse_bench.data.text_files import TextFile
from sparse_bench.errors import DataError

_MERGE, _NULL = "tag:yaml.org,2002:merge", "tag:yaml.org,2002:null"
#: Line ends of YAML 1.1 that are none of YAML 1.2; they pass through the parser as code points that stand for no sign.
_HIDDEN = {0x85: 0xFDD0, 0x2028: 0xFDD1, 0x2029: 0xFDD2}
_SHOWN = {code: sign for sign, code in _HIDDEN.items()}


def _resolvers(*tags: str) -> dict[str, list[Any]]:
    """PyYAML's rules for these tags, by first character."""
    rules = yaml.SafeLoader.yaml_implicit_resolvers.items()
    return {first: [rule for rule in known if rule[0] in tags] for first, known in rules}


class TextLoader(yaml.SafeLoader):
    """Builds lists, mappings and texts only: in these files every scalar is a text, even ``no`` or ``2.0``."""

    yaml_implicit_resolvers = _resolvers(_MERGE)
    yaml_constructors = {}  # noqa: RUF012  (PyYAML's own name; without any, a node becomes what it looks like)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        if any(key.tag == _NULL for key, _ in node.value):
            raise yaml.constructor.ConstructorError(None, None, "a key is empty", node.start_mark)
        if len(set(map(str, names))) < len(names):
            raise yaml.constructor.ConstructorError(None, None, f"a key occurs twice in {names}", node.start_mark)
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: Any) -> Any:
        return str(super().construct_scalar(node)).translate(_SHOWN)


class TextOrNullLoader(TextLoader):
    """The same with None where nothing, ``~`` or ``null`` stands without quotes."""

    yaml_implicit_resolvers = _resolvers(_MERGE, _NULL)

    def construct_scalar(self, node: Any) -> Any:
        return None if node.tag == _NULL else super().construct_scalar(node)


def load_yaml(file: TextFile, loader: type[TextLoader]) -> Any:
    """What a YAML file holds.

    Raises:
        DataError: it is no YAML; names the file.
    """
    try:
        return yaml.load(file.text.translate(_HIDDEN), Loader=loader)
    except yaml.YAMLError as error:
        raise DataError(f"{file.name} cannot be read: {error}") from error
    except RecursionError:
        raise DataError(f"{file.name} cannot be read: it is nested too deeply.") from None


def major_version(name: str, tree: dict[str, Any]) -> int | None:
    """The version of Rasa's format that a file says it is in, 2 or 3; None if it says nothing.

    Raises:
        DataError: another version.
    """
    version = tree.get("version")
    if version is None:
        return None
    if not isinstance(version, str) or not re.fullmatch(r"[23](\.\d+)*", version):
        raise DataError(f"{name} is in version {version} of the format. Valid choices: 2.x, 3.x.")
    return int(version[0])
