"""The comparison of two checkpoints that differ in most ways."""

import json
import pathlib
import shutil
from typing import Any

import ml_collections
import numpy as np
import pytest

from configs import compare_checkpoints as configs
from experiments import compare_checkpoints
from experiments._compare_checkpoints import differences, report
from tests.experiments import battery
from wsl import checkpoint

PARTS = ['models', 'structure', 'tensors']
MISTAKES = [
  ({'random.layers': 0}, "^a: there is no checkpoint at '': .*--config.a=PATH"),
  ({'random.layers': 0, 'a': '.', 'b': 'no/such'}, "^load: .*|b: .*'no/such'"),
  ({'rows': -1}, 'rows=-1: expected 0 or more'),
]
ROW = battery.Row(
  compare_checkpoints,
  configs,
  PARTS,
  {'differences.png': (300, 1200)},
  MISTAKES,
  interrupt=(differences, 'measure', lambda *args: True, 2),
  default='pair',
  changed=('a', 'elsewhere'),
)


@pytest.mark.parametrize('check', battery.of_the_run(ROW))
def test_the_run(finished: battery.Finished, check: Any) -> None:
  check(finished)


@pytest.mark.parametrize('check', battery.of_the_config(ROW))
def test_the_config(tmp_path: pathlib.Path, check: Any) -> None:
  check(tmp_path)


def test_every_difference_is_found(finished: battery.Finished) -> None:
  record = finished.record
  assert not record['equal']
  assert not record['same_files']
  found = record['structure']
  assert found['only_in_a'] == {
    'a_only.weight': None,
    'lm_head.weight': 'model.embed_tokens.weight',
  }
  assert found['only_in_b'] == {'extra/weight': None}
  assert found['shapes'] == {
    'model.layers.0.self_attn.q_proj.weight': [[16, 16], [15, 16]]
  }
  assert found['dtypes'] == {
    'model.layers.0.norm.weight': ['bfloat16', 'float32']
  }
  assert found['metadata'] == {'format': ['pt', None]}
  assert found['files'] == {
    'config.json': {'rope_theta': [1e4, 5e5]},
    'tokenizer.json': 'only in a',
  }
  rows = {row['name']: row for row in record['tensors']}
  assert list(rows)[:2] == [
    'model.embed_tokens.weight',
    'model.layers.0.mlp.up_proj.weight',
  ]
  differing = {
    name: (row['differing'], row['max_ulps'])
    for name, row in rows.items()
    if row['differing']
  }
  sign = differing.pop('model.layers.2.self_attn.q_proj.weight')
  assert sign[0] == 1
  assert sign[1] > 2**14
  assert differing == {
    'model.layers.0.norm.weight': (16, 0),
    'model.layers.1.mlp.up_proj.weight': (512, 1),
    'model.layers.1.norm.weight': (15, 15),
    'model.norm.weight': (1, 0),
  }
  up = rows['model.layers.1.mlp.up_proj.weight']
  assert up['bins'] == [512, 512]
  assert rows['model.layers.1.norm.weight']['bins'] == [1, 1, 2, 4, 8]
  order = [row['name'] for row in differences.worst(record['tensors'])]
  assert order[0] == 'model.layers.2.self_attn.q_proj.weight'
  assert set(order[-2:]) == {'model.layers.0.norm.weight', 'model.norm.weight'}
  lines = (finished.workdir / 'differences.jsonl').read_text().splitlines()
  assert [json.loads(line) for line in lines] == record['tensors']


def _pair(a: Any, b: Any) -> ml_collections.ConfigDict:
  config = configs.get_config()
  config.a, config.b = str(a), str(b)
  return config


def test_equal_checkpoints_exit_with_0_and_others_with_2(
  finished: battery.Finished, tmp_path: pathlib.Path, capsys: Any
) -> None:
  a, copy = finished.workdir / 'models' / 'a', tmp_path / 'copy'
  shutil.copytree(a, copy)
  config, workdir = _pair(a, copy), str(tmp_path / 'run')
  assert compare_checkpoints.run_and_exit(config, workdir)['same_files']
  assert 'equal: 13 tensors, bit by bit\n' in capsys.readouterr().out
  # The verdict is shown again, and is not that of files that have changed.
  compare_checkpoints.run_and_exit(config, workdir)
  assert 'equal: 13 tensors, bit by bit\n' in capsys.readouterr().out
  tensors = checkpoint.load(copy)
  tensors['a_only.weight'][0] = np.nan
  checkpoint.save(copy, tensors, check_finite=False)
  with pytest.raises(ValueError, match='have changed since'):
    compare_checkpoints.run(config, workdir)
  with pytest.raises(SystemExit) as stopped:
    compare_checkpoints.run_and_exit(config, str(tmp_path / 'again'))
  assert stopped.value.code == 2
  record = json.loads((tmp_path / 'again' / 'record.json').read_text())
  (row,) = differences.worst(record['tensors'])
  assert (row['name'], row['max_abs']) == ('a_only.weight', None)
  assert (row['unordered'], row['max_ulps']) == (1, 0)


def test_a_verdict_says_if_only_roundings_differ() -> None:
  row = {'differing': 2, 'max_ulps': 0, 'unordered': 0}
  record = {'equal': False, 'tensors': [row, row | {'differing': 0}]}
  assert 'by 0 ulps: in dtype' in report.verdict(record)
  record['tensors'][1] = row | {'max_ulps': 3}
  assert report.verdict(record).endswith('by at most 3 ulps')
