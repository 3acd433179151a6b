"""Problems as rows of JSONL files, recipes that make them, and the order in which they are drawn."""
