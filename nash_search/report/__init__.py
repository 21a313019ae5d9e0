"""Tables, plots, pages, model cards and the guarded dashboard; reads records and the search document only."""
