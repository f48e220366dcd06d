"""The folders that Orbax and Flax write: runs, steps and items.

A run holds steps: folders whose names end in the number of the step, such as
``7``, ``00000007``, ``ckpt_7`` or Flax's ``checkpoint_7``. A step holds items,
one folder for each tree (``default``, ``params``, ``state``), or is itself the
only item. Orbax marks steps and items by files; before 2024 an item had no mark
but a file ``checkpoint`` in msgpack. Nothing here imports Orbax.
"""

from collections.abc import Sequence
import pathlib
import re

from wsl.checkpoint._read import foreign

_ITEM_MARK = '_METADATA'
_OLD_MARK = 'checkpoint'
_STEP_MARK = '_CHECKPOINT_METADATA'
UNFINISHED = '.orbax-checkpoint-tmp'
_DEFAULT = 'default'
_SHOWN = 6


def is_orbax(path: pathlib.Path) -> bool:
  """Returns True for a folder written by Orbax: a run, a step or an item."""
  return _is_step(path) or any(
    _is_step(child) or UNFINISHED in child.name for child in _folders(path)
  )


def steps(caller: str, path: pathlib.Path) -> dict[int, pathlib.Path]:
  """Returns the folder of each complete step of a run, oldest first.

  Raises:
    ValueError: if the names of the steps have several prefixes.
  """
  if _is_marked(path):
    return {}
  found, prefixes = {}, set()
  for folder in _folders(path):
    name = re.fullmatch(r'(|.*[^0-9.])([0-9]+)', folder.name)
    if name and UNFINISHED not in folder.name and _is_step(folder):
      found[int(name[2])] = folder
      prefixes.add(name[1])
  if len(prefixes) > 1:
    names = ', '.join(f'{prefix}N' for prefix in sorted(prefixes)[:_SHOWN])
    raise ValueError(
      f'{caller}: {path} holds the steps of several runs, {names}: give the '
      'folder of one step'
    )
  return dict(sorted(found.items()))


def find_item(
  caller: str, path: pathlib.Path, step: int | None, item: str | None
) -> pathlib.Path:
  """Returns the folder of one tree of arrays.

  Args:
    caller: the function that error messages name.
    path: a run, a step or an item.
    step: the step of a run; ``None`` takes the newest.
    item: the item of a step; ``None`` takes the only one, or ``default``.

  Raises:
    FileNotFoundError: if there is no such step or item, listing those there
      are.
    ValueError: if the step has several items, or if ``step`` or ``item`` does
      not apply to ``path``.
  """
  present = steps(caller, path)
  if present:
    step = max(present) if step is None else step
    if step not in present:
      raise FileNotFoundError(
        f'{caller}: {path} has no step {step}, its steps are '
        f'{_listed(list(present))}: check the path'
      )
    path = present[step]
  elif not _is_step(path):
    raise FileNotFoundError(_no_step(caller, path, step))
  elif step is not None:
    raise ValueError(
      f'{caller}(step={step}): {path} is not a run of several steps: leave '
      'step= out, or give the folder of the run'
    )
  if _is_item(path):
    if item is not None:
      raise ValueError(
        f'{caller}(item={item!r}): {path} is a single item: leave item= out'
      )
    return path.absolute()
  return _choose(caller, path, item).absolute()


def _choose(caller: str, step: pathlib.Path, item: str | None) -> pathlib.Path:
  """Returns one item of a step."""
  names = [child.name for child in _folders(step) if _is_item(child)]
  if item is not None:
    if item in names:
      return step / item
    raise FileNotFoundError(
      f'{caller}(item={item!r}): {step} holds the items {_listed(names)}: give '
      'one of them'
    )
  if len(names) == 1 or _DEFAULT in names:
    return step / (names[0] if len(names) == 1 else _DEFAULT)
  if names:
    raise ValueError(
      f'{caller}: {step} holds the items {_listed(names)}: choose one by item='
    )
  held = [child.name for child in _folders(step)]
  raise ValueError(
    f'{caller}: {step} holds no tree of arrays, but {_listed(held)}: read it '
    'with Orbax'
  )


def _no_step(caller: str, path: pathlib.Path, step: int | None) -> str:
  """Returns the error message for a folder without the step."""
  wanted = 'no step' if step is None else f'no step {step}'
  held = sorted(p.name for p in path.iterdir()) if path.is_dir() else []
  unfinished = [name for name in held if UNFINISHED in name]
  if unfinished:
    return (
      f'{caller}: {path} has {wanted}, but unfinished saves '
      f'{_listed(unfinished)}: check whether they were interrupted'
    )
  if held:
    return (
      f'{caller}: {path} has {wanted} that Orbax has written, but holds '
      f'{_listed(held)}: check the path, or read them with what wrote them'
    )
  return (
    f'{caller}: {path} has {wanted}, its steps are []: check the path, or '
    'start afresh'
  )


def _is_marked(path: pathlib.Path) -> bool:
  """Returns True for a step or an item with a mark of its own."""
  return (path / _STEP_MARK).is_file() or _holds_tree(path)


def _is_step(path: pathlib.Path) -> bool:
  """Returns True for a step or an item; an old step holds marked items only."""
  return _is_marked(path) or any(map(_holds_tree, _folders(path)))


def _is_item(path: pathlib.Path) -> bool:
  """Returns True for a tree of arrays; a single array has a folder more."""
  return _holds_tree(path) and not (path / _OLD_MARK).is_dir()


def _holds_tree(path: pathlib.Path) -> bool:
  """Returns True for a folder of arrays, written by Orbax of any age."""
  if (path / _ITEM_MARK).is_file():
    return True
  old = path / _OLD_MARK
  return old.is_file() and foreign.recognise(old) == foreign.MSGPACK


def _folders(path: pathlib.Path) -> list[pathlib.Path]:
  """Returns the subfolders by name; none if there is no folder."""
  if not path.is_dir():
    return []
  try:
    return sorted(child for child in path.iterdir() if child.is_dir())
  except (FileNotFoundError, NotADirectoryError):
    return []


def _listed(names: Sequence[object]) -> str:
  """Lists the last names for an error message: of steps, the newest."""
  shown = ', '.join(repr(name) for name in names[-_SHOWN:])
  return f'[{"..., " if len(names) > _SHOWN else ""}{shown}]'
