"""The merges that are measured, by wsl and in mergekit's own terms."""

from collections.abc import Callable
import json
import pathlib
from typing import Any

# The parameters of each method in mergekit's own terms.
_MERGEKIT: dict[str, dict[str, Any]] = {
  'linear': {'merge_method': 'linear', 'weight': 1.0},
  'task_arithmetic': {'merge_method': 'task_arithmetic', 'weight': 0.3},
  'slerp': {'merge_method': 'slerp', 't': 0.3},
  'ties_leaf': {'merge_method': 'ties', 'weight': 1.0, 'density': 0.2},
  'dare_linear': {
    'merge_method': 'dare_linear',
    'weight': 0.3,
    'density': 0.5,
    'rescale': True,
  },
  'dare_ties': {
    'merge_method': 'dare_ties',
    'weight': 1.0,
    'density': 0.5,
    'rescale': True,
  },
}


def merged(folder: pathlib.Path, models: int, method: str) -> Any:
  """Returns the merge of a method, on demand."""
  import jax

  from wsl import checkpoint, deltas, merge

  load = lambda t: checkpoint.load(folder / f'{t}', lazy=True)
  base, *others = (load(t) for t in range(models + 1))
  if method == 'slerp':
    return merge.slerp(base, others[0], t=0.3)
  if method == 'slerp_global':
    return merge.slerp(base, others[0], t=0.3, scope='global')
  if method == 'linear':
    first, *rest = others
    return deltas.apply(first, merge.mean(deltas.stack(first, [first, *rest])))
  tau = deltas.stack(base, others)
  dare = lambda: merge.dare(tau, rate=0.5, key=jax.random.key(0))
  methods: dict[str, Callable[[], Any]] = {
    'task_arithmetic': lambda: merge.sum(tau),
    'ties_leaf': lambda: merge.ties(
      tau, density=0.2, scope='leaf', dialect='mergekit'
    ),
    'ties_global': lambda: merge.ties(tau, density=0.2),
    'dare_linear': lambda: merge.sum(dare()),
    'dare_ties': lambda: merge.mean_nonzero(
      merge.elect_sign(dare(), dialect='mergekit')
    ),
  }
  coef = 1.0 if 'ties' in method else 0.3
  return deltas.apply(base, methods[method](), coef=coef)


METHODS = [*_MERGEKIT, 'ties_global']


def has_peer(method: str) -> bool:
  """Returns True if mergekit has the method."""
  return method in _MERGEKIT


def inputs(method: str, models: int) -> list[int]:
  """Returns the numbers of the models that a method reads."""
  all_of_them = list(range(models + 1))
  if method.startswith('slerp'):
    return all_of_them[:2]
  return all_of_them[method == 'linear' :]


def recipe(folder: pathlib.Path, models: int, method: str) -> str:
  """Returns a config of mergekit, as JSON, which is YAML."""
  parameters = dict(_MERGEKIT[method])
  name = parameters.pop('merge_method')
  paths = [str(folder / f'{t}') for t in range(models + 1)]
  config: dict[str, Any] = {'merge_method': name, 'dtype': 'bfloat16'}
  if name == 'slerp':
    config['models'] = [{'model': path} for path in paths[:2]]
  else:
    config['models'] = [{'model': path} for path in paths[1:]]
  if name != 'linear':
    config['base_model'] = paths[0]
  if name.startswith('ties') or name == 'dare_ties':
    parameters['normalize'] = True
  return json.dumps(config | {'parameters': parameters})
