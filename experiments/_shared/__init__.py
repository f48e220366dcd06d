"""What several experiments share: tasks, networks, training, accuracy."""
