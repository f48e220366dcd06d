"""Sweeps: groups, one compiled call, records, restarts and failures."""

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from configs import merge_vision as configs
from experiments._run import entries, experiment, summaries, sweeps
from wsl import mesh as mesh_lib

NUMBERS = ('base.learning_rate', 'merge_seed')


def sweep(folder: pathlib.Path, rates: Any) -> list[entries.Entry]:
  """Returns entries of two structures, with several rates and seeds."""
  found = []
  for model in ('mlp', 'cnn'):
    for seed, rate in enumerate(rates):
      changes = {'model': model, 'base.learning_rate': rate, 'merge_seed': seed}
      config = configs.get_config('tiny')
      config.update_from_flattened_dict(changes)
      place = str(folder / entries.label(changes))
      found.append(entries.Entry(changes, config, place))
  return found


def door(traces: list[Any]) -> sweeps.Door:
  """Returns points that are a square root, counting the traces."""

  def points(config, configs, workdir, mesh):
    del configs, workdir

    def fn(numbers):
      traces.append(config.model)
      root = jnp.sqrt(numbers['base.learning_rate'])
      return {'root': root + numbers['merge_seed'].astype(root.dtype)}

    def finish(config, workdir, result):
      values = jax.tree.map(float, result)
      return sweeps.save('fake', config, workdir, mesh, values)

    return sweeps.Points(fn, finish)

  return sweeps.Door(NUMBERS, points, lambda record: {'root': record['root']})


def run(folder: pathlib.Path, all_entries: Any, mesh: Any, traces: Any) -> Any:
  config = configs.get_config('tiny')
  for group in entries.groups(all_entries, NUMBERS):
    sweeps.run_group(
      'fake', door(traces), config, group, str(folder / 'shared'), mesh
    )
  return summaries.write('fake', folder, all_entries, door([]).metrics)


@pytest.mark.needs_devices(8)
def test_points_are_one_compiled_call_and_a_restart_continues(
  tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  every, traces = sweep(tmp_path, (4.0, 9.0, -1.0, 16.0)), []
  first = [e for e in every if e.changes['merge_seed'] < 2]
  rows = run(tmp_path, first, None, traces)
  assert traces == ['mlp', 'cnn']
  assert [row['metrics']['root'] for row in rows] == [2, 4, 2, 4]
  file = pathlib.Path(every[0].workdir) / 'record.json'
  before = file.stat().st_mtime_ns
  m = mesh_lib.make('candidates:4,model:2')
  rows = run(tmp_path, every, m, traces)
  assert traces == ['mlp', 'cnn'] * 2
  assert file.stat().st_mtime_ns == before
  assert [row.get('failed', '') for row in rows[:4]] == (
    ['', '', sweeps.FAILED, '']
  )
  assert rows[3]['metrics'] == rows[7]['metrics'] == {'root': 7}
  record = sweeps.read(every[3])
  assert record['device']['mesh'] == 'candidates:4,model:2'
  assert record['config']['base']['learning_rate'] == 16
  shown = capsys.readouterr().out
  assert 'model=mlp: 2 points, 2 others finished before' in shown
  assert '8 of 8 entries are in' in shown
  summary = json.loads((tmp_path / 'sweep.json').read_text())
  assert summary['entries'] == len(summary['finished']) == 8
  assert (tmp_path / 'sweep.png').stat().st_size > 5000
  run(tmp_path, every, m, traces)
  assert len(traces) == 4


def test_groups_differ_in_all_other_fields() -> None:
  of = lambda **changes: entries.Entry(changes, None, '')
  given = [of(a=1, n=(0.5,)), of(a=1, n=2), of(a=2, n=3.0), of(a=1)]
  given += [of(a=1, n=(1, 2)), of(a=1, n=True), of(a=1, n=4, m=1.0)]
  found = entries.groups(given, ('n', 'm'))
  assert [group.numbers for group in found] == [
    *([{'n': 0.5}, {'n': 2}], [{'n': 3.0}], [{}], [{}], [{}]),
    [{'n': 4, 'm': 1.0}],
  ]
  shared = [group.changes['a'] for group in found]
  assert shared == [1, 2, 1, 1, 1, 1]


@pytest.mark.parametrize('text', ['1', '2/2', 'a/b', '-1/2', '1/0', ''])
def test_a_shard_is_one_of_some(text: str) -> None:
  with pytest.raises(ValueError, match=f'sweep_shard={text}: expected i/n'):
    entries.share(text, 4)


def test_a_mesh_that_cannot_be_used_is_refused() -> None:
  one = mesh_lib.make('model:1')
  with pytest.raises(ValueError, match='relative runs on one device'):
    experiment.check_mesh('relative', one)
  with pytest.raises(ValueError, match="none is 'candidates': write"):
    experiment.check_mesh('merge_vision', one, on_mesh=True)
