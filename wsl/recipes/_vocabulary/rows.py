"""Tensors with a row for each token, with the rows of the output."""

from collections.abc import Sequence
import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.recipes import _recipe
from wsl.recipes._vocabulary import tokens

# Parts of names of tensors whose first axis is the vocabulary.
_NAMES = ('embed', 'wte', 'lm_head', 'output', 'predictions', 'decoder')


def is_indexed(
  vocabulary: tokens.Vocabulary,
  name: str,
  models: Sequence[_recipe.Model],
  leaves: Sequence[Any],
) -> bool:
  """Returns whether the first axis of a tensor is the vocabulary."""
  named = any(part in name for part in _NAMES)
  return named and all(
    leaf.ndim and leaf.shape[0] == vocabulary.lengths[model]
    for model, leaf in zip(models, leaves)
  )


def check_any(
  vocabulary: tokens.Vocabulary | None, aligned: Sequence[str]
) -> None:
  """Checks that some tensor was aligned if a vocabulary was asked for."""
  if vocabulary is not None and not aligned:
    lengths = sorted(set(vocabulary.lengths.values()))
    raise ValueError(
      'tokenizer: no tensor has a row for each token in all models, which have '
      f'vocab_size={lengths} by their configs'
    )


def align(
  recipe: _recipe.Recipe,
  vocabulary: tokens.Vocabulary,
  models: Sequence[_recipe.Model],
  leaves: Sequence[Any],
) -> list[Any]:
  """Returns the tensors with the rows of the output.

  A token that a model does not have takes the row that the recipe gives it; or
  that of the only model that has it; or that of the base; or the mean over the
  models that have it; or zeros. Rows of padding are the mean of all others.

  Args:
    recipe: the recipe.
    vocabulary: of the output.
    models: the inputs of a tensor.
    leaves: the tensor in each, of any numbers of rows.

  Returns:
    The tensor in each, of equal shapes.
  """
  share, donors, forced = _sources(recipe, vocabulary, models)
  aligned = []
  for model, leaf in zip(models, leaves):
    own = np.where(forced, -1, vocabulary.rows[model])
    aligned.append(
      tree.apply_kernel(
        _aligned,
        leaf,
        *leaves,
        own=own.astype(np.int32),
        donors=donors.astype(np.int32),
        share=share.astype(np.float32),
        padding=tree.Static(vocabulary.size - len(own)),
      )
    )
  return aligned


def _sources(
  recipe: _recipe.Recipe,
  vocabulary: tokens.Vocabulary,
  models: Sequence[_recipe.Model],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns what a token that is missing in a model takes from all models.

  Returns:
    The share ``[M, V]`` of each model in its row, the row ``[M, V]`` that is
    taken, and which tokens ``[V]`` take it in models that have them too.
  """
  donors = np.stack([vocabulary.rows[m] for m in models])
  present = donors >= 0
  share = present / np.maximum(present.sum(0), 1)
  if recipe.base is not None and recipe.base in models:
    base = list(models).index(recipe.base)
    alone = np.zeros_like(share)
    alone[base] = 1
    share = np.where(present[base], alone, share)
  forced = np.zeros(donors.shape[1], bool)
  asked = recipe.tokenizer.tokens if recipe.tokenizer else {}
  for token, (source, force) in asked.items():
    column = vocabulary.tokens[token]
    forced[column] = force
    share[:, column] = 0
    if source is not None:
      i = _input(models, token, source)
      share[i, column] = 1
      donors[i, column] = _row(vocabulary, token, source)
  return share, np.maximum(donors, 0), forced


def _input(
  models: Sequence[_recipe.Model], token: str, source: _recipe.Row
) -> int:
  """Returns which input gives its row to a token."""
  if source.model not in models:
    raise ValueError(
      f"tokenizer: token '{token}' takes a row of {source.model}, which is no "
      'input'
    )
  return list(models).index(source.model)


def _row(vocabulary: tokens.Vocabulary, token: str, source: _recipe.Row) -> int:
  """Returns the row of a model that the recipe gives to a token."""
  wanted = token if source.token is None else source.token
  if isinstance(wanted, int):
    row = wanted if 0 <= wanted < vocabulary.lengths[source.model] else -1
  else:
    row = vocabulary.models[source.model].get(wanted, -1)
  if row < 0:
    raise ValueError(f"tokenizer: {source.model} has no row for '{wanted}'")
  return row


def _aligned(
  x: types.Array,
  *models: types.Array,
  own: types.Array,
  donors: types.Array,
  share: types.Array,
  padding: int,
) -> types.Array:
  """Takes the rows of x where it has them, else the donors' by their shares."""
  column = lambda v: v.reshape(v.shape + (1,) * (x.ndim - 1))
  take = lambda y, rows: jnp.take(tree.wide(y), rows, axis=0)
  parts = [
    column(s).astype(tree.wide(x).dtype) * take(y, rows)
    for y, rows, s in zip(models, donors, share)
  ]
  missing = functools.reduce(jnp.add, parts)
  mine = take(x, jnp.maximum(own, 0))
  rows = jnp.where(column(own >= 0), mine, missing)
  if padding:
    mean = jnp.mean(rows, axis=0, keepdims=True)
    rows = jnp.concatenate([rows, jnp.repeat(mean, padding, axis=0)])
  return rows.astype(x.dtype)
