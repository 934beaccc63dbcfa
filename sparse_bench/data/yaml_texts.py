"""YAML as Rasa's files use it: scalars are texts, and no key may occur twice."""

from typing import Any

import yaml


class TextLoader(yaml.BaseLoader):
    """Builds lists, mappings and texts only: in these files every scalar is a text, even ``no`` or ``2.0``."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        if len(set(map(str, names))) < len(names):
            raise yaml.constructor.ConstructorError(None, None, f"a key occurs twice in {names}", node.start_mark)
        return super().construct_mapping(node, deep)


class TextOrNullLoader(TextLoader):
    """The same with None where nothing, ``~`` or ``null`` stands without quotes."""

    def construct_scalar(self, node: Any) -> Any:
        return None if node.style is None and node.value in ("", "~", "null") else super().construct_scalar(node)
