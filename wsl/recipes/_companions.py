"""The files beside the tensors: config, tokenizer, model card."""

from collections.abc import Mapping, Sequence
import hashlib
import importlib.metadata
import json
import pathlib
import shutil
from typing import Any, NamedTuple

import yaml

from wsl import tree
from wsl.recipes import _build, _folder, _layers, _recipe

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
# Files of tensors, whose hashes the card states.
_TENSORS = ('.safetensors', '.bin', '.pt', '.pth', '.npz', '.msgpack', '.gguf')
_CARD, _RECIPE = 'README.md', 'recipe.yml'


class Input(NamedTuple):
  """A model that was merged, as the card lists it."""

  name: str
  licence: str
  tensors: int
  digest: str  # of its files, or empty


def write(
  out: pathlib.Path,
  recipe: _recipe.Recipe,
  text: str,
  folders: Mapping[_recipe.Model, _folder.Folder],
  merged: _build.Merged,
  *,
  template: str | None = None,
  hashes: bool = False,
) -> list[str]:
  """Copies the files of the leading model, and writes config and card.

  Args:
    out: the folder of the merged model.
    recipe: the recipe.
    text: the recipe as the user wrote it.
    folders: its models.
    merged: the merged model; the config states its dtype, layers and tokens.
    template: the chat template, if it is not that of the leading model.
    hashes: whether the card states the SHA-256 of the inputs, which are read
      once more for it.

  Returns:
    The names of the files written.
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
  (out / _RECIPE).write_text(text, encoding='utf-8')
  card = _card(out.name, recipe, text, folders, hashes)
  (out / _CARD).write_text(card, encoding='utf-8')
  return [*written, _RECIPE, _CARD]


def _leader(recipe: _recipe.Recipe) -> _recipe.Model:
  """Returns the base, or the first source."""
  return recipe.base or recipe.modules[0].slices[0].sources[0].model


def template(
  recipe: _recipe.Recipe, folders: Mapping[_recipe.Model, _folder.Folder]
) -> str | None:
  """Returns the chat template that a recipe gives, or that of most models.

  Raises:
    ValueError: if it is no template, or no model has one.
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
    file = folder.path / 'chat_template.jinja'
    settings = _folder.read_json(folder.path / 'tokenizer_config.json') or {}
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


def _card(
  name: str,
  recipe: _recipe.Recipe,
  text: str,
  folders: Mapping[_recipe.Model, _folder.Folder],
  hashes: bool,
) -> str:
  """Returns a model card: what was merged, how, and by which versions."""
  inputs = [_input(model, folder, hashes) for model, folder in folders.items()]
  licences = sorted({x.licence for x in inputs} - {'unknown'})
  front: dict[str, Any] = {'tags': ['merge', 'wsl']}
  front['base_model'] = [x.name for x in inputs]
  if len(licences) == 1 and all(x.licence == licences[0] for x in inputs):
    front['license'] = licences[0]
  rows = [
    f'| {x.name} | {x.licence} | {x.tensors} | `{x.digest}` |' for x in inputs
  ]
  versions = ', '.join(
    f'{package} {importlib.metadata.version(distribution)}'
    for package, distribution in (('wsl', 'weight-space-lab'), ('jax', 'jax'))
  )
  return '\n'.join(
    [
      f'---\n{yaml.safe_dump(front, sort_keys=False)}---',
      f'# {name}',
      '',
      f'A merge by `{recipe.method}`, made by {versions}.',
      '',
      '| input | licence | tensors | SHA-256 |',
      '|---|---|---|---|',
      *rows,
      '',
      'The recipe:',
      '',
      f'```yaml\n{text.strip()}\n```',
      '',
    ]
  )


def _input(model: _recipe.Model, folder: _folder.Folder, hashes: bool) -> Input:
  """Describes one input."""
  paths = [folder.path, *([folder.adapter] if folder.adapter else [])]
  digest = _digest(paths) if hashes else ''
  licence = _licence(folder.path)
  return Input(str(model), licence, len(folder.params), digest)


def _digest(paths: Sequence[pathlib.Path]) -> str:
  """Returns the SHA-256 of the digests of tensor files, in order of names.

  A folder without such files, as Orbax writes it, counts with all its files.
  """
  found = hashlib.sha256()
  for path in paths:
    inside = [path] if path.is_file() else sorted(path.rglob('*'))
    files = [x for x in inside if x.is_file()]
    for file in [x for x in files if x.suffix in _TENSORS] or files:
      with file.open('rb') as stream:
        found.update(hashlib.file_digest(stream, 'sha256').digest())
  return found.hexdigest()


def _licence(path: pathlib.Path) -> str:
  """Returns the licence that the card of a model states, or 'unknown'."""
  card = _folder.beside(path) / _CARD
  if not card.is_file():
    return 'unknown'
  parts = card.read_text(encoding='utf-8', errors='replace').split('---', 2)
  if len(parts) < 3 or parts[0].strip():
    return 'unknown'
  try:
    front = yaml.safe_load(parts[1])
  except yaml.YAMLError:
    return 'unknown'
  found = front.get('license') if isinstance(front, dict) else None
  return str(found) if found else 'unknown'
