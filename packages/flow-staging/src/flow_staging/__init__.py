"""Data staging for Flow: files named by URL are where the app needs them."""
