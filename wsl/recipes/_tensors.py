"""The inputs of one tensor: missing ones, dtypes, shapes, integers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wsl import deltas, tree
from wsl.recipes import _folder, _outputs, _recipe


def inputs(
  output: _outputs.Output,
  folders: Mapping[_recipe.Model, _folder.Folder],
  unmatched: str,
  notes: list[str],
) -> list[Any]:
  """Returns the tensors that an output is merged from.

  Returns one tensor where it is copied since not all inputs have it, and none
  where it is dropped.
  """
  leaves = []
  for model, name in output.inputs:
    leaf = folders[model].params.get(name)
    if (
      leaf is None and (leaf := _folder.head(folders[model], name)) is not None
    ):
      notes.append(f"'{name}' of {model} is its tied input embedding")
    leaves.append(leaf)
  missing = [model for (model, _), x in zip(output.inputs, leaves) if x is None]
  if not missing:
    return leaves
  if unmatched == 'error':
    raise ValueError(
      f"{missing[0]} has no tensor '{output.name}', which others have: copy or "
      'drop it by --unmatched=copy or --unmatched=drop'
    )
  if unmatched == 'drop':
    notes.append(f"'{output.name}' is dropped: {missing[0]} does not have it")
    return []
  bases = [m == output.part.base for m, _ in output.inputs]
  order = sorted(range(len(leaves)), key=lambda i: not bases[i])
  i = next(i for i in order if leaves[i] is not None)
  notes.append(f"'{output.name}' is copied from {output.inputs[i][0]}")
  return [leaves[i]]


def one_dtype(leaves: Sequence[Any], dtype: str | None) -> list[Any]:
  """Casts the inputs of a tensor to the recipe's dtype.

  Without one, inputs of several dtypes are cast to the widest, at least
  float32.
  """
  dtypes = [np.dtype(x.dtype) for x in leaves]
  same = all(d == dtypes[0] for d in dtypes)
  wanted = dtypes[0] if same else tree.wide_dtype(*dtypes)
  wanted = np.dtype(dtype) if dtype else wanted
  return [
    x if d == wanted else cast_leaf(x, wanted) for x, d in zip(leaves, dtypes)
  ]


def cast(leaf: Any, recipe: _recipe.Recipe) -> Any:
  """Casts a float tensor to the dtype of the output."""
  dtype = recipe.out_dtype
  if dtype is None or not tree.is_float(leaf):
    return leaf
  return leaf if leaf.dtype == dtype else cast_leaf(leaf, np.dtype(dtype))


def cast_leaf(leaf: Any, dtype: np.dtype) -> Any:
  """Casts a leaf, in memory or on demand."""
  return tree.apply_kernel(tree.cast_leaf, leaf, dtype=tree.Static(dtype))


def check_same(output: _outputs.Output, leaves: Sequence[Any]) -> None:
  """Checks that integers and bools are equal in all inputs."""
  models = {
    str(model): {output.name: leaf}
    for (model, _), leaf in zip(output.inputs, leaves)
  }
  deltas.check('merge', models)


def check_shapes(output: _outputs.Output, leaves: Sequence[Any]) -> None:
  """Checks that the inputs of a tensor have one shape."""
  shapes = [tuple(leaf.shape) for leaf in leaves]
  for (model, name), shape in zip(output.inputs, shapes):
    if shape != shapes[0]:
      first, rows = output.inputs[0][0], shape[1:] == shapes[0][1:]
      remedy = 'align vocabularies by tokenizer: {source: union}'
      raise ValueError(
        f"tensor '{name}' of {model} has shape {shape}, of {first} "
        f'{shapes[0]}: {remedy if rows else "their architectures differ"}'
      )
