"""A pause of Python's cyclic garbage collector."""

from collections.abc import Iterator
import contextlib
import gc


@contextlib.contextmanager
def collection() -> Iterator[None]:
  """Pauses the collector while many objects are made that all stay.

  The headers of 70,000 tensors are half a million lists and tuples; each of the
  collector's passes visits all of them, which takes most of the time to parse.
  """
  enabled = gc.isenabled()
  gc.disable()
  try:
    yield
  finally:
    if enabled:
      gc.enable()
