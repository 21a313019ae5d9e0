"""One trial: a job goes in, a model is trained, timed and scored, a record comes out."""
