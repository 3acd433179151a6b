"""Problems as rows of JSONL files, recipes that make them, the order in which they are drawn."""
