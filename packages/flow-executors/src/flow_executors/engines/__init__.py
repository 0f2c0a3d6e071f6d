"""Executors on engines that people already have. ``engine`` says what an adapter is, and what it has to do."""
