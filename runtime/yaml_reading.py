"""Reading YAML that nobody vouches for."""

from __future__ import annotations

from typing import Any


def read_yaml(text: str | bytes) -> Any:
    """Plain values from YAML, by the safe loader; without aliases, of which a few can stand for gigabytes, and without
    keys that are there twice, of which one would be lost unseen.

    Raises:
        ValueError: it is no such YAML; the message is one line.
    """
    import yaml

    class StrictLoader(yaml.SafeLoader):
        """See above."""

        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            if self.check_event(yaml.AliasEvent):
                raise ValueError("an alias (&, *) is not allowed")
            node: yaml.Node | None = super().compose_node(parent, index)
            return node

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            mapping: dict[Any, Any] = super().construct_mapping(node, deep)
            if len(mapping) != len(node.value):
                keys = [str(key.value) for key, _ in node.value]
                twice = next((key for key in keys if keys.count(key) > 1), keys[0])
                raise ValueError(f"the key {twice!r} is there twice")
            return mapping

    try:
        return yaml.load(text, Loader=StrictLoader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError, TypeError) as error:
        raise ValueError((str(error).splitlines() or [type(error).__name__])[0]) from error
