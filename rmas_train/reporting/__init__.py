"""Tables and pictures, made from run files after the fact; no stage knows this package."""
