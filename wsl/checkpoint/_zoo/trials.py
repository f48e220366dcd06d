"""Folders of a model zoo: hyperparameters, metrics, checkpoints of trials."""

from collections.abc import Callable
import json
import os
import pathlib
import re
from typing import Any, NamedTuple

import numpy as np

from wsl import types
from wsl.checkpoint import _load
from wsl.checkpoint._read import messages

_CONFIGS = ('params.json', 'config.json')
_RESULTS = 'result.json'
_CHECKPOINT = re.compile(r'checkpoint_(\d+)')
_FILE = 'checkpoints'
_PREFIX = 'module.'


class Trial(NamedTuple):
  """One training of a zoo.

  Attributes:
    name: of its folder.
    params: its hyperparameters, as in ``params.json``, such as
      ``params['optim::lr']``; empty if there is no such file.
    metrics: the numbers of ``result.json`` by name, each ``[rows]`` in float64,
      NaN where a row has none. The row of an epoch is the one with that
      ``training_iteration``: some zoos begin with a row before training.
    checkpoints: the files of parameters by epoch, in order.
  """

  name: str
  params: dict[str, Any]
  metrics: dict[str, np.ndarray]
  checkpoints: dict[int, pathlib.Path]


def load_zoo(path: str | os.PathLike[str]) -> tuple[Trial, ...]:
  """Lists the trials of a model zoo, without reading their parameters.

  The layout is that of Ray Tune, in which the Model Zoos and the Phase
  Transition Model Zoo are published::

    zoo/TRIAL/params.json
    zoo/TRIAL/result.json                     one JSON object in each line
    zoo/TRIAL/checkpoint_000XYZ/checkpoints   a state_dict of PyTorch

  Args:
    path: the folder of a zoo, unpacked, or of one trial.

  Returns:
    The trials in the order of their names. ``load_trial`` reads one of them.

  Raises:
    FileNotFoundError: if there is no such folder, or no trial in it.
    ValueError: if the path is an archive, or a JSON file is damaged, naming the
      file and the line.

  Example:
    >>> import pathlib, tempfile
    >>> from wsl import checkpoint
    >>> folder = pathlib.Path(tempfile.mkdtemp(), 'zoo', 'trial_0')
    >>> folder.mkdir(parents=True)
    >>> _ = (folder / 'params.json').write_text('{"optim::lr": 0.1}')
    >>> _ = (folder / 'result.json').write_text('{"test_acc": 0.5}')
    >>> (trial,) = checkpoint.load_zoo(folder.parent)
    >>> trial.params['optim::lr'], trial.metrics['test_acc'].tolist()
    (0.1, [0.5])

  Reference:
    Schürholt et al., "Model Zoos: A Dataset of Diverse Populations of Neural
    Network Models", 2022, arXiv:2209.14764; Schürholt et al., "A Model Zoo on
    Phase Transitions in Neural Networks", 2025, arXiv:2504.18072.
  """
  folder = pathlib.Path(path)
  if folder.is_file():
    raise ValueError(
      f'load_zoo: {folder} is a file: unpack it, and give the folder'
    )
  if not folder.is_dir():
    raise FileNotFoundError(f'load_zoo: there is no folder {folder}')
  if _is_trial(folder):
    return (_trial(folder),)
  inside = sorted(x for x in folder.iterdir() if x.is_dir())
  found = tuple(_trial(x) for x in inside if _is_trial(x))
  if not found:
    names = messages.listed([x.name for x in inside][:4])
    raise FileNotFoundError(
      f'load_zoo: {folder} has no folder with {_CONFIGS[0]} or {_RESULTS}: it '
      f'holds {names}'
    )
  return found


def load_trial(
  trial: Trial,
  *,
  epoch: int | None = None,
  lazy: bool = False,
  sharding: types.Tree | Callable[[str], Any] = None,
  check_finite: bool = True,
) -> types.Params:
  """Loads the parameters of a trial.

  The file is read by ``load``: its pickle may build tensors and containers, and
  is refused if it names anything else.

  Args:
    trial: from ``load_zoo``.
    epoch: of the checkpoint; None takes the last one.
    lazy: as in ``load``.
    sharding: as in ``load``.
    check_finite: as in ``load``.

  Returns:
    The ``state_dict``, a flat dict under the names of the file, without the
    prefix ``module.`` of parallel training.

  Raises:
    FileNotFoundError: if the trial has no such checkpoint, listing its epochs.
    ValueError: those of ``load``.

  Example:
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from wsl import checkpoint
    >>> file = pathlib.Path(tempfile.mkdtemp(), 'checkpoints')
    >>> np.savez(file.with_suffix('.npz'), **{'module.w': np.ones(2)})
    >>> _ = file.with_suffix('.npz').rename(file)
    >>> load_trial(Trial('trial_0', {}, {}, {5: file}))
    {'w': array([1., 1.])}
  """
  epochs = list(trial.checkpoints)
  if not epochs or (epoch is not None and epoch not in trial.checkpoints):
    wanted = 'any epoch' if epoch is None else f'epoch {epoch}'
    there = messages.listed(epochs) if epochs else 'none'
    raise FileNotFoundError(
      f'load_trial: {trial.name} has no checkpoint of {wanted}, it has {there}'
    )
  file = trial.checkpoints[epochs[-1] if epoch is None else epoch]
  params = _load.load(
    file, lazy=lazy, sharding=sharding, check_finite=check_finite
  )
  if not isinstance(params, dict):
    raise ValueError(f'load_trial: {file} holds no state_dict, but a sequence')
  names = [str(name).removeprefix(_PREFIX) for name in params]
  if len(set(names)) < len(names):
    raise ValueError(
      f"load_trial: {file} has names with and without '{_PREFIX}' that are "
      'equal otherwise: load the file itself'
    )
  return dict(zip(names, params.values()))


def _is_trial(folder: pathlib.Path) -> bool:
  """Returns whether a folder has hyperparameters or metrics."""
  return any((folder / name).is_file() for name in (*_CONFIGS, _RESULTS))


def _trial(folder: pathlib.Path) -> Trial:
  """Reads the JSON files of a trial, and finds its checkpoints."""
  configs = [folder / x for x in _CONFIGS if (folder / x).is_file()]
  params = _parse(configs[0], configs[0].read_text()) if configs else {}
  found = {}
  for place in folder.iterdir():
    epoch = _CHECKPOINT.fullmatch(place.name)
    if epoch and (place / _FILE).is_file():
      found[int(epoch[1])] = place / _FILE
  return Trial(
    folder.name,
    params,
    _metrics(folder / _RESULTS),
    dict(sorted(found.items())),
  )


def _metrics(file: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads the numbers of a file of JSON lines, by name."""
  lines = file.read_text().splitlines() if file.is_file() else []
  rows = [
    _parse(file, line, f', line {i}')
    for i, line in enumerate(lines, 1)
    if line.strip()
  ]
  names = dict.fromkeys(
    name
    for row in rows
    for name, x in row.items()
    if isinstance(x, (int, float)) and not isinstance(x, bool)
  )

  def number(x: Any) -> float:
    return float(x) if isinstance(x, (int, float)) else float('nan')

  return {
    name: np.array([number(row.get(name)) for row in rows]) for name in names
  }


def _parse(file: pathlib.Path, text: str, place: str = '') -> dict[str, Any]:
  """Returns a JSON object; other text is a ValueError of one line."""
  try:
    found = json.loads(text)
  except (ValueError, RecursionError):
    found = None
  if not isinstance(found, dict):
    raise ValueError(
      f'load_zoo: {file}{place} is no JSON object: the file is damaged or cut'
    )
  return found
