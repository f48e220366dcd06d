"""What the papers claim, and whether it holds here.

A claim is a difference that should be positive. It is taken within each seed,
so that what the seeds share does not blur it: ``holds`` if it is positive in
every seed, ``in the mean only`` if it is in the mean of seeds, else ``does not
hold``.
"""

from typing import Any

import numpy as np


def judge(
  bounds: dict[str, Any], results: dict[str, Any]
) -> list[dict[str, Any]]:
  """Judges the claims whose methods were run.

  Args:
    bounds: accuracies of base and experts.
    results: what was measured, by setting and method.

  Returns:
    For each claim: ``claim``; ``paper``, its numbers there; ``here``, the two
    means; ``difference`` by seed; ``mean`` and ``std`` of it; ``verdict``.
    Accuracies and errors are percentages.
  """
  found = [
    *_merging(results.get('addition', {})),
    *_negation(results.get('negation', {})),
    *_few_shot(results.get('few_shot', {})),
    *_test_time(bounds, results.get('test_time', {})),
    *_partition(results.get('partition', {})),
  ]
  return [_verdict(*one) for one in found]


def _merging(found: dict[str, Any]) -> list[Any]:
  accuracy = {name: _by_seed(one['test']) for name, one in found.items()}
  error = {
    name: 100 * np.asarray(one['disentanglement'])
    for name, one in found.items()
  }
  claims = [
    ('learned isotropic > searched, addition', '70.5 : 70.1')
    + _pair(accuracy, 'isotropic', 'searched'),
    ('learned anisotropic > learned isotropic, addition', '85.0 : 70.5')
    + _pair(accuracy, 'anisotropic', 'isotropic'),
    ('learned anisotropic > searched, addition', '85.0 : 70.1')
    + _pair(accuracy, 'anisotropic', 'searched'),
    ('anisotropic > searched, addition, tangent space', '83.4 : 74.7')
    + _pair(accuracy, 'tangent_anisotropic', 'tangent_searched'),
    ('anisotropic disentangles better: searched > anisotropic', '6.67 : 4.28')
    + _pair(error, 'searched', 'anisotropic'),
    ('the same, tangent space: searched > anisotropic', '5.69 : 4.39')
    + _pair(error, 'tangent_searched', 'tangent_anisotropic'),
  ]
  return [claim for claim in claims if len(claim) == 4]


def _negation(found: dict[str, Any]) -> list[Any]:
  target = {
    name: 100 * np.asarray(one['test'])[..., 0].mean(1)
    for name, one in found.items()
  }
  claims = [
    ('anisotropic forgets more: searched > anisotropic, target', '23.2 : 18.8')
    + _pair(target, 'searched', 'anisotropic'),
    ('the same: learned isotropic > anisotropic, target', '')
    + _pair(target, 'isotropic', 'anisotropic'),
  ]
  return [claim for claim in claims if len(claim) == 4]


def _few_shot(found: dict[str, Any]) -> list[Any]:
  claims = []
  for i, k in enumerate(next(iter(found.values()))['shots'] if found else ()):
    accuracy = {n: _by_seed(one['test'][i]) for n, one in found.items()}
    for ours, theirs in (
      ('anisotropic', 'isotropic'),
      ('anisotropic', 'lora'),
      ('partition', 'lora_partition'),
      ('partition', 'probe'),
    ):
      numbers = [
        f'{name.replace("_", " ")} ({found[name]["trained"]})'
        for name in (ours, theirs)
        if name in found
      ]
      label = f'{" > ".join(numbers)}, {k} shot{"s" if k > 1 else ""}'
      claims.append((label, '') + _pair(accuracy, ours, theirs))
  return [claim for claim in claims if len(claim) == 4]


def _test_time(bounds: dict[str, Any], found: dict[str, Any]) -> list[Any]:
  accuracy = {name: _by_seed(one['test']) for name, one in found.items()}
  accuracy['base'] = _by_seed(bounds['base']['test'])
  claims = [
    ('AdaMerging layer-wise > task-wise, no labels', '80.1 : 71.1')
    + _pair(accuracy, 'adamerging_leaf', 'adamerging_task'),
    ('AdaMerging++ > AdaMerging layer-wise', '81.1 : 80.1')
    + _pair(accuracy, 'adamerging_plus', 'adamerging_leaf'),
    ('UFM > base, target without labels', '66.9 : 60.4')
    + _pair(accuracy, 'ufm', 'base'),
    ('UFM > entropy, target without labels', '66.9 : 62.9')
    + _pair(accuracy, 'ufm', 'entropy'),
  ]
  return [claim for claim in claims if len(claim) == 4]


def _partition(found: dict[str, Any]) -> list[Any]:
  claims = []
  shots = next(iter(found.values()))['shots'] if found else ()
  cells = [name for name in found if name[0] == 'x' and name != 'xfull']
  for i, k in enumerate(shots):
    accuracy = {n: _by_seed(one['test'][i]) for n, one in found.items()}
    if len(cells) > 1:
      label = f'{cells[-1]} > {cells[0]} cells, {k} shots'
      claims.append((label, '') + _pair(accuracy, cells[-1], cells[0]))
    for name in cells:
      if f'lora_{name}' not in found:
        continue
      ours, theirs = found[name], found[f'lora_{name}']
      label = (
        f'{name} ({ours["trained"]}) > LoRA ({theirs["trained"]}), {k} shots'
      )
      claims.append((label, '') + _pair(accuracy, name, f'lora_{name}'))
  return claims


def _by_seed(accuracy: Any) -> np.ndarray:
  """Returns the mean over tasks of ``[S, T]``, in percent."""
  return 100 * np.asarray(accuracy).mean(1)


def _pair(
  values: dict[str, np.ndarray], high: str, low: str
) -> tuple[Any, ...]:
  """Returns both if both are there, else nothing."""
  both = high in values and low in values
  return (values[high], values[low]) if both else ()


def _verdict(
  claim: str, paper: str, high: np.ndarray, low: np.ndarray
) -> dict[str, Any]:
  difference = high - low
  if (difference > 0).all():
    verdict = 'holds'
  elif difference.mean() > 0:
    verdict = 'in the mean only'
  else:
    verdict = 'does not hold'
  return {
    'claim': claim,
    'paper': paper,
    'here': [float(high.mean()), float(low.mean())],
    'difference': difference.tolist(),
    'mean': float(difference.mean()),
    'std': float(difference.std(ddof=1)) if len(difference) > 1 else 0.0,
    'verdict': verdict,
  }
