"""Reading a recipe in mergekit's YAML.

Every mistake that needs no model to be seen is reported with its place.
"""

from collections.abc import Callable, Mapping, Sequence
import os
import pathlib
from typing import Any

import yaml

from wsl import tree
from wsl.recipes import _recipe
from wsl.recipes._file import fields, tokens

_TOP = {
  'merge_method', 'base_model', 'models', 'slices', 'modules', 'parameters',
  'dtype', 'out_dtype', 'tokenizer_source', 'tokenizer', 'chat_template',
  'name',  # the name of a stage in a file of several recipes
}  # fmt: skip
_DTYPES = ('bfloat16', 'float16', 'float32', 'float64')


def read(path: str | os.PathLike[str]) -> _recipe.Recipe:
  """Reads a recipe in mergekit's YAML.

  Args:
    path: the file.

  Returns:
    The recipe. Paths in it are relative to the working directory.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if it is not YAML, or not a recipe, naming the place in it.

  Example:
    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp(), 'recipe.yml')
    >>> _ = file.write_text('{merge_method: karcher, models: [{model: a}]}')
    >>> read(file).method
    'karcher'
  """
  file = pathlib.Path(path)
  try:
    text = file.read_text(encoding='utf-8')
    content = yaml.safe_load(text)
  except (yaml.YAMLError, ValueError, RecursionError) as error:
    reason = ' '.join(str(error).split())
    raise ValueError(f'{file} is not YAML: {reason}') from None
  return parse(content, label=str(file))


def parse(content: Any, *, label: str = 'recipe') -> _recipe.Recipe:
  """Checks the content of a recipe and returns it as values.

  Args:
    content: a dict, as ``yaml.safe_load`` returns it.
    label: the start of error messages.

  Returns:
    The recipe.

  Raises:
    ValueError: naming the key that is unknown, missing or malformed.

  Example:
    >>> recipe = parse({
    ...   'merge_method': 'linear',
    ...   'models': [{'model': 'a', 'parameters': {'weight': 0.3}},
    ...              {'model': 'b', 'parameters': {'weight': 0.7}}]})
    >>> [str(source.model) for source in recipe.modules[0].slices[0].sources]
    ['a', 'b']
  """
  where = f'{label}: '
  content = fields.mapping(content, label, _TOP, ('merge_method',))
  forms = [key for key in ('models', 'slices', 'modules') if content.get(key)]
  if len(forms) != 1:
    listed = ' and '.join(forms) or 'none'
    raise ValueError(
      f'{where}found {listed} of models, slices and modules: give exactly one'
    )
  base = _optional(content, 'base_model', where, fields.model)
  parts: list[tuple[str | None, Any]] = [(None, content)]
  if forms == ['modules']:
    found = fields.mapping(content['modules'], f'{where}modules')
    parts = list(found.items())
  modules = []
  for name, part in parts:
    place = where if name is None else f'{where}modules.{name}.'
    own: Mapping[str, Any] = {}
    if name is not None:
      part = fields.mapping(
        part, place[:-1], {'models', 'slices', 'parameters'}
      )
      own = _parameters(part, place)
      if bool(part.get('models')) == bool(part.get('slices')):
        raise ValueError(f'{place[:-1]}: give either models or slices')
    modules.append(_recipe.Module(name, _slices(part, place), own))
  return _recipe.Recipe(
    method=str(content['merge_method']),
    base=base,
    modules=tuple(modules),
    parameters=_parameters(content, where),
    dtype=_dtype(content, 'dtype', where),
    out_dtype=_dtype(content, 'out_dtype', where),
    tokenizer=tokens.parse(content, where),
    chat_template=_optional(content, 'chat_template', where, fields.text),
  )


def _slices(part: Mapping[str, Any], where: str) -> tuple[_recipe.Slice, ...]:
  """Reads ``slices``, or ``models`` as one slice of all layers."""
  if part.get('models'):
    sources = [
      _source(entry, f'{where}models[{i}]', ranged=False)
      for i, entry in enumerate(fields.items(part['models'], f'{where}models'))
    ]
    return (_recipe.Slice(tuple(sources), None, {}),)
  slices = []
  keys = {'sources', 'base_model', 'residual_weight', 'parameters'}
  for i, entry in enumerate(fields.items(part['slices'], f'{where}slices')):
    place = f'{where}slices[{i}]'
    entry = fields.mapping(entry, place, keys, ('sources',))
    if entry.get('residual_weight') is not None:
      raise ValueError(
        f'{place}.residual_weight has no effect in mergekit: take it out'
      )
    sources = [
      _source(source, f'{place}.sources[{j}]', ranged=True)
      for j, source in enumerate(
        fields.items(entry['sources'], f'{place}.sources')
      )
    ]
    lengths = {s.layers[1] - s.layers[0] for s in sources if s.layers}
    if len(lengths) != 1:
      raise ValueError(
        f'{place}: its sources have {sorted(lengths)} layers: give ranges of '
        'one length'
      )
    base = _optional(entry, 'base_model', f'{place}.', fields.model)
    slices.append(
      _recipe.Slice(tuple(sources), base, _parameters(entry, f'{place}.'))
    )
  return tuple(slices)


def _source(entry: Any, place: str, *, ranged: bool) -> _recipe.Source:
  """Reads one entry of ``models`` or ``sources``."""
  keys = {'model', 'parameters'} | ({'layer_range'} if ranged else set())
  needed = ('model', 'layer_range') if ranged else ('model',)
  entry = fields.mapping(entry, place, keys, needed)
  layers = None
  if ranged:
    bounds = entry['layer_range']
    fits = isinstance(bounds, Sequence) and len(bounds) == 2
    if not fits or not all(type(x) is int for x in bounds):
      raise ValueError(f'{place}.layer_range={bounds!r}: expected [first, end]')
    if not 0 <= bounds[0] < bounds[1]:
      raise ValueError(f'{place}.layer_range={list(bounds)}: holds no layer')
    layers = (bounds[0], bounds[1])
  model = fields.model(entry['model'], f'{place}.model')
  return _recipe.Source(model, layers, _parameters(entry, f'{place}.'))


def _parameters(part: Mapping[str, Any], where: str) -> Mapping[str, Any]:
  return fields.mapping(part.get('parameters') or {}, f'{where}parameters')


def _dtype(content: Mapping[str, Any], key: str, where: str) -> str | None:
  """Reads the name of a float dtype, or None."""
  value = content.get(key)
  if value is None:
    return None
  name = str(value).removeprefix('torch.')
  if name not in _DTYPES:
    hint = tree.nearest(name, list(_DTYPES))
    raise ValueError(f'{where}{key}={value!r}: expected one of {_DTYPES}{hint}')
  return name


def _optional(
  content: Mapping[str, Any],
  key: str,
  where: str,
  parse_value: Callable[[Any, str], Any],
) -> Any:
  value = content.get(key)
  return None if value is None else parse_value(value, f'{where}{key}')
