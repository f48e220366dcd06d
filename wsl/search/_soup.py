"""The greedy soup: members are added while the score does not fall."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from wsl import deltas, merge, types


class Soup(NamedTuple):
  """The result of ``greedy_soup``.

  Attributes:
    params: the mean of the members.
    members: the positions of the members among the models, best first.
    score: of the soup.
    scores: of the models by themselves, in their order.
    evaluations: the number of scores that were computed.
  """

  params: types.Params
  members: list[int]
  score: float
  scores: list[float]
  evaluations: int


def greedy_soup(
  score: Callable[[types.Params], float],
  models: Sequence[types.Params],
  *,
  dialect: Literal['paper', 'official'] = 'paper',
) -> Soup:
  r"""Averages the models that do not lower the score of the average.

  The models are taken in the order of their scores, best first. Each is added
  to the set S of members if

  .. math:: \mathrm{score}\Big(\tfrac{1}{|S| + 1}
    \sum_{t \in S \cup \{i\}} \theta_t\Big) \ge
    \mathrm{score}\Big(\tfrac{1}{|S|} \sum_{t \in S} \theta_t\Big)

  so that the soup scores at least as well as the best model, on the data of the
  score. The uniform soup is ``merge.mean`` of all.

  Args:
    score: of a model, higher is better, such as accuracy on held-out data.
    models: T models of one structure, in memory or on demand.
    dialect: 'official' asks for a higher score (``>``), as the authors' code
      does; 'paper' for one that is not lower.

  Returns:
    A ``Soup``; T scores of models and T - 1 of averages are computed.

  Raises:
    ValueError: if there are no models, they differ in structure or shapes, or
      the dialect is unknown.
    FloatingPointError: if a score is NaN.

  Example:
    >>> import jax.numpy as jnp
    >>> models = [{'w': jnp.asarray(x)} for x in (0.0, 4.0, 9.0)]
    >>> soup = greedy_soup(lambda x: -abs(float(x['w']) - 2.5), models)
    >>> soup.members, float(soup.params['w'])
    ([1, 0], 2.0)

  Reference:
    Wortsman et al., "Model soups: averaging weights of multiple fine-tuned
    models improves accuracy without increasing inference time", 2022,
    arXiv:2203.05482.
  """
  if not models:
    raise ValueError('greedy_soup: no models given, at least one is needed')
  if dialect not in ('paper', 'official'):
    raise ValueError(
      f"greedy_soup: dialect='{dialect}' is neither 'paper' nor 'official'"
    )
  names = {f'models[{i}]': model for i, model in enumerate(models)}
  models = list(deltas.check('greedy_soup', names))
  scores = [_score(score, x, f'models[{i}]') for i, x in enumerate(models)]
  order = sorted(range(len(models)), key=lambda i: -scores[i])
  members = order[:1]
  soup, reached = models[order[0]], scores[order[0]]
  for i in order[1:]:
    trial = _mean([models[t] for t in [*members, i]])
    found = _score(score, trial, f'the mean of models {[*members, i]}')
    if found > reached or (found == reached and dialect == 'paper'):
      members, soup, reached = [*members, i], trial, found
  return Soup(soup, members, reached, scores, 2 * len(models) - 1)


def _mean(models: list[types.Params]) -> types.Params:
  """Returns the mean of models, computed from all of them at once."""
  return deltas.apply(models[0], merge.mean(deltas.stack(models[0], models)))


def _score(
  score: Callable[[types.Params], float], params: types.Params, label: str
) -> float:
  found = float(score(params))
  if found != found:
    raise FloatingPointError(f'greedy_soup: the score of {label} is NaN')
  return found
