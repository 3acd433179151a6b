"""One run: what it loads, its folder, what it hands from stage to stage."""
