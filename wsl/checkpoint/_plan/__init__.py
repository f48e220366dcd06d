"""Plans: what a save would read, write and hold, and what would stop it."""
