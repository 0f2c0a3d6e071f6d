"""The code of the first application, which is in its image only."""


def predict(list_items):
    """Return the double of the items."""
    return [i * 2 for i in list_items]
