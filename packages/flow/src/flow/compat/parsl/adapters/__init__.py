"""Thin adapters: what has other keywords, defaults or behaviour in Parsl than in Flow."""
