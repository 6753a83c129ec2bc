"""Packages whose names come with their modules only when they are first asked for (PEP 562).

A command that runs once is mostly imports: ``lattice get`` would spend more time on what it does not use (the store,
the state machine, what operators ask) than on the question. So the packages that are used by all sides name what
they offer, and import nothing themselves.

    if TYPE_CHECKING:
        from package.module import Name        # for type checkers and editors
    __getattr__ = lazy_names(__name__, {"package.module": ("Name",)})
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_names(package: str, offered: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """A package's ``__getattr__``: ``offered`` has each module's names."""
    module_of = {name: module for module, names in offered.items() for name in names}

    def find(name: str) -> Any:
        module = module_of.get(name)
        if module is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(module), name)
        setattr(sys.modules[package], name, value)
        return value

    return find
