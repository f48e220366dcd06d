"""A save that was killed or failed is resumed."""

import json

import numpy as np
import pytest

from wsl import checkpoint, tree

STAGE = '.model.safetensors.save'


class Recipe:
  """Leaves on demand that count how often they are computed."""

  def __init__(self, values, fail_at=None):
    self.values = values
    self.fail_at = fail_at
    self.computed = []

  def params(self):
    return {name: self._leaf(name, x) for name, x in self.values.items()}

  def _leaf(self, name, x):
    def read():
      self.computed.append(name)
      if name == self.fail_at:
        raise KeyboardInterrupt
      return x

    return tree.Stored(read, x.shape, x.dtype)


def _values(seed=0):
  rng = np.random.default_rng(seed)
  values = {f'{i}': rng.standard_normal((300, 500)) for i in range(4)}
  return values | {'4': rng.integers(0, 9, 5), '5': np.ones(3, np.float32)}


def _interrupt(folder, fail_at='3', values=None, **options):
  recipe = Recipe(_values() if values is None else values, fail_at)
  with pytest.raises(KeyboardInterrupt):
    checkpoint.save(folder, recipe.params(), resume=True, **options)
  return recipe


def _finish(folder, values=None, **options):
  recipe = Recipe(_values() if values is None else values)
  checkpoint.save(folder, recipe.params(), **{'resume': True, **options})
  loaded = checkpoint.load(folder)
  for name, x in recipe.values.items():
    np.testing.assert_array_equal(loaded[name], x)
  assert not (folder / STAGE).exists()
  return recipe.computed


@pytest.mark.parametrize('checksums', [False, True])
@pytest.mark.parametrize('shard_bytes', [None, 1, 2_000_000])
@pytest.mark.parametrize('fail_at', ['0', '1', '3', '5'])
def test_finished_leaves_are_not_computed_again(
  tmp_path, shard_bytes, fail_at, checksums
):
  options = {'shard_bytes': shard_bytes, 'checksums': checksums}
  first = _interrupt(tmp_path, fail_at, **options)
  done = first.computed[:-1]
  assert not list(tmp_path.glob('*.safetensors'))
  again = _finish(tmp_path, **options)
  # The last finished leaf is computed to compare it; small leaves are written,
  # and hence finished, together.
  assert sorted({*done, *again}) == sorted(first.values)
  if fail_at != '5':
    assert sorted([*done[:-1], *again]) == sorted(first.values)


def test_a_second_interruption(tmp_path):
  _interrupt(tmp_path, '1')
  assert _interrupt(tmp_path, '3').computed == ['0', '1', '2', '3']
  assert _finish(tmp_path) == ['2', '3', '4', '5']


def test_the_old_checkpoint_stays_until_the_end(tmp_path):
  checkpoint.save(tmp_path, {'a': np.ones(1)}, shard_bytes=1)
  _interrupt(tmp_path)
  assert checkpoint.load(tmp_path).keys() == {'a'}
  _finish(tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ['model.safetensors']


def test_progress_counts_finished_leaves(tmp_path):
  _interrupt(tmp_path)
  calls = []
  _finish(tmp_path, progress=lambda *call: calls.append(call))
  size = 300 * 500 * 8
  total = 4 * size + 40 + 12
  assert calls[0] == ('3', 4 * size, total)
  assert calls[-1] == ('5', total, total)


def test_without_resume_nothing_is_kept(tmp_path):
  recipe = Recipe(_values(), '3')
  with pytest.raises(KeyboardInterrupt):
    checkpoint.save(tmp_path, recipe.params())
  assert not list(tmp_path.iterdir())
  _interrupt(tmp_path)
  assert _finish(tmp_path, resume=False) == list('012345')


@pytest.mark.parametrize(
  'change',
  [
    lambda v: _values(1),
    lambda v: v | {'2': v['2'] + 1},
    lambda v: {**v, '1': v['1'].astype(np.float32)},
    lambda v: {**v, '1': v['1'].reshape(500, 300)},
    lambda v: {f'x{name}': x for name, x in v.items()},
    lambda v: {'0': v['0']},
  ],
)
def test_another_tree_starts_from_the_beginning(tmp_path, change):
  _interrupt(tmp_path)
  values = change(_values())
  computed = _finish(tmp_path, values)
  assert set(computed) == set(values)


def test_other_metadata_or_shards_start_from_the_beginning(tmp_path):
  for options in ({'metadata': {'a': 'b'}}, {'shard_bytes': 2_000_000}):
    _interrupt(tmp_path)
    assert set(_finish(tmp_path, **options)) == set('012345')


def test_input_files_that_have_changed_start_from_the_beginning(tmp_path):
  values = _values()
  for seed in range(2):
    checkpoint.save(tmp_path / 'in', _values(seed))
    lazy = checkpoint.load(tmp_path / 'in', lazy=True)
    recipe = Recipe(values, '3' if not seed else None)
    params = {'in': lazy, 'out': recipe.params()}
    out = tmp_path / 'out'
    if seed:
      checkpoint.save(out, params, resume=True)
      assert recipe.computed[:3] == ['0', '1', '2']
    else:
      with pytest.raises(KeyboardInterrupt):
        checkpoint.save(out, params, resume=True)
  for name, x in _values(1).items():
    np.testing.assert_array_equal(checkpoint.load(out)['in'][name], x)


@pytest.mark.parametrize('damage', ['cut', 'flip', 'longer', 'journal', 'none'])
def test_a_part_that_is_not_what_the_journal_says(tmp_path, damage):
  _interrupt(tmp_path)
  part, journal = tmp_path / STAGE / '0.part', tmp_path / STAGE / 'journal'
  data, lines = bytearray(part.read_bytes()), journal.read_text()
  if damage == 'cut':
    del data[-1:]
  elif damage == 'flip':
    data[-1] ^= 1
  elif damage == 'longer':
    data += b'unfinished'
  elif damage == 'journal':
    lines = lines[:-1]  # killed in the middle of a line
  part.write_bytes(data)
  journal.write_text(lines)
  first = '2' if damage in ('longer', 'none') else '1'
  assert _finish(tmp_path)[0] == first


def test_a_journal_that_is_damaged_starts_from_the_beginning(tmp_path):
  for text in (b'', b'\n', b'\xff\xfe', b'0' * 64 + b'\n', b'{}\n{}\n'):
    _interrupt(tmp_path)
    (tmp_path / STAGE / 'journal').write_bytes(text)
    assert _finish(tmp_path) == list('012345')


def test_a_resumed_save_records_all_checksums(tmp_path):
  _interrupt(tmp_path, checksums=True)
  _finish(tmp_path, checksums=True)
  header = (tmp_path / 'model.safetensors').read_bytes()[8:]
  length = int.from_bytes(
    (tmp_path / 'model.safetensors').read_bytes()[:8], 'little'
  )
  metadata = json.loads(header[:length])['__metadata__']
  assert '0' * 64 not in json.loads(metadata['wsl.sha256']).values()
