"""Anisotropic scaling: one coefficient for each block of each task vector.

bank = scale.bank(base, models, names=names, dtype=jnp.bfloat16)
coefs = scale.init(bank, by='leaf')
found = scale.fit(
  scale.supervised(apply_fn), base, bank, coefs, batches,
  optimizer=optax.adamw(1e-1), steps=100, key=key,
)
params = scale.compose(base, bank, found.coefs)
"""

from wsl.scale._bank.bank_rows import LowRank as LowRank
from wsl.scale._bank.banks import as_bank as as_bank
from wsl.scale._bank.banks import Bank as Bank
from wsl.scale._bank.banks import bank as bank
from wsl.scale._coefs.coef_tree import Coefs as Coefs
from wsl.scale._coefs.init import init as init
from wsl.scale._coefs.transforms import box as box
from wsl.scale._coefs.transforms import identity as identity
from wsl.scale._coefs.transforms import line as line
from wsl.scale._coefs.transforms import softmax as softmax
from wsl.scale._compose.compose import combine as combine
from wsl.scale._compose.compose import compose as compose
from wsl.scale._compose.pull_back import pull_back as pull_back
from wsl.scale._compose.scan import scan as scan
from wsl.scale._depth import by_depth as by_depth
from wsl.scale._learn.few_shot import few_shot as few_shot
from wsl.scale._learn.few_shot import shots as shots
from wsl.scale._learn.fit import Fit as Fit
from wsl.scale._learn.fit import fit as fit
from wsl.scale._learn.fit import StoppedError as StoppedError
from wsl.scale._learn.heads import linear_probe as linear_probe
from wsl.scale._learn.heads import LinearProbe as LinearProbe
from wsl.scale._learn.heads import probe_logits as probe_logits
from wsl.scale._learn.heads import tip_adapter as tip_adapter
from wsl.scale._learn.heads import tip_logits as tip_logits
from wsl.scale._learn.heads import TipAdapter as TipAdapter
from wsl.scale._learn.objectives import entropy as entropy
from wsl.scale._learn.objectives import multi_task as multi_task
from wsl.scale._learn.objectives import negation as negation
from wsl.scale._learn.objectives import shrinkage as shrinkage
from wsl.scale._learn.objectives import supervised as supervised
from wsl.scale._learn.select import select as select
from wsl.scale._learn.select import Selection as Selection
from wsl.scale._learn.select import subset as subset
from wsl.scale._learn.ufm import Trusted as Trusted
from wsl.scale._learn.ufm import trusted as trusted
from wsl.scale._learn.ufm import ufm as ufm
from wsl.scale._learn.ufm import Views as Views
from wsl.scale._linearise import linear_model as linear_model
from wsl.scale._linearise import linearise as linearise
