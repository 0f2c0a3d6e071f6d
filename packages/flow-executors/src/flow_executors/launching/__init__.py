"""How managers come up on nodes that are not the script's machine: their Python, and Flow itself."""
