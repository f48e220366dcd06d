"""Routes through several networks: definition, cost, execution, training."""
