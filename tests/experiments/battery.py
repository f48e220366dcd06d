"""Tests that every experiment passes; each test module supplies its own row.

``of_the_run(row)`` checks a finished tiny run: its parts, record and figures,
and that a second call skips it. ``of_the_config(row)`` checks the variants of
the config, and that each mistake is reported in one line before any work.
"""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import functools
import io
import json
import operator
import pathlib
import re
from types import ModuleType
from typing import Any, NamedTuple

import jax
from matplotlib import image
import numpy as np
import pytest


class Row(NamedTuple):
  """An experiment and its expected behaviour.

  Attributes:
    experiment: its module.
    configs: the module of its configs.
    parts: of the tiny run, in order.
    figures: (height, width) that a figure exceeds, in pixels, by file.
    mistakes: (fields of the config with wrong values, pattern of the message).
    interrupt: (module, function, condition, count): the tiny run stops at the
      first call of the function whose arguments satisfy the condition, with
      ``count`` finished parts, and is run again; None for no interruption.
    variants: fields of other variants.
    default: the variant that is taken where none is named.
    changed: (field, another value) of a config that a finished run refuses.
  """

  experiment: ModuleType
  configs: ModuleType
  parts: Sequence[str]
  figures: Mapping[str, tuple[int, int]]
  mistakes: Sequence[tuple[dict[str, Any], str]]
  interrupt: tuple[ModuleType, str, Callable[..., bool], int] | None = None
  variants: Mapping[str, Mapping[str, Any]] = {}
  default: str = 'digits'
  changed: tuple[str, Any] = ('data', 'elsewhere')


class Finished(NamedTuple):
  """A finished tiny run.

  Attributes:
    workdir: its folder.
    config: of the run.
    record: returned by the run.
    interrupted: parts that were finished at the interruption; None without.
    calls: arguments of each call of the interrupted function; None for the call
      that was interrupted.
  """

  workdir: pathlib.Path
  config: Any
  record: dict[str, Any]
  interrupted: list[str] | None
  calls: list[tuple[Any, ...] | None]


class StoppedError(Exception):
  """Interrupts a run."""


def tiny(folders: pytest.TempPathFactory, row: Row) -> Finished:
  """Runs the tiny variant, with an interruption if the row has one."""
  workdir = folders.mktemp('run')
  config = row.configs.get_config('tiny')
  run = functools.partial(row.experiment.run, config, str(workdir))
  if row.interrupt is None:
    return Finished(workdir, config, run(), None, [])
  module, name, condition, _ = row.interrupt
  function, calls = getattr(module, name), []

  def stopping(*args, **kwargs):
    if None not in calls and condition(*args, **kwargs):
      calls.append(None)
      raise StoppedError
    calls.append(args)
    return function(*args, **kwargs)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(module, name, stopping)
    with pytest.raises(StoppedError):
      run()
    interrupted = parts(workdir)
    return Finished(workdir, config, run(), interrupted, calls)


def parts(workdir: pathlib.Path) -> list[str]:
  """Returns the parts that were computed, in order, with repetitions."""
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [row['part'] for row in map(json.loads, lines) if 'part' in row]


def of_the_run(row: Row) -> list[Any]:
  """Returns the checks of a finished run: functions of ``Finished``."""
  checks = [
    ('no part is computed twice', _parts),
    ('the record is written', _record),
    ('a finished run is skipped', _skipped),
    ('another config is refused', _refused),
    *(
      (f'{name} shows something', functools.partial(_figure, name=name))
      for name in row.figures
    ),
  ]
  return [
    pytest.param(functools.partial(check, row), id=name)
    for name, check in checks
  ]


def of_the_config(row: Row) -> list[Any]:
  """Returns the checks of the config: functions of ``tmp_path``."""
  mistakes = [
    pytest.param(functools.partial(_mistake, row, changes, message), id=message)
    for changes, message in row.mistakes
  ]
  variants = pytest.param(functools.partial(_variants, row), id='variants')
  return [variants, *mistakes]


def _parts(row: Row, finished: Finished) -> None:
  assert parts(finished.workdir) == list(row.parts)
  if row.interrupt is not None:
    assert finished.interrupted == list(row.parts)[: row.interrupt[-1]]


def _record(row: Row, finished: Finished) -> None:
  record = json.loads((finished.workdir / 'record.json').read_text())
  assert finished.record == record
  assert record['config']['experiment'] == row.experiment.NAME
  assert record['config']['variant'] == 'tiny'
  assert set(record['versions']) >= {'wsl', 'jax', 'flax', 'python'}
  assert record['device']['platform'] == jax.devices()[0].platform
  assert list(record['seconds']) == list(row.parts)
  assert all(seconds > 0 for seconds in record['seconds'].values())


def _skipped(row: Row, finished: Finished) -> None:
  metrics = finished.workdir / 'metrics.jsonl'
  before = metrics.read_text()
  with contextlib.redirect_stdout(io.StringIO()) as shown:
    record = row.experiment.run(finished.config, str(finished.workdir))
  assert record == finished.record
  assert 'finished before' in shown.getvalue()
  assert metrics.read_text() == before


def _refused(row: Row, finished: Finished) -> None:
  other = row.configs.get_config('tiny')
  field, value = row.changed
  there, other[field] = other[field], value
  message = rf'another config \({field}: {there} there, {value} here\)'
  with pytest.raises(ValueError, match=message):
    row.experiment.run(other, str(finished.workdir))


def _figure(row: Row, finished: Finished, name: str) -> None:
  """A figure is large enough and has more than fifty colours."""
  pixels = image.imread(finished.workdir / name)
  height, width = row.figures[name]
  assert pixels.shape[0] > height
  assert pixels.shape[1] > width
  # One integer for each colour: unique rows of floats take seconds.
  levels = np.rint(255 * pixels).astype(np.int64)
  colours = levels @ 256 ** np.arange(pixels.shape[-1])
  assert len(np.unique(colours)) > 50


def _mistake(
  row: Row, changes: dict[str, Any], message: str, folder: pathlib.Path
) -> None:
  """A changed config is refused in one line, before anything is written."""
  config, workdir = row.configs.get_config('tiny'), folder / 'run'
  with config.unlocked():
    for field, value in changes.items():
      *parents, last = field.split('.')
      node = config
      for parent in parents:
        node = node[parent]
      if isinstance(value, dict) and last in node:
        del node[last]
      node[last] = value
  with pytest.raises((ValueError, FileNotFoundError)) as error:
    row.experiment.run(config, str(workdir))
  text = str(error.value)
  assert re.search(message, text), text
  assert '\n' not in text
  assert not workdir.exists()


def _variants(row: Row, folder: pathlib.Path) -> None:
  """Checks the default, a typo, fields of variants, and the sweep."""
  del folder
  assert row.configs.get_config().variant == row.default
  typo = row.default[:3] + row.default[4:]
  with pytest.raises(ValueError, match=rf"no variant '{typo}' .*{row.default}"):
    row.configs.get_config(typo)
  for variant, fields in row.variants.items():
    flat = row.configs.get_config(variant)
    for field, value in fields.items():
      assert functools.reduce(operator.getitem, field.split('.'), flat) == value
  for entry in getattr(row.configs, 'sweep', list)():
    row.configs.get_config(row.default).update_from_flattened_dict(entry)
