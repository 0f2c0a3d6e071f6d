"""The code of the second application, which is in its image only."""


def predict(list_items):
    """Return ten more than the items."""
    return [i + 10 for i in list_items]
