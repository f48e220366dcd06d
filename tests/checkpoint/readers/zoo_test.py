"""Folders and data sets of the public model zoos, without running code."""

import json
import pathlib
import pickle
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from tests.checkpoint.readers import writers
from wsl import checkpoint, tree

ZOO = pathlib.Path(__file__).parents[2] / 'golden' / 'zoo'
INDEX = ZOO / 'index_dict.json'
SHAPES = {
  'module_list.0.weight': (2, 1, 2, 2),
  'module_list.0.bias': (2,),
  'module_list.3.weight': (2, 3),
  'module_list.3.bias': (2,),
}


def layers(epoch):
  """Returns the parameters that were written: counters."""
  return {
    name: np.arange(np.prod(shape)).reshape(shape) + 100 * i + 1000 * epoch
    for i, (name, shape) in enumerate(SHAPES.items())
  }


def check(params, epoch):
  assert set(params) == set(SHAPES)
  for name, wanted in layers(epoch).items():
    np.testing.assert_array_equal(params[name], wanted)


def test_trials_of_a_zoo():
  first, second = checkpoint.load_zoo(ZOO)
  assert first.name == 'NN_tune_trainable_00000'
  assert (first.params['optim::lr'], second.params['optim::lr']) == (0.01, 0.1)
  assert first.metrics['training_iteration'].tolist() == [0, 1, 2]
  assert first.metrics['test_acc'].tolist() == [0, 0.25, 0.5]
  np.testing.assert_array_equal(
    first.metrics['train_loss'], [np.nan, 0.5, -0.5]
  )
  np.testing.assert_array_equal(first.metrics['cka'], [np.nan, np.nan, 0.5])
  assert set(first.metrics) == {
    'training_iteration', 'test_acc', 'train_loss', 'cka',
  }  # fmt: skip
  # Both spellings of the folders, with and without the prefix of the names.
  for trial in (first, second):
    assert list(trial.checkpoints) == [0, 2]
    check(checkpoint.load_trial(trial, epoch=0), 0)
    check(checkpoint.load_trial(trial), 2)
  (alone,) = checkpoint.load_zoo(ZOO / second.name)
  assert alone.checkpoints == second.checkpoints


def test_a_trial_on_demand():
  trial = checkpoint.load_zoo(ZOO)[1]
  params = checkpoint.load_trial(trial, lazy=True)
  assert all(map(tree.on_demand, params.values()))
  check(tree.read(params), 2)


def test_vectors_of_a_preprocessed_zoo():
  file = ZOO / 'dataset.pt'
  vectors = checkpoint.load(file, item='trainset/weights_in')
  assert vectors.shape == (3, 18)
  found = checkpoint.split_vectors(vectors, INDEX)
  assert {name: x.shape[1:] for name, x in found.items()} == SHAPES
  for epoch in range(3):
    check({name: x[epoch] for name, x in found.items()}, epoch)
  one = checkpoint.split_vectors(jnp.asarray(vectors[1]), INDEX)
  check(one, 1)
  known = checkpoint.load(file, item='trainset/properties')
  assert [float(x) for x in known['test_acc']] == [0, 0.5, 1]
  assert known['model::nlin'] == ['relu'] * 3
  (model,) = checkpoint.load(file, item='testset/data_in')
  check(model, 0)


def test_code_in_a_data_set_is_refused():
  """Its paths are objects of another class."""
  with pytest.raises(ValueError, match=r'asks for .*pathlib') as error:
    checkpoint.load(ZOO / 'dataset.pt', item='trainset')
  assert '\n' not in str(error.value)


def test_code_in_a_checkpoint_is_refused(tmp_path):
  class Bomb:
    def __reduce__(self):
      return (pathlib.Path.touch, (tmp_path / 'ran',))

  trial = tmp_path / 'zoo' / 'trial'
  (trial / 'checkpoint_1').mkdir(parents=True)
  (trial / 'params.json').write_text('{}')
  program = pickle.dumps({'w': Bomb()}, protocol=2)
  writers.torch_zip(trial / 'checkpoint_1' / 'checkpoints', {}, pickle=program)
  (found,) = checkpoint.load_zoo(trial.parent)
  with pytest.raises(ValueError, match='is refused, its pickle asks for'):
    checkpoint.load_trial(found)
  assert not (tmp_path / 'ran').exists()


def test_damaged_zoos_are_named(tmp_path):
  with pytest.raises(FileNotFoundError, match='load_zoo: there is no folder'):
    checkpoint.load_zoo(tmp_path / 'none')
  (tmp_path / 'other').mkdir()
  with pytest.raises(FileNotFoundError, match=r"no folder with .*'other'"):
    checkpoint.load_zoo(tmp_path)
  with pytest.raises(ValueError, match='is a file: unpack it'):
    checkpoint.load_zoo(ZOO / 'dataset.pt')
  name = 'NN_tune_trainable_00000'
  shutil.copytree(ZOO / name, tmp_path / name)
  result = tmp_path / name / 'result.json'
  result.write_text(result.read_text()[:-20])
  with pytest.raises(ValueError, match=r'result.json, line 3 is no JSON obj'):
    checkpoint.load_zoo(tmp_path)
  trial = checkpoint.load_zoo(ZOO)[0]
  with pytest.raises(FileNotFoundError, match=r'of epoch 1, it has .*0.*2'):
    checkpoint.load_trial(trial, epoch=1)


def test_wrong_indices_are_named(tmp_path):
  index = json.loads(INDEX.read_text())
  with pytest.raises(ValueError, match=r'layer 3 ends at 18, but .* 17 en'):
    checkpoint.split_vectors(np.ones(17), index)
  with pytest.raises(ValueError, match='needs equally long lists layer, idx'):
    checkpoint.split_vectors(np.ones(18), {**index, 'kernel_no': [2]})
  with pytest.raises(ValueError, match=r'has \[0, -2, 4, 1\] at layer 0'):
    checkpoint.split_vectors(np.ones(18), {**index, 'kernel_no': [-2, 2]})
  (tmp_path / 'index.json').write_text('[1')
  with pytest.raises(ValueError, match=r'index\.json needs equally long'):
    checkpoint.split_vectors(np.ones(18), tmp_path / 'index.json')
