"""The files beside the tensors: config, tokenizer, recipe, model card."""

from collections.abc import Mapping, Sequence
import json
import pathlib
import shutil
from typing import Any

from wsl import tree
from wsl.recipes import _build, _card, _folder, _layers, _recipe

# Files of a model of Hugging Face that a merge does not change.
_COPIED = (
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'tokenizer.model',
  'special_tokens_map.json',
  'added_tokens.json',
  'vocab.json',
  'vocab.txt',
  'merges.txt',
  'chat_template.jinja',
  'preprocessor_config.json',
  'processor_config.json',
)
# Those of them that list tokens: tokenizer.json takes their place.
_VOCABULARIES = (
  'tokenizer.json',
  'tokenizer.model',
  'added_tokens.json',
  'vocab.json',
  'vocab.txt',
  'merges.txt',
)
_RECIPE = 'recipe.yml'


def write_companions(
  out: pathlib.Path,
  recipe: _recipe.Recipe,
  text: str,
  folders: Mapping[_recipe.Model, _folder.Folder],
  merged: _build.Merged,
  *,
  inputs: Sequence[_card.CardEntry],
  template: str | None = None,
) -> list[str]:
  """Copies the files of the leading model, and writes config and card.

  The leading model is the base, or else the first one.

  Args:
    out: the folder of the merged model, which ``checkpoint.save`` has written.
    recipe: the recipe.
    text: the recipe as the user wrote it.
    folders: its models.
    merged: the merged model; the config states its dtype, layers and tokens.
    inputs: the models as the card lists them, by ``describe_inputs``.
    template: the chat template, if it is not that of the leading model; see
      ``chat_template``.

  Returns:
    The names of the files written.

  Raises:
    OSError: if a file cannot be read or written.

  Example:
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from wsl import checkpoint, recipes
    >>> folder, out = (pathlib.Path(tempfile.mkdtemp()) for _ in range(2))
    >>> checkpoint.save(folder, {'w': np.ones(2)})
    >>> _ = (folder / 'config.json').write_text('{"model_type": "bert"}')
    >>> models = [{'model': str(folder)}]
    >>> content = {'merge_method': 'karcher', 'models': models}
    >>> recipe = recipes.parse(content)
    >>> folders = recipes.open_all(recipes.models(recipe))
    >>> merged = recipes.build(recipe, folders)
    >>> inputs = recipes.describe_inputs(folders)
    >>> write_companions(out, recipe, str(content), folders, merged,
    ...                  inputs=inputs)
    ['config.json', 'recipe.yml', 'README.md']
  """
  leader = folders[_leader(recipe)]
  source = _folder.beside(leader.path)
  written = []
  names = list(_COPIED)
  if 'auto_map' in (leader.config or {}):  # the model is defined by code beside
    names += sorted(x.name for x in source.glob('*.py'))
  chosen = merged.vocabulary
  for name in names:
    stale = chosen is not None and name in _VOCABULARIES
    if (source / name).is_file() and not stale:
      if source.resolve() != out.resolve():  # else the file is there already
        shutil.copyfile(source / name, out / name)
      written.append(name)
  if leader.config is not None:
    text_of = json.dumps(_config(leader, merged), indent=2)
    (out / 'config.json').write_text(text_of + '\n', encoding='utf-8')
    written.append('config.json')
  if chosen is not None:
    chosen.tokenizer.save(str(out / 'tokenizer.json'))
    written.append('tokenizer.json')
  if template is not None:
    _set_template(out, template)
  return [*written, *write_card(out, recipe, text, inputs)]


def write_card(
  out: pathlib.Path,
  recipe: _recipe.Recipe,
  text: str,
  inputs: Sequence[_card.CardEntry],
) -> list[str]:
  """Writes the recipe and the model card; returns the names of the files."""
  (out / _RECIPE).write_text(text, encoding='utf-8')
  card = _card.text(out.name, recipe, text, inputs)
  (out / _card.FILE).write_text(card, encoding='utf-8')
  return [_RECIPE, _card.FILE]


def _leader(recipe: _recipe.Recipe) -> _recipe.Model:
  """Returns the base, or the first source."""
  return recipe.base or recipe.modules[0].slices[0].sources[0].model


def chat_template(
  recipe: _recipe.Recipe, folders: Mapping[_recipe.Model, _folder.Folder]
) -> str | None:
  """Returns the chat template that a recipe gives, or that of most models.

  Args:
    recipe: the recipe.
    folders: its models.

  Returns:
    A template of Jinja, or None if the recipe says nothing about it.

  Raises:
    ValueError: if it is no template, or no model has one.

  Example:
    >>> from wsl import recipes
    >>> recipe = recipes.parse({
    ...   'merge_method': 'karcher', 'models': [{'model': 'a'}],
    ...   'chat_template': '{{ messages }}'})
    >>> chat_template(recipe, {})
    '{{ messages }}'
  """
  wanted = recipe.chat_template
  if wanted is None:
    return None
  if wanted != 'auto':
    if '{' not in wanted:
      raise ValueError(
        f"chat_template='{wanted}': expected 'auto' or a template of Jinja"
      )
    return wanted
  found: list[str] = []
  for folder in folders.values():
    source = _folder.beside(folder.path)
    file = source / 'chat_template.jinja'
    settings = _folder.read_json(source / 'tokenizer_config.json') or {}
    own = file.read_text(encoding='utf-8') if file.is_file() else None
    own = own or settings.get('chat_template')
    found += [own.strip()] if isinstance(own, str) and own else []
  if not found:
    raise ValueError("chat_template='auto': no model has a chat template")
  return max(found, key=found.count)


def _set_template(out: pathlib.Path, template: str) -> None:
  """Writes the chat template into the settings of the tokenizer."""
  file = out / 'tokenizer_config.json'
  settings = dict(_folder.read_json(file) or {}) | {'chat_template': template}
  file.write_text(json.dumps(settings, indent=2) + '\n', encoding='utf-8')
  (out / 'chat_template.jinja').unlink(missing_ok=True)


def _config(leader: _folder.Folder, merged: _build.Merged) -> dict[str, Any]:
  """Returns the leader's config with the layers, dtype and tokens."""
  params = merged.params
  config = dict(leader.config or {})
  before = _layers.stacks(leader.params, config)
  if len(before) == 1:
    (stack,) = before
    places = map(_layers.place, params)
    numbers = {p.number for p in places if p is not None and p.stack == stack}
    if len(numbers) != before[stack]:
      config = _layers.with_count(config, len(numbers))
  dtypes = {str(x.dtype) for x in params.values() if tree.is_float(x)}
  if len(dtypes) == 1:
    (dtype,) = dtypes
    stated = [key for key in ('torch_dtype', 'dtype') if key in config]
    config |= dict.fromkeys(stated, dtype)
  if merged.vocabulary is not None:
    config['vocab_size'] = merged.vocabulary.size
  return config
