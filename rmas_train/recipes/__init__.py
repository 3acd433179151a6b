"""Data recipes: build data sets; a model writes missing role texts."""
