"""Names of models and methods in tables and figures."""

TITLES = {
  'base': 'base',
  'joint': 'joint training',
  'experts': 'own expert of each domain',
  'mean': 'average',
  'sum': 'task arithmetic',
  'sum+by_depth': 'LiNeS',
  'ties': 'TIES',
  'dare+sum': 'DARE + sum',
  'della+sum': 'DELLA + sum',
  'breadcrumbs+sum': 'Breadcrumbs',
  'consensus': 'consensus TA',
  'magmax': 'MagMax',
  'pcb': 'PCB',
  'ram': 'RAM',
  'ram_plus': 'RAM+',
  'sce': 'SCE',
  'model_stock': 'Model Stock',
  'variance_corrected': 'variance corrected',
  'regmean': 'RegMean',
  'tsv': 'TSV-M',
  'iso_c': 'Iso-C',
  'iso_cts': 'Iso-CTS',
  'wudi': 'WUDI',
  'opcm': 'OPCM',
  'greedy_soup': 'greedy soup',
}


def title(name: str) -> str:
  """Returns the name of a method in tables and figures."""
  return TITLES.get(name, name)
