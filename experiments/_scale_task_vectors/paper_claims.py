"""Claims of the papers, and verdicts on them.

A claim is a positive difference. It is paired by seed, which removes the
variance that both terms share. The verdict is ``holds`` if the difference is
positive in every seed, ``in the mean only`` if its mean is, else ``does not
hold``.
"""

from collections.abc import Callable, Mapping
import functools
from typing import Any

import numpy as np

from experiments._run import spreads

Verdicts = list[dict[str, Any]]


def judge(bounds: dict[str, Any], results: dict[str, Any]) -> Verdicts:
  """Judges the claims about the methods that were run.

  Args:
    bounds: accuracies of base and experts.
    results: measurements by setting and method.

  Returns:
    For each claim: ``claim``; ``paper``, its numbers there; ``here``, the two
    means; ``difference`` by seed; ``mean`` and ``std`` of it; ``verdict``.
    Accuracies and errors are percentages.
  """
  return [
    *_merging(results.get('addition', {})),
    *_negation(results.get('negation', {})),
    *_few_shot(results.get('few_shot', {})),
    *_test_time(bounds, results.get('test_time', {})),
    *_partition(results.get('partition', {})),
  ]


def _merging(found: dict[str, Any]) -> Verdicts:
  """Judges addition: accuracy, then disentanglement of the vectors."""
  accuracy = {name: _by_seed(one['test']) for name, one in found.items()}
  error = {n: 100 * np.asarray(x['disentanglement']) for n, x in found.items()}
  above, worse = _comparison(accuracy), _comparison(error)
  return [
    *above(
      'learned isotropic > searched, addition',
      ('isotropic', 'searched'),
      '70.5 : 70.1',
    ),
    *above(
      'learned anisotropic > learned isotropic, addition',
      ('anisotropic', 'isotropic'),
      '85.0 : 70.5',
    ),
    *above(
      'learned anisotropic > searched, addition',
      ('anisotropic', 'searched'),
      '85.0 : 70.1',
    ),
    *above(
      'anisotropic > searched, addition, tangent space',
      ('tangent_anisotropic', 'tangent_searched'),
      '83.4 : 74.7',
    ),
    *worse(
      'anisotropic disentangles better: searched > anisotropic',
      ('searched', 'anisotropic'),
      '6.67 : 4.28',
    ),
    *worse(
      'the same, tangent space: searched > anisotropic',
      ('tangent_searched', 'tangent_anisotropic'),
      '5.69 : 4.39',
    ),
  ]


def _negation(found: dict[str, Any]) -> Verdicts:
  """Judges negation by the accuracy on targets, lower is better."""
  target = {
    name: 100 * np.asarray(one['test'])[..., 0].mean(1)
    for name, one in found.items()
  }
  above = _comparison(target)
  return [
    *above(
      'anisotropic forgets more: searched > anisotropic, target',
      ('searched', 'anisotropic'),
      '23.2 : 18.8',
    ),
    *above(
      'the same: learned isotropic > anisotropic, target',
      ('isotropic', 'anisotropic'),
    ),
  ]


def _few_shot(found: dict[str, Any]) -> Verdicts:
  """Judges pairs of methods at every number of shots."""
  pairs = (
    ('anisotropic', 'isotropic'),
    ('anisotropic', 'lora'),
    ('partition', 'lora_partition'),
    ('partition', 'probe'),
    ('anisotropic_tip', 'tip'),
    ('anisotropic_lp', 'lp'),
    ('anisotropic_tip', 'anisotropic'),
  )
  verdicts = []
  for i, k in enumerate(_shots(found)):
    above = _comparison({n: _by_seed(x['test'][i]) for n, x in found.items()})
    for pair in pairs:
      if found.keys() >= set(pair):
        ours, theirs = (
          f'{name.replace("_", " ")} ({found[name]["trained"]})'
          for name in pair
        )
        shots = f'{k} shot{"s" if k > 1 else ""}'
        verdicts += above(f'{ours} > {theirs}, {shots}', pair)
  return verdicts


def _test_time(bounds: dict[str, Any], found: dict[str, Any]) -> Verdicts:
  """Judges adaptation to unlabelled test images."""
  accuracy = {name: _by_seed(one['test']) for name, one in found.items()}
  above = _comparison({**accuracy, 'base': _by_seed(bounds['base']['test'])})
  return [
    *above(
      'AdaMerging layer-wise > task-wise, no labels',
      ('adamerging_leaf', 'adamerging_task'),
      '80.1 : 71.1',
    ),
    *above(
      'AdaMerging++ > AdaMerging layer-wise',
      ('adamerging_plus', 'adamerging_leaf'),
      '81.1 : 80.1',
    ),
    *above('UFM > base, target without labels', ('ufm', 'base'), '66.9 : 60.4'),
    *above(
      'UFM > entropy, target without labels',
      ('ufm', 'entropy'),
      '66.9 : 62.9',
    ),
  ]


def _partition(found: dict[str, Any]) -> Verdicts:
  """Judges numbers of cells against each other and against LoRA."""
  cells = [name for name in found if name[0] == 'x' and name != 'xfull']
  verdicts = []
  for i, k in enumerate(_shots(found)):
    above = _comparison({n: _by_seed(x['test'][i]) for n, x in found.items()})
    if len(cells) > 1:
      last, first = cells[-1], cells[0]
      verdicts += above(f'{last} > {first} cells, {k} shots', (last, first))
    for name in cells:
      if (other := f'lora_{name}') in found:
        ours, theirs = found[name]['trained'], found[other]['trained']
        label = f'{name} ({ours}) > LoRA ({theirs}), {k} shots'
        verdicts += above(label, (name, other))
  return verdicts


def _shots(found: dict[str, Any]) -> list[int]:
  """Returns the numbers of shots, none if no method was run."""
  return next(iter(found.values()))['shots'] if found else []


def _by_seed(accuracy: Any) -> np.ndarray:
  """Returns the mean over tasks of ``[S, T]``, in percent."""
  return 100 * np.asarray(accuracy).mean(1)


def _comparison(values: Mapping[str, np.ndarray]) -> Callable[..., Verdicts]:
  """Returns a function that compares two methods by their values ``[S]``."""
  return functools.partial(_compare, values)


def _compare(
  values: Mapping[str, np.ndarray],
  claim: str,
  pair: tuple[str, str],
  paper: str = '',
) -> Verdicts:
  """Judges that one method is above another; empty if one was not run."""
  if not values.keys() >= set(pair):
    return []
  high, low = (values[name] for name in pair)
  difference = high - low
  mean, std = spreads.spread(difference)
  if (difference > 0).all():
    verdict = 'holds'
  else:
    verdict = 'in the mean only' if mean > 0 else 'does not hold'
  return [
    {
      'claim': claim,
      'paper': paper,
      'here': [float(high.mean()), float(low.mean())],
      'difference': difference.tolist(),
      'mean': mean,
      'std': std,
      'verdict': verdict,
    }
  ]
