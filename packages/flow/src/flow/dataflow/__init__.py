"""The kernel and its futures and errors, under the paths that scripts use."""
