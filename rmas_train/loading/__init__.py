"""From a model folder, a GGUF file or a hub id to a frozen model; files are checked before."""
