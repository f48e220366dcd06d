"""Public model zoos: folders of trials, and vectors of weights."""
