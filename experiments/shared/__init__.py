"""What several experiments use: a table of trainings, a replay of a trained grid, pictures."""
