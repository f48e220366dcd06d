"""Headers are accepted exactly as the published package accepts them.

Sound headers are mutated by bytes, by values and by structure; then the
verdict, the names, the shapes and the metadata are compared with those of the
package. ``HEADER_CASES`` is the number of cases.
"""

import json
import os
import random
import re

import pytest
import safetensors

from wsl import checkpoint

CASES = int(os.environ.get('HEADER_CASES', '1000'))
_CODES = {
  'BOOL': 8,
  'U8': 8,
  'I16': 16,
  'BF16': 16,
  'F32': 32,
  'F64': 64,
  'C64': 64,
  'F8_E4M3': 8,
  'F8_E5M2FNUZ': 8,
  'F4': 4,
  'F6_E2M3': 6,
  'F6_E3M2': 6,
}
_NAMES = ['a', 'b.c/0', '', ' ', 'é', 'a\nb', '__metadata__', '"', '\\', '😀']
_NUMBERS = ['0', '-0', '-1', '1.0', '1e1', '01', 'true', 'null', '"1"', '[]']
_NUMBERS += ['{}', '4294967296', '9223372036854775808', '18446744073709551615']
_NUMBERS += ['18446744073709551616', '1e999', 'NaN', 'Infinity', '9' * 400]
_VALUES = ['{}', '[]', 'null', '3', '"x"', '[1,[2]]', '{"y":{"z":[]}}', '1e400']
_VALUES += ['[' * n + ']' * n for n in (124, 125, 126, 2000)]
_VALUES += [r'"\ud800"', r'"\udc00\ud800"', r'"\u0000"', '-0', '1.5', '9' * 310]


def _sound(rng):
  """Returns a sound header, and the size of its payload."""
  end, header = 0, {}
  if rng.random() < 0.4:
    header['__metadata__'] = {'format': 'pt', 'k': rng.choice(_NAMES)}
  for _ in range(rng.randint(0, 4)):
    code = rng.choice(list(_CODES))
    shape = [rng.choice([0, 1, 2, 4, 8]) for _ in range(rng.randint(0, 3))]
    bits = _CODES[code]
    for n in shape:
      bits *= n
    if bits % 8:
      continue
    name = rng.choice(_NAMES[:5]) + str(rng.randint(0, 30))
    if name in header:
      continue
    start, end = end, end + bits // 8
    header[name] = {'dtype': code, 'shape': shape, 'data_offsets': [start, end]}
  return header, end


def _text(rng, header):
  """Returns a header as JSON: as the package writes it, or with spaces."""
  compact = {'separators': (',', ':')} if rng.random() < 0.6 else {}
  return json.dumps(header, ensure_ascii=rng.random() < 0.4, **compact)


def _structure(rng, header):
  """Edits the values of a header, as text."""
  for name, entry in header.items():
    if name == '__metadata__':
      continue
    if rng.random() < 0.2:
      header[name] = [entry['dtype'], entry['shape'], entry['data_offsets']]
    elif rng.random() < 0.2:
      entry['extra'] = '@VALUE@'
    elif rng.random() < 0.1:
      entry['dtype'] = {entry['dtype']: None}
    elif rng.random() < 0.1:
      del entry[rng.choice(list(entry))]
    elif rng.random() < 0.2:
      header[name] = dict(rng.sample(list(entry.items()), len(entry)))
  text = _text(rng, header)
  text = text.replace('"@VALUE@"', rng.choice(_VALUES))
  if rng.random() < 0.2:
    text = re.sub('"a', '"b', text)  # a name twice
  if rng.random() < 0.1:
    text = text.replace('"dtype"', '"shape"', 1)
  if rng.random() < 0.1:
    text = text.replace('{', '{"__metadata__":' + rng.choice(_VALUES) + ',', 1)
  return text


def _mutate(rng, text):
  """Replaces numbers, and inserts, removes and swaps bytes."""
  kind = rng.random()
  if kind < 0.3:
    numbers = list(re.finditer(r'\d+', text))
    if numbers:
      found = rng.choice(numbers)
      new = rng.choice([*_NUMBERS, str(rng.randint(0, 64))])
      text = text[: found.start()] + new + text[found.end() :]
    return text.encode('utf-8', 'surrogatepass')
  data = bytearray(text.encode('utf-8', 'surrogatepass'))
  if kind < 0.8:
    for _ in range(rng.randint(1, 3)):
      place = rng.randrange(len(data))
      edit = rng.random()
      if edit < 0.4:
        data[place] = rng.choice(
          b'{}[]",:0123456789 \n\t\\ue-+.abF\x00\x0c\xff'
        )
      elif edit < 0.7:
        del data[place]
      else:
        data.insert(place, rng.choice(b'{}[]",: 0189\n\r\\"-.eF\x1f\xc3\xef'))
      if not data:
        data = bytearray(b' ')
  return bytes(data)


def case(seed):
  """Returns the bytes of a file."""
  rng = random.Random(seed)
  header, size = _sound(rng)
  text = _structure(rng, header) if rng.random() < 0.5 else _text(rng, header)
  data = _mutate(rng, text)
  if rng.random() < 0.1:
    size = max(0, size + rng.choice([-1, 1, 8]))
  length = len(data)
  if rng.random() < 0.03:
    length = rng.choice([0, length - 1, length + 1, 2**63, 2**64 - 1])
  return max(length, 0).to_bytes(8, 'little') + data + bytes(size)


def _package(path):
  """Returns what the package reads from a header, or None if it refuses."""
  try:
    with safetensors.safe_open(path, 'numpy') as file:
      shapes = {}
      for name in file.keys():  # noqa: SIM118, it is no dict
        view = file.get_slice(name)
        shapes[name] = tuple(view.get_shape())
      return shapes, file.metadata() or {}
  except safetensors.SafetensorError:
    return None


def _ours(path):
  """Returns what ``load`` reads from a header, or the message."""
  try:
    loaded = checkpoint.load(path, lazy=True)
    shapes = {name: leaf.shape for name, leaf in loaded.items()}
    return shapes, checkpoint.metadata(path)
  except ValueError as error:
    return str(error)


def test_the_same_headers_are_accepted(tmp_path):
  path = tmp_path / 'a.safetensors'
  accepted = 0
  for seed in range(CASES):
    content = case(seed)
    path.write_bytes(content)
    want, got = _package(path), _ours(path)
    accepted += want is not None
    if want is None:
      assert isinstance(got, str), (seed, content)
      assert len(got.splitlines()) == 1, (seed, got)
      assert len(got) < 300, (seed, got)
    else:
      assert got == want, (seed, content)
  assert 0.1 < accepted / CASES < 0.9


@pytest.mark.parametrize(
  ('header', 'message'),
  [
    (b'[' * 10_000_000, 'its header is not a JSON object'),
    (b'{"a":' * 5_000_000, 'its header is not a JSON object'),
    (b' ' * 90_000_000, 'its header is not a JSON object'),
    (b'"' + b'a' * 90_000_000, 'its header is not a JSON object'),
    (b'{"a":{"x":' + b'[' * 100_000 + b']' * 100_000 + b'}}', 'not a JSON'),
    (
      b'{"a":{"dtype":"F32","shape":[4294967296,4294967296,2],'
      b'"data_offsets":[0,0]}}',
      'beyond 64 bits',
    ),
  ],
)
def test_bombs_are_answered_at_once(tmp_path, header, message):
  path = tmp_path / 'a.safetensors'
  path.write_bytes(len(header).to_bytes(8, 'little') + header)
  with pytest.raises(ValueError, match=message) as caught:
    checkpoint.load(path, lazy=True)
  assert len(str(caught.value).splitlines()) == 1
