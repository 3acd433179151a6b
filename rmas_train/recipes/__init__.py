"""Data recipes: data sets whose role texts a model writes."""
