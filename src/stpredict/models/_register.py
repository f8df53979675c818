"""Methods of the user."""

from __future__ import annotations

from stpredict._arguments import checked
from stpredict.models._methods import EXTERNAL, METHODS, Method


@checked
def register(method: Method) -> None:
    """Add a method, whose models can then be saved, loaded, evaluated and applied like all others.

    The file that registers a method is imported before its models are loaded. A method that was
    registered before is replaced.

    Parameters
    ----------
    method
        Record of the method.

    Raises
    ------
    TypeError
        If `method` is not a :class:`stpredict.models.Method`.
    ValueError
        If stpredict has a method of this name, or the name is not letters, digits and ``_``.

    Examples
    --------
    >>> from stpredict import models, nn
    >>> models.register(models.Method("last_layer", nn.LinearSets, {"spot": (False, False)}))
    """
    if method.name in EXTERNAL:
        raise ValueError(f"stpredict has a method {method.name!r}: give yours another name")
    METHODS.add(method)
