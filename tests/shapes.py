"""Holds septum.core to the shapes and types in its annotations, at every call: jaxtyping with beartype, in tests only.

Within one call a letter stands for one size: ``Bool[np.ndarray, "Y X"]`` twice means two masks of one shape.
"""

import builtins
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jaxtyping
import numba
from beartype import beartype
from jaxtyping import AbstractDtype

NAMES = [name for name, kind in vars(jaxtyping).items() if isinstance(kind, type) and issubclass(kind, AbstractDtype)]


def install() -> None:
    """Check all that is imported from septum.core from now on."""
    for name in NAMES:
        setattr(builtins, name, getattr(jaxtyping, name))  # src imports them for type checkers only
    numba.njit = functools.partial(njit, numba.njit)
    jaxtyping.install_import_hook("septum.core", "tests.shapes.checked")


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check the annotations that state a shape, and no others."""
    annotations = {name: hint for name, hint in function.__annotations__.items() if has_shape(hint)}
    if not annotations:
        return function
    function.__annotations__ = annotations
    return beartype(function)


def has_shape(hint: object) -> bool:
    return any(f"{name}[" in str(hint) for name in NAMES)


def njit(compiled: Callable[..., Any], *given: Any, **options: Any) -> Any:
    """Compile functions without the checks around them, which Numba could not."""
    if given and inspect.isfunction(given[0]):
        return compiled(inspect.unwrap(given[0]), *given[1:], **options)
    decorate = compiled(*given, **options)
    return lambda function: decorate(inspect.unwrap(function))
