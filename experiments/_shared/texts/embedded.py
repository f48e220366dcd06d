"""Four texts that are part of every Python installation."""

from collections.abc import Callable
import functools
import importlib
from importlib import metadata
import pathlib
import re
import sysconfig
import unicodedata

# A paragraph counts as a copy of one with the same letters and digits.
_SHORTEST = 40


@functools.lru_cache(maxsize=1)
def licences() -> str:
  """Returns the licences of Python and of all packages, no paragraph twice."""
  files = {}
  for package in metadata.distributions():
    for file in package.files or ():
      path = pathlib.Path(str(file.locate()))
      if _is_licence(file.name) and path.is_file():
        files[str(file)] = path
  own = _library() / 'LICENSE.txt'
  if own.is_file():
    files[own.name] = own
  seen: set[str] = set()
  found = []
  for name in sorted(files):
    for paragraph in re.split(r'\n\s*\n', _read(files[name])):
      letters = re.sub(r'[^a-z0-9]+', ' ', paragraph.lower()).strip()
      if len(letters) >= _SHORTEST and letters not in seen:
        seen.add(letters)
        found.append(paragraph.strip('\n'))
  return '\n\n'.join(found) + '\n'


def code() -> str:
  """Returns the source of the standard library's modules, by name."""
  return '\n'.join(map(_read, sorted(_library().glob('*.py'))))


def manual() -> str:
  """Returns the chapters of Python's reference that ``help()`` shows."""
  topics = importlib.import_module('pydoc_data.topics').topics
  return '\n'.join(topics[name] for name in sorted(topics))


@functools.lru_cache(maxsize=1)
def characters() -> str:
  """Returns a line for each named character: itself, its code, its name.

  Names that only repeat the code, such as those of CJK ideographs, are left
  out, and Hangul syllables, which are spelled by a rule.
  """
  found = []
  for point in range(0x110000):
    name = unicodedata.name(chr(point), '')
    if name and not re.search(r'[0-9A-F]{4}$|^HANGUL SYLLABLE', name):
      found.append(f'{chr(point)} U+{point:04X} {name}\n')
  return ''.join(found)


TEXTS: dict[str, Callable[[], str]] = {
  'code': code,
  'manual': manual,
  'licences': licences,
  'characters': characters,
}


def _library() -> pathlib.Path:
  """Returns the folder of the standard library."""
  return pathlib.Path(sysconfig.get_paths()['stdlib'])


def _is_licence(name: str) -> bool:
  """Returns whether a file name is that of a licence text."""
  pattern = r'(licen[cs]e|copying|notice)[\w.-]*(?<!\.py)(?<!\.pyc)'
  return re.fullmatch(pattern, name, re.IGNORECASE) is not None


def _read(path: pathlib.Path) -> str:
  return path.read_text('utf-8', errors='replace')
