"""Population Based Training: hyperparameters searched while training."""

from collections.abc import Callable, Sequence
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.search import _points


class Population(NamedTuple):
  """The result of ``pbt``.

  Attributes:
    states: of K members after the last round, every leaf ``[K, ...]``.
    hyper: their hyperparameters, leaves ``[K]``.
    losses: after the training of each round, ``[rounds, K]``.
    origins: the member whose state each one took on after a round, ``[rounds,
      K]``: itself, or a better one.
    schedule: the hyperparameters that each round was trained with, leaves
      ``[rounds, K]``.
  """

  states: types.Tree
  hyper: types.Tree
  losses: types.Array
  origins: types.Array
  schedule: types.Tree


def pbt(
  train: Callable[[Any, Any, types.PRNGKey], Any],
  loss: Callable[[Any], types.Array],
  states: types.Tree,
  hyper: types.Tree,
  *,
  rounds: int,
  share: float = 0.2,
  factors: Sequence[float] = (0.8, 1.2),
  key: types.PRNGKey,
) -> Population:
  r"""Trains a population; the worst members copy the best and vary them.

  In each round every member is trained. Then each of the worst ``share`` takes
  on state and hyperparameters of a random one of the best ``share``, and
  multiplies each hyperparameter by a random factor:

  .. math:: (\theta_i, h_i) \leftarrow (\theta_j,\; f \cdot h_j), \qquad
    j \sim U(\text{best}),\; f \sim U(\text{factors})

  Args:
    train: maps (state, hyperparameters, key) of one member to its new state,
      such as some steps of ``wsl.train.advance``; traced.
    loss: of one state, lower is better, such as on held-out data; traced. NaN
      ranks last.
    states: of K members, every leaf ``[K, ...]``.
    hyper: hyperparameters of each, a tree of floats ``[K]``.
    rounds: ``>= 1``; after the last one nothing is copied.
    share: of members that are replaced, ``> 0`` and ``<= 0.5``; rounded down,
      at least one.
    factors: that a copied hyperparameter is multiplied by.
    key: of training, copies and factors.

  Returns:
    A ``Population``. All is traced: K members are trained side by side by one
    compiled program.

  Raises:
    ValueError: if leaves differ in K, K is below two, hyperparameters are not
      floats, or a number is out of range.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> train = lambda x, rate, key: x - rate * 2 * x  # gradient descent on x^2
    >>> found = pbt(train, jnp.square, jnp.ones(5), 0.1 * jnp.ones(5), rounds=9,
    ...             key=jax.random.key(0))
    >>> bool(found.losses[-1].min() < 0.8**18)  # the loss without copies
    True

  Reference:
    Jaderberg et al., "Population Based Training of Neural Networks", 2017,
    arXiv:1711.09846; truncation selection and perturbation.
  """
  rounds = _points.check_count('pbt', 'rounds', rounds, 1)
  tree.check_scalars('pbt', share=share)
  if not 0 < share <= 0.5:
    raise ValueError(f'pbt: share={share} is not in 0 < share <= 0.5')
  if not len(factors) or not all(0 < f < math.inf for f in factors):
    raise ValueError(f'pbt: factors={factors} are not finite numbers > 0')
  size = _size(states, hyper)
  replaced = max(int(share * size), 1)

  def step(now: Any, key: types.PRNGKey) -> tuple[Any, Any]:
    (states, hyper), (of_training, of_copies) = now, jax.random.split(key)
    keys = jax.random.split(of_training, size)
    states = jax.vmap(train)(states, hyper, keys)
    losses = jax.vmap(loss)(states)
    if losses.shape != (size,):
      raise ValueError(
        f'pbt: loss returns shape {losses.shape[1:]}, a scalar is needed'
      )
    origins = _origins(losses, of_copies, replaced)
    copied = jax.tree.map(lambda x: x[origins], (states, hyper))
    moved = (origins != jnp.arange(size)), of_copies
    after = copied[0], _perturbed(copied[1], *moved, factors)
    return after, ((states, hyper), losses, origins)

  def scan(states: Any, hyper: Any, keys: Any) -> Population:
    _, (steps, losses, origins) = jax.lax.scan(step, (states, hyper), keys)
    states, hyper = jax.tree.map(lambda x: x[-1], steps)
    return Population(states, hyper, losses, origins, steps[1])

  return jax.jit(scan)(states, hyper, jax.random.split(key, rounds))


def _origins(
  losses: types.Array, key: types.PRNGKey, replaced: int
) -> types.Array:
  """Returns itself for each member, a random one of the best for the worst."""
  size = len(losses)
  order = jnp.argsort(jnp.where(jnp.isnan(losses), jnp.inf, losses))
  best = order[jax.random.randint(key, (replaced,), 0, replaced)]
  return jnp.arange(size).at[order[size - replaced :]].set(best)


def _perturbed(
  hyper: types.Tree,
  moved: types.Array,
  key: types.PRNGKey,
  factors: Sequence[float],
) -> types.Tree:
  """Multiplies the hyperparameters of copies by random factors."""

  def perturb(name: str, x: types.Array) -> types.Array:
    drawn = jax.random.choice(
      tree.name_key(key, name), jnp.asarray(factors, x.dtype), x.shape
    )
    return jnp.where(moved, x * drawn, x)

  return tree.map_named(perturb, hyper)


def _size(states: types.Tree, hyper: types.Tree) -> int:
  """Returns the number of members, the length of every leaf."""
  named = tree.named({'states': states, 'hyper': hyper})
  lengths = {name: (*np.shape(x), 0)[0] for name, x in named.items()}
  first = next(iter(lengths.values()), 0)
  for name, length in lengths.items():
    if length != first or length < 2:
      raise ValueError(
        f"pbt: leaf '{name}' has shape {np.shape(named[name])}: every leaf "
        'needs one entry for each of two members or more, [K, ...]'
      )
  for name, x in tree.named(hyper).items():
    if np.ndim(x) != 1 or not tree.is_float(x):
      raise ValueError(
        f"pbt: hyperparameter '{name}' must be floats [K], one for each member"
      )
  return int(first)
