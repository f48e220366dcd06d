"""Traces that share nothing with those of other tests; counts of programs.

``jax.clear_caches`` has the same effect. In a process that has run thousands of
tests it takes many seconds, and so does compiling again what it dropped.
"""

from collections.abc import Iterator
import contextlib
import itertools

import jax

from wsl.tree._reads import gpu, interpreter

_named = jax.make_user_context(None)
_numbers = itertools.count()


@contextlib.contextmanager
def fresh(name: str | None = None) -> Iterator[None]:
  """Traces, lowers and compiles all functions again inside the block.

  Blocks of one name share what they trace.
  """
  with _named(next(_numbers) if name is None else name):
    yield


def programs() -> int:
  """Returns the number of compiled programs of kernels, on any device."""
  each = interpreter.run, gpu._run, gpu._run_each
  return sum(function._cache_size() for function in each)
