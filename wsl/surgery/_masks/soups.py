"""Sparse Model Soups: prune, retrain several copies, average, repeat."""

from collections.abc import Callable, Sequence
from typing import Any

from wsl import deltas, merge, tree, types
from wsl.surgery._masks import magnitude
from wsl.surgery._masks import masked as masked_lib


def phase_sparsities(sparsity: float, phases: int) -> list[float]:
  r"""Returns the sparsity after each phase of iterative pruning.

  .. math:: S_i = 1 - (1 - S)^{i / n}

  so that every phase removes the same part of the weights that remain.

  Args:
    sparsity: S, after the last phase, 0 <= S < 1.
    phases: n >= 1.

  Returns:
    The sparsities of the n phases, ascending.

  Raises:
    ValueError: if one is out of range.

  Example:
    >>> [round(s, 4) for s in phase_sparsities(0.75, 2)]
    [0.5, 0.75]

  Reference:
    Zimmer, Spiegel and Pokutta, "Sparse Model Soups: A Recipe for Improved
    Pruning via Model Averaging", 2023, arXiv:2306.16788.
  """
  tree.check_scalars('phase_sparsities', sparsity=sparsity)
  tree.check_whole('phase_sparsities', phases=phases)
  if not 0 <= sparsity < 1 or phases < 1:
    raise ValueError(
      f'phase_sparsities: sparsity={sparsity}, phases={phases}: expected 0 <= '
      'sparsity < 1 and at least one phase'
    )
  # Each of n phases keeps the same factor q: q^n = 1 - S, so q = (1 - S)^(1/n).
  steps = [1 - (1 - sparsity) ** (i / phases) for i in range(1, phases)]
  return [*steps, sparsity]


def sparse_soups(
  params: types.Params,
  retrain: Callable[[types.Params, int], Sequence[types.Params]],
  *,
  sparsity: float,
  phases: int,
  average: Callable[[Sequence[types.Params]], types.Params] | None = None,
  **pruning: Any,
) -> types.Params:
  r"""Prunes a model in phases, each with an average of retrained copies.

  .. math:: \theta_i = \frac1m \sum_{j=1}^{m} \mathrm{retrain}_j(M_i \odot
    \theta_{i-1})

  All copies share the mask of their phase, so that their average is as sparse
  as they are; copies of different masks are refused. With one copy it is
  iterative magnitude pruning.

  Args:
    params: any pytree, dense.
    retrain: ``(sparse model, phase) -> m models`` of the same masks, which
      differ in one factor, such as the order of batches; phases count from 0.
      It trains ``values`` through ``unmask``.
    sparsity: S, after the last phase.
    phases: n >= 1.
    average: of the copies; their mean by default. ``search.greedy_soup`` serves
      as well, and a place to compute running statistics again.
    **pruning: passed to ``magnitude_masks``: ``scope``, ``leaves`` ...

  Returns:
    The sparse model, with ``Masked`` nodes.

  Raises:
    ValueError: if an argument is out of range, ``retrain`` returns no model, or
      copies differ in masks.

  Example:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> params = {'w': jnp.asarray([[4.0, 3.0], [2.0, 1.0]])}
    >>> nothing = lambda model, phase: [model]
    >>> found = sparse_soups(params, nothing, sparsity=0.75, phases=2)
    >>> masked_lib.unmask(found)['w'].tolist()
    [[4.0, 0.0], [0.0, 0.0]]

  Reference:
    Zimmer, Spiegel and Pokutta, "Sparse Model Soups: A Recipe for Improved
    Pruning via Model Averaging", 2023, arXiv:2306.16788.

  Differs from the official code in the masks, which there are those of the last
  copy, whatever the others are.
  """
  for phase, part in enumerate(phase_sparsities(sparsity, phases)):
    masks = magnitude.magnitude_masks(params, sparsity=part, **pruning)
    models = retrain(masked_lib.mask(params, masks), phase)
    if not models:
      raise ValueError(f'sparse_soups: retrain gave no model in phase {phase}')
    _check_masks(models, masks)
    params = (average or _mean)(models)
  return params


def _mean(models: Sequence[types.Params]) -> types.Params:
  """Averages models of the same masks."""
  stacked = deltas.stack(models[0], list(models))
  return deltas.apply(models[0], merge.mean(stacked))


def _check_masks(
  models: Sequence[types.Params], masks: dict[str, types.Array]
) -> None:
  """Checks that every copy has the masks of the phase."""
  for i, model in enumerate(models):
    found = masked_lib.masks(model)
    for name, mask in masks.items():
      if name not in found or tree.total(_differs, found[name], mask):
        raise ValueError(
          f"sparse_soups: leaf '{name}' of model {i} has another mask than the "
          'phase: train its values through unmask'
        )


def _differs(x: types.Array, y: types.Array) -> types.Array:
  """Counts the entries in which two masks differ."""
  return (x != y).sum()
