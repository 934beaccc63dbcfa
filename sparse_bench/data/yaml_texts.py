"""Reading of YAML as in Rasa's files: scalars are texts, keys are unique, and only LF and CR LF end lines."""

import re
from typing import Any

import yaml

from sparse_bench.data.text_files import TextFile
from sparse_bench.errors import DataError

_MERGE, _NULL = "tag:yaml.org,2002:merge", "tag:yaml.org,2002:null"
#: Line ends of YAML 1.1 that YAML 1.2 dropped. They pass through the parser as code points that are no characters.
_HIDDEN = {0x85: 0xFDD0, 0x2028: 0xFDD1, 0x2029: 0xFDD2}
_SHOWN = {code: sign for sign, code in _HIDDEN.items()}


def _resolvers(*tags: str) -> dict[str, list[Any]]:
    """PyYAML's rules for these tags, by first character."""
    rules = yaml.SafeLoader.yaml_implicit_resolvers.items()
    return {first: [rule for rule in known if rule[0] in tags] for first, known in rules}


class TextLoader(yaml.SafeLoader):
    """Builds only lists, mappings and texts. Every scalar is a text, even ``no`` or ``2.0``."""

    yaml_implicit_resolvers = _resolvers(_MERGE)
    yaml_constructors = {}  # noqa: RUF012  (PyYAML's name; without constructors, tags are ignored)

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
    """The same, but an empty value, ``~`` or ``null`` without quotes becomes None."""

    yaml_implicit_resolvers = _resolvers(_MERGE, _NULL)

    def construct_scalar(self, node: Any) -> Any:
        return None if node.tag == _NULL else super().construct_scalar(node)


def load_yaml(file: TextFile, loader: type[TextLoader]) -> Any:
    """The content of a YAML file.

    Raises:
        DataError: the file is not valid YAML. The message names the file.
    """
    try:
        return yaml.load(file.text.translate(_HIDDEN), Loader=loader)
    except yaml.YAMLError as error:
        raise DataError(f"{file.name} cannot be read: {error}") from error
    except RecursionError:
        raise DataError(f"{file.name} cannot be read: it is nested too deeply.") from None


def major_version(name: str, tree: dict[str, Any]) -> int | None:
    """The version of Rasa's format that a file declares, 2 or 3; None if it declares none.

    Raises:
        DataError: another version.
    """
    version = tree.get("version")
    if version is None:
        return None
    if not isinstance(version, str) or not re.fullmatch(r"[23](\.\d+)*", version):
        raise DataError(f"{name} is in version {version} of the format. Valid choices: 2.x, 3.x.")
    return int(version[0])
