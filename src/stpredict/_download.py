"""Downloads: one retry, and one message for the errors of a client."""

from __future__ import annotations

from collections.abc import Callable


def attempt(request: Callable[[], object], *, what: str, remedy: str) -> None:
    """Run a request, once more if it fails, and then raise a ConnectionError with one message."""
    for is_last in (False, True):
        try:
            request()
        except OSError as error:  # the base class of requests' errors
            if not is_last:
                continue
            reason: BaseException = error
            while reason.__context__ is not None:  # through the layers of the client
                reason = reason.__context__
            problem = f"{what} could not be downloaded ({type(reason).__name__}: {reason!s:.200})"
            raise ConnectionError(f"{problem}. {remedy}") from None
        else:
            return
