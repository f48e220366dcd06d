"""Killed saves leave the old checkpoint or the new one, and no litter."""

import collections
import json
import subprocess
import sys

import pytest

from tests.checkpoint.saving import killing


def _run(module, *args):
  name = f'tests.checkpoint.saving.{module}'
  run = subprocess.run(
    [sys.executable, '-m', name, *map(str, args)],
    capture_output=True,
    text=True,
    check=False,
    timeout=300,
  )
  assert not run.returncode, run.stderr
  return json.loads(run.stdout)


@pytest.mark.parametrize('layout', killing.LAYOUTS)
def test_a_save_killed_at_a_random_moment(tmp_path, layout):
  count = _run('killing', tmp_path / 'out', layout, 34, 0)
  assert count.pop('saves') >= 34
  assert set(count) <= {'old', 'new'}
  assert sum(count.values()) == 34


@pytest.mark.parametrize(
  ('old', 'new', 'how'),
  [
    ('single', 'single', 'kill'),
    ('single', 'shards', 'kill'),
    ('shards', 'shards', 'kill'),
    ('shards', 'single', 'kill'),
    ('one shard', 'shards', 'kill'),
    ('single', 'shards', 'error'),
    ('shards', 'shards', 'interrupt'),
    ('shards', 'single', 'error'),
  ],
)
def test_a_save_ended_at_each_operation(tmp_path, old, new, how):
  found = _run('crashing', tmp_path / 'out', old, new, how)
  count = collections.Counter(found['outcomes'])
  assert set(count) == {'old', 'new'}
  if how != 'error':  # An error need not end a save.
    # All readers change over at once, in one step.
    want = ['old'] * count['old'] + ['new'] * count['new']
    assert found['outcomes'] == want
  assert sum(count.values()) > 8
  assert not found['litter']


def test_processes_save_to_one_folder_and_one_loads_it(tmp_path):
  found = _run('racing', tmp_path / 'out', 3)
  assert found['codes'] == [0, 0, 0]
  assert found['loads'].keys() == {'whole'}
  assert found['loads']['whole'] > 20
