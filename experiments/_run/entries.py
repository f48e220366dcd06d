"""The entries of a sweep: their folders, shards, and groups."""

from collections.abc import Mapping, Sequence
import copy
import inspect
import json
import pathlib
from typing import Any, NamedTuple

import ml_collections

from experiments._run import config_files


class Entry(NamedTuple):
  """One entry of a sweep.

  Attributes:
    changes: of the config, by field.
    config: with the changes.
    workdir: its folder.
  """

  changes: dict[str, Any]
  config: ml_collections.ConfigDict
  workdir: str


class Group(NamedTuple):
  """Entries that differ in numbers only.

  Attributes:
    changes: that all of them have.
    numbers: of each entry, by field.
    entries: in order.
  """

  changes: dict[str, Any]
  numbers: list[dict[str, float]]
  entries: list[Entry]


def label(changes: Mapping[str, Any]) -> str:
  """Returns the name of the folder of an entry.

  Example:
    >>> label({'seeds': 2, 'coefs.default': (0.5,), 'methods': ('a', 'b')})
    'seeds=2,coefs.default=0.5,methods=a+b'
  """
  texts = {
    key: '+'.join(map(str, x)) if isinstance(x, tuple) else x
    for key, x in changes.items()
  }
  return ','.join(f'{key}={x}' for key, x in texts.items())


def share(text: str, count: int) -> range:
  """Returns the entries of one shard, consecutive ones.

  Args:
    text: ``'i/n'``: shard i of n, from 0.
    count: the number of entries.

  Raises:
    ValueError: if the text is something else.

  Example:
    >>> [list(share(f'{i}/3', 7)) for i in range(3)]
    [[0, 1], [2, 3], [4, 5, 6]]
  """
  first, _, last = text.partition('/')
  good = first.isdecimal() and last.isdecimal()
  if not good or int(first) >= int(last):
    raise ValueError(
      f'sweep_shard={text}: expected i/n, shard i of n, numbered from 0'
    )
  i, n = int(first), int(last)
  return range(count * i // n, count * (i + 1) // n)


def read(
  file: str, config: ml_collections.ConfigDict, folder: str
) -> list[Entry]:
  """Returns the entries of a sweep.

  Args:
    file: of configs; its ``sweep()`` may take the variant.
    config: without the changes.
    folder: of the sweep, which has one for each entry.

  Raises:
    ValueError: if the file has no sweep.
  """
  sweep = getattr(config_files.load(file), 'sweep', None)
  if sweep is None:
    raise ValueError(f'{file} has no sweep()')
  takes_variant = bool(inspect.signature(sweep).parameters)
  found = []
  for changes in sweep(config.variant) if takes_variant else sweep():
    changed = copy.deepcopy(config)
    changed.update_from_flattened_dict(changes)
    place = str(pathlib.Path(folder) / label(changes))
    found.append(Entry(changes, changed, place))
  return found


def groups(entries: Sequence[Entry], numbers: Sequence[str]) -> list[Group]:
  """Groups entries that differ only in numbers.

  Args:
    entries: of a sweep.
    numbers: the fields that can be traced.

  Returns:
    The groups in order of their first entries. An entry without such a number
    is a group of its own, with empty numbers.
  """
  found: dict[str, Group] = {}
  for i, entry in enumerate(entries):
    given = {
      key: number
      for key in entry.changes
      if key in numbers and (number := _number(entry.changes[key])) is not None
    }
    rest = {k: x for k, x in entry.changes.items() if k not in given}
    name = json.dumps([rest, sorted(given)] if given else i, default=repr)
    group = found.setdefault(name, Group(rest, [], []))
    group.numbers.append(given)
    group.entries.append(entry)
  return list(found.values())


def _number(value: Any) -> float | None:
  """Returns a number, or the only one of a tuple."""
  if isinstance(value, (tuple, list)) and len(value) == 1:
    value = value[0]
  is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
  return value if is_number else None
