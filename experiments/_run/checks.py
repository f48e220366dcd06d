"""Checks of a config: a message names the field and its valid values."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from wsl import tree


def sizes(limits: Mapping[str, tuple[Any, float, float | None]]) -> None:
  """Checks numbers against their ranges.

  Args:
    limits: by field, (value, least, most); a tuple of values is checked one by
      one, and ``None`` is no upper limit.

  Raises:
    ValueError: naming the field, the value and the range.

  Example:
    >>> sizes({'seeds': (3, 1, None), 'shots': ((1, 4), 1, 16)})
    >>> sizes({'seeds': (0, 1, None)})
    Traceback (most recent call last):
    ValueError: seeds=0: expected 1 or more
  """
  for field, (values, least, most) in limits.items():
    for value in values if isinstance(values, tuple) else (values,):
      if value < least or (most is not None and value > most):
        wanted = f'{least} or more' if most is None else f'{least} .. {most}'
        raise ValueError(f'{field}={value}: expected {wanted}')


def choice(field: str, name: str, valid: Collection[str], of: str = '') -> None:
  """Checks one name.

  Args:
    field: of the config.
    name: the value.
    valid: the valid names.
    of: text after the name in the message, such as ``' of the digits'``.

  Raises:
    ValueError: naming the nearest valid name and all others.

  Example:
    >>> choice('kind', 'ckaa', ('cka', 'cca'))
    Traceback (most recent call last):
    ValueError: kind: no 'ckaa' (did you mean 'cka'?): there are cka, cca
  """
  if name not in valid:
    hint = tree.nearest(name, list(valid))
    raise ValueError(
      f"{field}: no '{name}'{of}{hint}: there are {', '.join(valid)}"
    )


def choices(field: str, names: Sequence[str], valid: Collection[str]) -> None:
  """Checks one or more names, as ``choice`` does."""
  if not names:
    raise ValueError(f'{field}: none given')
  for name in names:
    choice(field, name, valid)
