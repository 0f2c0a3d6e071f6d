"""Rooms in which programs that were written for other systems run on Flow."""
