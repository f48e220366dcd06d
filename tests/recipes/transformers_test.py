"""What wsl-merge writes is loaded by transformers and PEFT; both are optional.

``pip install torch transformers peft`` to run these tests.
"""

import pathlib
from typing import Any

import numpy as np
import pytest
import yaml

from tests.recipes import adapter_test, cases, folders
from wsl import checkpoint
from wsl.recipes import _command

torch = pytest.importorskip('torch', reason='torch is not installed')
transformers = pytest.importorskip(
  'transformers', reason='transformers is not installed'
)

# Their own warnings, such as those about tied embeddings.
pytestmark = pytest.mark.filterwarnings('ignore')


def load(folder: str) -> Any:
  model = transformers.AutoModelForCausalLM.from_pretrained(
    folder, dtype=torch.float32
  )
  return model.eval()


def logits(model: Any) -> np.ndarray:
  with torch.no_grad():
    return model(input_ids=torch.arange(5)[None]).logits.numpy()


def test_a_merged_llama_generates_a_token(
  tmp_path: pathlib.Path, monkeypatch: Any
) -> None:
  for seed, name in enumerate(cases.THREE):
    folders.write(tmp_path / name, 'llama', seed)
  recipe = {
    'merge_method': 'linear',
    'models': cases._models(weight=(1, 1)),
    'dtype': 'float32',
    'out_dtype': 'bfloat16',
  }
  (tmp_path / 'r.yml').write_text(yaml.safe_dump(recipe))
  monkeypatch.chdir(tmp_path)
  _command.main(['r.yml', 'out', '--shard_size', '0.001MB'])
  assert len([*pathlib.Path('out').glob('*.safetensors')]) > 1
  model = load('out')
  one, two = (load(name) for name in cases.THREE[1:])
  other = two.state_dict()
  with torch.no_grad():
    for name, x in one.state_dict().items():
      x.copy_(((x + other[name]) / 2).to(torch.bfloat16).to(torch.float32))
  np.testing.assert_array_equal(logits(model), logits(one))
  ids = torch.arange(5)[None]
  found = model.generate(input_ids=ids, max_new_tokens=1, do_sample=False)
  assert found.shape == (1, 6)
  assert int(found[0, -1]) == int(logits(model)[0, -1].argmax())


@pytest.mark.parametrize('architecture', ['llama', 'gpt2'])
def test_peft_applies_the_lora_of_a_merge(
  architecture: str, tmp_path: pathlib.Path, monkeypatch: Any
) -> None:
  peft = pytest.importorskip('peft', reason='peft is not installed')
  monkeypatch.chdir(adapter_test.write(tmp_path, architecture))
  _command.main(['r.yml', 'out'])
  _command.main(['r.yml', 'lora', '--lora_rank', '2'])
  wanted, start = logits(load('out')), logits(load('base'))
  model = peft.PeftModel.from_pretrained(load('base'), 'lora').eval()
  assert np.abs(wanted - start).max() > 1
  np.testing.assert_allclose(logits(model), wanted, rtol=0, atol=2e-5)
  assert checkpoint.load_lora(checkpoint.load('base'), 'lora')
